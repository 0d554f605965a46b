"""Token buckets, with a clock that the test sets."""

from fa_core.gateway.limits import Limiter


def test_a_burst_then_the_rate() -> None:
    now = [0.0]
    limiter = Limiter(2.0, 3.0, lambda: now[0])
    assert [limiter.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert limiter.allows("b")
    now[0] = 0.5
    assert [limiter.allows("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [limiter.allows("a") for _ in range(4)] == [True, True, True, False]


def test_the_memory_is_bounded() -> None:
    limiter = Limiter(1.0, 1.0, lambda: 0.0, kept=2)
    for who in "abc":
        limiter.allows(who)
    assert not limiter.allows("c")
    assert limiter.allows("a")  # forgotten

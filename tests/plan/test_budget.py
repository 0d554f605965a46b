"""The rho that a plan carries: worked out for its author, verified for everybody else."""

import json
from fractions import Fraction
from typing import Any

import pytest

from fa_core.errors import BadInput
from fa_core.layout import compile_plan
from fa_core.plan import Plan, UnsupportedRho, canonical, from_canonical, rho_of
from fa_core.plan.prose import describe
from fa_core.privacy.accounting import rho_for
from fa_core.privacy.zcdp import implies
from tests.metrics.samples import before
from tests.plan.samples import broken, complaints, good

RHO, ALPHA = "0.0172053180393", "30.52864"
PURE = broken("  noise: distributed\n", "  noise: central\n  accounting: pure\n").replace(
    "delta: 1e-8", "delta: 0"
)


def canonical_with(change: dict[str, Any], plan: Plan | None = None) -> bytes:
    """The canonical bytes of the good plan with other values under `privacy`; None takes a key out."""
    body = json.loads(canonical(plan or good()))
    body["privacy"] = {key: each for key, each in (body["privacy"] | change).items() if each is not None}
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def of_before() -> bytes:
    """The good plan's bytes as they were before a plan carried rho, or said how counts are sent."""
    return canonical(before(good()))


def test_the_canonical_plan_carries_rho_and_alpha_as_decimals() -> None:
    privacy = json.loads(canonical(good()))["privacy"]
    assert (privacy["rho"], privacy["alpha"]) == (RHO, ALPHA)
    assert implies(Fraction(RHO), Fraction(ALPHA), Fraction(1), Fraction(1, 10**8))
    assert "rho 0.0172053180393 of zCDP, verified at alpha 30.52864" in describe(good())


def test_the_layout_costs_that_rho_and_nothing_else() -> None:
    layout = compile_plan(good())
    assert layout.cost == sum(block.cost for block in layout.blocks) == Fraction(RHO)


def test_a_pure_plan_has_none() -> None:
    plan = good(PURE)
    assert (plan.privacy.rho, plan.privacy.alpha) == (None, None)
    assert b'"rho"' not in canonical(plan)
    assert compile_plan(plan).cost == 1
    assert from_canonical(canonical(plan)) == plan


def test_a_plan_of_before_keeps_its_bytes_its_hash_and_its_cost() -> None:
    """The hash is the one that the good plan had when plans carried no rho: logs and ledgers name it so."""
    plan = from_canonical(of_before())
    assert canonical(plan) == of_before()
    assert plan.hash == "4ada84a031251a38e773124743fd30c8a2d7d15aedbf2824345f024fbe69df9d"
    assert rho_of(plan.privacy) == compile_plan(plan).cost == rho_for(Fraction(1), Fraction(1, 10**8))
    assert "Charge" not in describe(plan)


@pytest.mark.parametrize(
    "change",
    [
        {"rho": "0.0172053180394"},
        {"rho": "1"},
        {"rho": "0"},
        {"rho": "-0.01"},
        {"alpha": "30.5"},
        {"alpha": "2"},
        {"alpha": "1"},
        {"alpha": "-30.52864"},
        {"epsilon": "0.9999999999"},
        {"delta": "0.00000000999"},
        {"rho": None},
        {"alpha": None},
    ],
    ids=str,
)
def test_a_rho_that_does_not_imply_what_is_stated_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedRho, match=r"^privacy\.(rho|alpha): .*leave `rho` and `alpha` out"):
        from_canonical(canonical_with(change))


def test_a_pure_plan_with_a_rho_is_refused() -> None:
    with pytest.raises(UnsupportedRho, match="has no rho"):
        from_canonical(canonical_with({"rho": RHO, "alpha": ALPHA}, good(PURE)))


@pytest.mark.parametrize("key", ["rho", "alpha", "epsilon", "delta"])
@pytest.mark.parametrize(
    "text", ["1/" + "3" * 4000, "3" * 4000, "1e-4000", "1/0", "NaN", "1/" + "7" * 100_000]
)
def test_numbers_of_any_size_are_refused_at_once(key: str, text: str) -> None:
    with pytest.raises(BadInput):
        from_canonical(canonical_with({key: text}))


def test_less_rho_than_is_allowed_is_sound() -> None:
    plan = from_canonical(canonical_with({"rho": "0.01", "alpha": "30.5"}))
    assert compile_plan(plan).cost == Fraction(1, 100)


def test_a_reader_that_does_not_verify_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fa_core.plan.budget.implies", lambda *_: True)
    assert rho_of(from_canonical(canonical_with({"rho": "1"})).privacy) == 1


def test_a_plan_that_was_changed_after_it_was_checked_does_not_compile() -> None:
    plan = good()
    halved = plan.model_copy(update={"privacy": plan.privacy.model_copy(update={"epsilon": Fraction(1, 2)})})
    with pytest.raises(UnsupportedRho, match=r"epsilon 0\.5"):
        compile_plan(halved)


def test_an_author_may_write_them_and_they_are_verified() -> None:
    written = broken("  delta: 1e-8\n", f"  delta: 1e-8\n  rho: {RHO}\n  alpha: {ALPHA}\n")
    assert good(written).hash == good().hash
    assert good(written.replace(RHO, "0.01")).privacy.rho == Fraction(1, 100)
    assert complaints(written.replace(RHO, "0.0173")) == [
        "39:8: this rho is not shown by `alpha` to imply epsilon 1 and delta 0.00000001; "
        "leave `rho` and `alpha` out: they follow from epsilon and delta"
    ]
    alone = broken("  delta: 1e-8\n", f"  delta: 1e-8\n  rho: {RHO}\n")
    assert complaints(alone)[0].startswith("39:3: one of `rho` and `alpha` is missing; leave")


def test_too_little_to_use_is_said_at_its_place() -> None:
    text = broken("epsilon: 1.0", "epsilon: 0.000000000001").replace("1e-8", "1e-17")
    found = "37:12: epsilon and delta are so small together that no noise is large enough; raise epsilon"
    assert complaints(text) == [found]

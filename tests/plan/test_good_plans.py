"""What a plan means, and that it means the same however it is written."""

import json
from datetime import date, timedelta
from fractions import Fraction

import pytest

from fa_core.errors import BadInput
from fa_core.metrics import PRESETS
from fa_core.plan import OTHER, Plan, canonical, from_canonical, parse
from fa_core.plan.schema import EventSegment
from tests.metrics.samples import before
from tests.plan.samples import GOOD, TODAY, broken, good


def test_a_plan_says_what_its_file_says() -> None:
    plan = good()
    assert plan.name == "wake-word-weekly@3"
    assert plan.metadata.expires == date(2027, 3, 31)
    assert plan.window == timedelta(days=7)
    assert plan.where["model_version"].any_of == ("2.1",)
    assert plan.group_by == ((), ("accent",), ("accent", "device_class"), ("environment",))
    assert plan.metrics["score"].group_by == ((), ("accent",))
    assert plan.eligibility.require == ("unmetered_network", "charging", "idle")
    assert plan.guardrails[0].by == ("accent",)


def test_metrics_have_their_source_and_groupings_filled_in() -> None:
    plan = good()
    rate = plan.metrics["false_reject_rate"]
    assert rate.source == "wake_events"
    assert rate.group_by == plan.group_by


def test_defaults_are_the_private_choice() -> None:
    privacy = good(broken("  noise: distributed\n  max_events: 64\n", "")).privacy
    assert (privacy.noise, privacy.accounting, privacy.mechanism) == ("distributed", "zcdp", "auto")
    assert privacy.secure_aggregation is True
    assert (privacy.dropout, privacy.corrupt) == (Fraction(1, 10), Fraction(1, 10))
    assert (privacy.max_excess, privacy.counters) == (None, "joint")
    assert sum(share.share for share in privacy.shares) == 1


def test_every_segment_ends_in_other() -> None:
    text = broken("# playback: ", "playback: ", broken("[environment]]", "[environment], [playback]]"))
    segments = good(
        broken("    kind: rate_per_hour", "    group_by: [[]]\n    kind: rate_per_hour", text)
    ).segments
    assert segments["accent"].labels == ("en-US", "en-GB", "en-IN", "es-en", OTHER)
    assert segments["environment"].labels == ("noisy", "moderate", "quiet", OTHER)
    assert segments["playback"].labels == ("true", "false", OTHER)
    assert [segments[name].level for name in ("accent", "environment")] == ["device", "event"]
    assert [segments[name].column for name in ("accent", "environment")] == ["accent", "snr_db"]


def test_numbers_are_exact() -> None:
    plan = good(broken("epsilon: 1.0", "epsilon: 0.1"))
    assert plan.privacy.epsilon == Fraction(1, 10)
    assert plan.privacy.delta == Fraction(1, 10**8)
    assert plan.eligibility.sample == Fraction(1, 5)


@pytest.mark.parametrize("text", ["1e-8", "1E-8", "0.00000001", "1.0e-08", ".00000001", "+10e-9"])
def test_one_number_in_many_spellings_is_one_plan(text: str) -> None:
    assert good(broken("1e-8", text)).hash == good().hash


@pytest.mark.parametrize(
    "old,new",
    [
        ("window: 7d", "window: 168h"),
        ("window: 7d", "window: '7d'"),
        ("wake_word: okay_nabu", "wake_word: [okay_nabu]"),
        ('{wake_word: okay_nabu, model_version: ["2.1"]}', "{model_version: '2.1', wake_word: okay_nabu}"),
        ("by: accent, max: 0.08", "by: [accent], max: 8e-2"),
        ("  noise: distributed\n", ""),
        ("  noise: distributed\n", "  noise: distributed\n  counters: joint\n"),
        ("  noise: distributed\n", "  noise: distributed\n  shares: [{metric: score, share: 1/25}]\n"),
        ("kind: EvalPlan\n", "kind: EvalPlan\n\n# a remark\n"),
        ("    expect: 0.5\n", ""),
        ("question: Does any accent", "question: Does  any accent"),
    ],
)
def test_what_means_the_same_has_the_same_hash(old: str, new: str) -> None:
    assert good(broken(old, new)).hash == good().hash


@pytest.mark.parametrize(
    "old,new",
    [
        ("window: 7d", "window: 6d"),
        ("epsilon: 1.0", "epsilon: 1.01"),
        ("revision: 3", "revision: 4"),
        ("noise: distributed", "noise: central"),
        ("expect: 0.05", "expect: 0.06"),
        ("edges: [8, 18]", "edges: [8, 19]"),
        ("[en-US, en-GB, en-IN, es-en]", "[en-GB, en-US, en-IN, es-en]"),
    ],
)
def test_what_means_something_else_has_another_hash(old: str, new: str) -> None:
    assert good(broken(old, new)).hash != good().hash


def test_the_order_of_keys_changes_nothing() -> None:
    top, metrics, rest = GOOD.partition("metrics:\n")[0], GOOD.partition("metrics:\n")[2], ""
    metrics, rest = (
        metrics.partition("eligibility:")[0],
        "eligibility:" + metrics.partition("eligibility:")[2],
    )
    first, second = metrics.split("  false_accepts_per_hour:\n")
    second, third = second.split("  score:\n")
    turned = "  score:\n" + third + "  false_accepts_per_hour:\n" + second + first
    plan = good(top + rest + "metrics:\n" + turned)
    assert plan.hash == good().hash
    assert list(plan.metrics) == list(good().metrics) == sorted(plan.metrics)


def test_canonical_bytes_come_back_as_the_same_plan() -> None:
    plan = good()
    again = from_canonical(canonical(plan))
    assert again == plan
    assert canonical(again) == canonical(plan)
    assert again.hash == plan.hash
    assert list(again.metrics) == list(plan.metrics)


def test_canonical_bytes_hold_no_floats() -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"a float: {text}")

    body = json.loads(canonical(good()), parse_float=refuse)
    assert body["privacy"]["delta"] == "0.00000001"
    assert body["metrics"]["false_reject_rate"]["expect"] == "0.05"


def test_the_hash_of_a_plan_never_changes() -> None:
    """Devices, logs and ledgers of every version name a plan by this. A change here breaks them all."""
    assert good().hash == "dbca5caf72abc2154c16057824dfb8440c17ca1f30706d1541b8aa8a7108d45a"


NEWER = ("rho", "alpha", "counters", "shares")
"""Keys that plans of before lack: what they are charged, how counts are sent, how the budget is shared."""


def test_the_hash_of_a_plan_of_before_never_changes() -> None:
    body = json.loads(canonical(good()))
    privacy = {key: value for key, value in body["privacy"].items() if key not in NEWER}
    data = json.dumps(
        body | {"privacy": privacy | {"max_excess": None}}, sort_keys=True, separators=(",", ":")
    ).encode()
    plan = from_canonical(data)
    assert plan == before(good())
    assert plan.hash == "4ada84a031251a38e773124743fd30c8a2d7d15aedbf2824345f024fbe69df9d"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"extra": 1},
        lambda body: {key: value for key, value in body.items() if key != "privacy"},
        lambda body: body | {"window": "168h"},
        lambda body: body | {"privacy": body["privacy"] | {"epsilon": "-1"}},
        lambda body: body | {"privacy": body["privacy"] | {"epsilon": "1.0"}},
        lambda body: body | {"privacy": body["privacy"] | {"delta": "0.5"}},
        lambda body: body | {"group_by": [["nobody"]]},
        lambda body: body | {"metrics": {}},
        lambda body: body | {"metrics": ["false_reject_rate"]},
        lambda body: [body],
    ],
)
def test_bytes_that_are_no_canonical_plan_are_refused(change: object) -> None:
    body = change(json.loads(canonical(good())))  # type: ignore[operator]
    data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(BadInput):
        from_canonical(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"\xff", b"null", b'{"a": 1e5}', b"NaN", b"[" * 100_000, GOOD.encode(), b" " * 2_000_000],
)
def test_bytes_that_are_no_json_object_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        from_canonical(data)


def test_other_spacing_of_canonical_json_is_refused() -> None:
    with pytest.raises(BadInput, match="not in its canonical form"):
        from_canonical(canonical(good()) + b"\n")


def test_an_expired_plan_can_still_be_read_from_its_bytes() -> None:
    """A result outlives its plan; whether a device may answer is asked when it is asked."""
    plan = parse(GOOD.encode(), "plan.yaml", today=TODAY)
    assert from_canonical(canonical(plan)).metadata.expires == date(2027, 3, 31)


PRESET_PLAN = """\
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: usual, revision: 1, owner: us, question: How is it?, expires: 2027-01-01}
window: 7d
metrics: [%s]
privacy: {epsilon: 1}
"""


def test_the_usual_metrics_are_a_valid_plan_by_name() -> None:
    plan = good(PRESET_PLAN % ", ".join(PRESETS))
    assert set(plan.metrics) == set(PRESETS)
    assert plan.metrics["word_error_rate"].source == "dictation_events"


def test_a_preset_is_its_metric_written_out() -> None:
    by_name = good(PRESET_PLAN % "false_reject_rate")
    written_out = broken(
        "metrics: [false_reject_rate]",
        "metrics: {false_reject_rate: {kind: rate, source: wake_events, of: {outcome: false_reject}, "
        "over: {outcome: [true_accept, false_reject]}, expect: 0.1}}",
        PRESET_PLAN % "false_reject_rate",
    )
    assert by_name.hash == good(written_out).hash


def test_a_preset_may_be_changed_in_part() -> None:
    plan = good(
        broken(
            "[false_reject_rate]",
            "{frr: {preset: false_reject_rate, expect: 0.2}}",
            PRESET_PLAN % "false_reject_rate",
        )
    )
    assert json.loads(canonical(plan))["metrics"]["frr"]["expect"] == "0.2"
    assert json.loads(canonical(plan))["metrics"]["frr"]["of"]["outcome"]["any_of"] == ["false_reject"]


def test_a_plan_cannot_be_changed() -> None:
    plan = good()
    with pytest.raises(ValueError, match="frozen"):
        plan.source = "listening"  # type: ignore[assignment]
    segment = plan.segments["environment"]
    assert isinstance(segment, EventSegment)
    with pytest.raises(ValueError, match="frozen"):
        segment.edges = (Fraction(1),)  # type: ignore[misc]


def test_two_plans_are_equal_when_they_say_the_same() -> None:
    assert isinstance(good(), Plan)
    assert good() == good()
    assert good() != good(broken("revision: 3", "revision: 4"))

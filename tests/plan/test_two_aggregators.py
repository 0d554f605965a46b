"""Two aggregators in a plan: what may be asked, what is written out, and that plans of before stay theirs."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from fa_core.errors import BadInput, Refused
from fa_core.estimate.expect import noise_variance
from fa_core.layout import FIELD_HALF, MAX_REPORTS, NOISE_TAIL, compile_plan, layout_hash, require_headroom
from fa_core.plan import canonical, from_canonical, parse
from fa_core.plan.prose import describe
from fa_core.prio.field import FIELD64
from fa_core.privacy.distributed import shares_of
from fa_core.privacy.guarantee import guarantee
from fa_core.privacy.two_aggregators import noise_of, variance_in_release
from tests.collection.setup import plan_text, released

TEXT = plan_text("sum: two_aggregators")


def findings(privacy: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        parse(plan_text(privacy).encode(), "plan.yaml", policy=None)
    return str(caught.value).splitlines()


def test_kappa_is_a_quarter_where_it_is_left_out_and_stands_in_the_canonical_form() -> None:
    plan = parse(TEXT.encode(), "plan.yaml", policy=None)
    assert plan.privacy.kappa == Fraction(1, 4)
    assert b'"kappa":"0.25"' in canonical(plan)
    assert b'"sum":"two_aggregators"' in canonical(plan)
    assert from_canonical(canonical(plan)) == plan


def test_a_plan_of_four_stages_says_neither_sum_nor_kappa() -> None:
    written = parse(plan_text("sum: four_stages").encode(), "plan.yaml", policy=None)
    left_out = parse(plan_text("min_cohort: 100").encode(), "plan.yaml", policy=None)
    assert b'"sum"' not in canonical(written)
    assert b"kappa" not in canonical(written)
    assert canonical(written) == canonical(left_out)
    assert compile_plan(written).kappa is None


@pytest.mark.parametrize(
    ("privacy", "at", "says"),
    [
        ("sum: two_aggregators, kappa: 2", "12:45", "`2` is out of range"),
        ("sum: two_aggregators, kappa: 0", "12:45", "`0` is out of range"),
        ("kappa: 0.5", "12:16", "kappa is of the noise that two aggregators add"),
        ("sum: two_aggregators, noise: central", "12:45", "each adds its own noise"),
        ("sum: two_aggregators, secure_aggregation: false", "12:58", "are a secure aggregation"),
        ("sum: two_aggregators, accounting: pure, delta: 0", "12:50", "which has no pure epsilon"),
        ("sum: both", "12:21", "`both` is not known here"),
    ],
)
def test_what_two_aggregators_cannot_do_is_refused_at_its_place(privacy: str, at: str, says: str) -> None:
    assert any(line.startswith(f"plan.yaml:{at}: ") and says in line for line in findings(privacy))


def test_canonical_bytes_without_kappa_are_no_plan() -> None:
    data = canonical(parse(TEXT.encode(), "plan.yaml", policy=None))
    with pytest.raises(BadInput, match="need a kappa"):
        from_canonical(data.replace(b'"kappa":"0.25",', b""))


def test_the_plan_in_words_says_who_adds_noise_and_who_could_read_what() -> None:
    words = describe(parse(TEXT.encode(), "plan.yaml", policy=None))
    assert "the leader's variance is 0.25 of the helper's" in words
    assert "together they could read every device's vector" in words
    assert "may drop out" not in words


def test_the_noise_of_a_release_is_that_of_both_aggregators_whatever_the_number_of_devices() -> None:
    plan = parse(plan_text("sum: two_aggregators, kappa: 0.5").encode(), "plan.yaml", policy=None)
    layout = compile_plan(plan)
    expected = [1.5 * float(block.variance) for block in layout.blocks]
    for devices in (100, 1_000_000):
        assert noise_variance(plan, layout, devices).tolist() == pytest.approx(expected)
    assert layout.modulus_bits == 64
    with pytest.raises(ValueError, match="not added by the devices"):
        shares_of(layout, 1000, plan.privacy.dropout, plan.privacy.corrupt)


PLANS = sorted(
    path
    for path in (Path(__file__).parents[2] / "eval_plans").glob("*.yaml")
    if "kind: TrainPlan" not in path.read_text()
)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_shipped_plan_has_room_for_a_million_devices(path: Path) -> None:
    """And for the hundred million that a plan may have: those that could not hold them do not compile."""
    text = path.read_text().replace("\nprivacy:\n", "\nprivacy:\n  sum: two_aggregators\n")
    layout = compile_plan(parse(text.encode(), path.name, policy=None))
    assert layout.kappa == Fraction(1, 4)
    require_headroom(layout, 1_000_000)
    require_headroom(layout, MAX_REPORTS)


def test_a_sum_may_reach_the_half_of_the_field_and_not_that_of_64_bits() -> None:
    """The noise is that of both: 40 standard deviations of 2^20 for the helper, of 2^19 for the leader."""
    assert FIELD_HALF == FIELD64.modulus // 2 < 2**63 - 1
    whole = compile_plan(parse(TEXT.encode(), "plan.yaml", policy=None))
    tail = NOISE_TAIL * (2**20 + 2**19 + 2)
    slack = 2**10  # what a float of that size cannot distinguish

    def of(linf: int) -> None:
        block = replace(whole.blocks[0], linf=linf, variance=Fraction(2**40))
        require_headroom(replace(whole, blocks=(block,)), 2)

    of((FIELD_HALF - tail) // 2 - slack)
    for linf in ((FIELD_HALF - tail) // 2 + slack, (2**63 - tail) // 2 - slack):
        with pytest.raises(Refused, match="does not fit the field of two aggregators"):
            of(linf)


def test_each_aggregator_draws_its_own_noise_of_its_own_size() -> None:
    layout = compile_plan(parse(TEXT.encode(), "plan.yaml", policy=None))
    block = layout.blocks[0]
    leader, helper = (
        sum(float((noise_of(layout, role)[block.slice].astype(float) ** 2).sum()) for _ in range(150))
        for role in ("leader", "helper")
    )
    cells = 150 * block.cells
    # A mean of squares of 150 * 6 draws is within 27% of the variance but for 1e-8 of all runs.
    assert helper / cells / float(block.variance) == pytest.approx(1, abs=0.27)
    assert leader / cells / float(block.variance) == pytest.approx(0.25, abs=0.0675)
    assert variance_in_release(layout)[0] == pytest.approx(1.25 * float(block.variance))


def test_the_layouts_hash_changes_with_the_noise() -> None:
    one, other = (
        compile_plan(parse(plan_text(f"sum: two_aggregators, kappa: {kappa}").encode(), "p", policy=None))
        for kappa in ("0.25", "0.5")
    )
    assert layout_hash(one) == layout_hash(one) != layout_hash(other)


def test_a_release_says_what_readers_leader_helper_and_both_could_learn() -> None:
    words = " ".join(guarantee(released(compile_plan(parse(TEXT.encode(), "plan.yaml", policy=None)))))
    assert "A reader of the release faces rho 0.0138" in words  # rho 0.0172 / 1.25
    assert "the leader, who knows its own noise, faces rho 0.0172" in words
    assert "the helper rho 0.0688" in words  # rho / 0.25
    assert "together could read every report" in words

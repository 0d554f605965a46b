"""The server's step: what is read off a release, how groups lean on each other, what is fitted and held."""

from dataclasses import replace

import numpy as np
import pytest

from clients.evaluate import fleet_sum
from clients.models.adapters import Adapters
from clients.personal.adapter import Step
from clients.personal.learn import logit
from fa_core.errors import BadInput, Refused
from fa_core.layout import compile_plan
from fa_core.metrics.features import BINS
from fa_core.plan import TrainPlan, canonical
from fa_core.tables import VECTOR
from fa_core.training import checks, preview
from fa_core.training.candidate import artefact, candidate
from fa_core.training.clip import proposal
from fa_core.training.public import PublicSpeech
from fa_core.training.step import Blocks, blocks_of, refit, shrunk, step_of
from fa_core.values import Participation, Release
from tests.training.toy import NOW, Floats, base_head, fleet, norms_plan, plan_of, speech, towards, vectors


def release_of(plan: TrainPlan, groups: list[str], moments: list[Floats], noise: float = 0.0) -> Release:
    """Return a release without noise that states one of variance `noise`."""
    layout = compile_plan(plan)
    return Release(
        id="ab" * 16,
        plan=canonical(plan),
        layout=layout,
        population="toys",
        engine="tables",
        simulated=True,
        created=NOW,
        window_start=NOW - plan.window,
        window_end=NOW,
        participation=Participation(len(groups), len(groups), 0, len(groups)),
        sums=fleet_sum(plan, layout, fleet(groups, moments, plan), NOW),
        scales=np.ones(1, np.int64),
        noise_variance=np.array([noise]),
        secure_aggregation=True,
    )


def devices(here: int, there: int) -> tuple[list[str], list[Floats]]:
    random, groups = np.random.default_rng(1), ["here"] * here + ["there"] * there
    return groups, [vectors(group, 2, random) for group in groups]


@pytest.fixture(scope="module")
def public() -> PublicSpeech:
    return speech()


@pytest.fixture(scope="module")
def release() -> Release:
    return release_of(plan_of(), *devices(300, 150))


def test_means_and_counts_are_read_off_a_release(release: Release) -> None:
    blocks = blocks_of(release)
    assert blocks.labels == ("here", "there", "other")
    assert blocks.devices.tolist() == [300, 150, 0]
    for at, group in enumerate(blocks.labels[:2]):
        # Steps are cut to whole ones: a mean is short by less than 1/4096 of the clip in each cell.
        assert np.abs(blocks.means[at] - towards(group)).max() < 0.05 / (2 * 150) ** 0.5 * 5 + 1 / 4096
    assert blocks.enough.tolist() == [True, True, False]


def test_a_small_group_gets_everyones_step_and_noise_draws_a_group_towards_it(release: Release) -> None:
    blocks = blocks_of(release)
    steps, weights = shrunk(blocks)
    everyone, _ = blocks.everyone
    assert np.allclose(steps[2], everyone)
    assert weights[2] == 0.0
    assert (weights[:2] > 0.99).all()
    noisy = replace(blocks, sd=np.full(3, 0.2))
    assert (shrunk(noisy)[1][:2] < weights[:2]).all()
    drowned = replace(blocks, sd=np.full(3, 10.0))
    assert not shrunk(drowned)[1].any()


def missed(adapters: Adapters, public: PublicSpeech, group: str, under: str) -> float:
    return 1 - checks.woken(*step_of(adapters, under), public.of("wake", group))


def test_each_group_is_heard_by_its_own_adapter(release: Release, public: PublicSpeech) -> None:
    plan, base = plan_of(), base_head()
    steps, _ = shrunk(blocks_of(release))
    adapters = refit(steps, plan, base, "toy", public)
    before = 1 - checks.woken(*unadapted(), public.of("wake", "there"))
    assert before > 0.8
    assert missed(adapters, public, "there", under="there") < 0.1
    assert not checks.speech(adapters, base, public, plan.gates)


def unadapted() -> tuple[Step, float]:
    return Step(np.zeros(VECTOR - 1), 0.0), logit(base_head().threshold)


def test_a_candidate_has_its_provenance_in_its_manifest(release: Release, public: PublicSpeech) -> None:
    found = candidate(release, base_head(), "toy-1", public, None)
    assert not found.alarms
    manifest, data = artefact(found, release, "MIT")
    assert manifest.wrong is None
    assert (manifest.kind, manifest.base, manifest.size) == ("adapter", "0" * 64, len(data))
    for said in ("toy@1", plan_of().hash[:16], release.id, "epsilon 4", "2 of 3 groups", "SIMULATION"):
        assert said in manifest.trained_by


def test_nothing_is_trained_on_hardly_any_device(public: PublicSpeech) -> None:
    with pytest.raises(Refused, match="about 99 devices have moments of base-1"):
        candidate(release_of(plan_of(), *devices(60, 39)), base_head(), "toy-1", public, None)


def test_a_release_of_anything_else_trains_nothing() -> None:
    other = release_of(norms_plan(), *devices(3, 3))
    with pytest.raises(BadInput, match="sums no steps"):
        blocks_of(other)


# Poisoning.


def alarms(blocks: Blocks, before: Blocks | None = None) -> set[tuple[str, str]]:
    return {(each.check, each.group) for each in checks.sums(blocks, plan_of().gates, before)}


def test_an_honest_release_raises_no_alarm(release: Release) -> None:
    again = blocks_of(release_of(plan_of(), *devices(320, 140)))
    assert not alarms(blocks_of(release), again)


def test_devices_that_claim_a_group_and_pull_it_away_are_seen(release: Release) -> None:
    groups, moments = devices(300, 150)
    away = [*moments, *[-towards("there")[None, :]] * 200]
    attacked = blocks_of(release_of(plan_of(), [*groups, *["there"] * 200], away))
    assert alarms(attacked, blocks_of(release)) >= {("shift", "there")}
    assert not alarms(attacked)  # without the release before there is nothing to compare with


def test_a_group_that_is_suddenly_large_is_seen(release: Release) -> None:
    many = blocks_of(release_of(plan_of(), *devices(150, 500)))
    assert alarms(many, blocks_of(release)) == {("count", "here"), ("count", "there")}


def test_a_device_past_its_bound_is_seen(release: Release) -> None:
    sums = release.sums.copy()
    sums[1] += 4096 * 1000
    assert ("bound", "here") in alarms(blocks_of(replace(release, sums=sums)))


def test_noise_alone_raises_no_alarm(release: Release) -> None:
    random, plan = np.random.default_rng(0), plan_of()
    groups, moments = devices(300, 150)
    exact = release_of(plan, groups, moments, noise=6000.0**2)
    before, now = (
        replace(
            exact, sums=exact.sums + np.rint(6000 * random.standard_normal(len(exact.sums))).astype(np.int64)
        )
        for _ in range(2)
    )
    assert not alarms(blocks_of(now), blocks_of(before))


def test_a_candidate_that_wakes_for_a_listed_phrase_is_held(release: Release, public: PublicSpeech) -> None:
    plan, base = plan_of(), base_head()
    adapters = refit(shrunk(blocks_of(release))[0], plan, base, "toy", public)
    at = adapters.groups.index("there")
    levels = adapters.thresholds.copy()
    levels[at] = 1e-9  # wakes for everything
    found = checks.speech(replace(adapters, thresholds=levels), base, public, plan.gates)
    assert {(each.check, each.group) for each in found} == {("near", "there"), ("phrase", "there")}


# The clip and the preview.


def test_the_clip_is_the_quantile_of_the_norms() -> None:
    random = np.random.default_rng(3)
    lengths = np.exp(0.4 * random.standard_normal(2000))
    moments = [np.eye(1, VECTOR) * length for length in lengths]
    found = release_of(norms_plan(), ["here"] * 2000, moments, noise=4.0)
    for quantile in (0.5, 0.8, 0.95):
        said = proposal(found, quantile)
        assert abs((lengths <= said.clip).mean() - quantile) < 0.02
    with pytest.raises(BadInput, match="not between 0 and 1"):
        proposal(found, 1.0)
    with pytest.raises(Refused, match="too few"):
        proposal(replace(found, noise_variance=np.array([200.0**2])), 0.9)
    assert len(found.sums) == BINS


def test_small_groups_are_refused_at_a_small_epsilon() -> None:
    plan = plan_of(epsilon="2")
    with pytest.raises(Refused, match="about 75 devices in here"):
        preview.require_blocks(plan, preview.sizes_of(plan, 150, {}))
    assert preview.require_blocks(plan, preview.sizes_of(plan, 200, {})) == ()
    wide, sizes = plan_of(epsilon="4"), {"here": 150.0, "there": 99.0}
    assert preview.require_blocks(wide, sizes) == ("there",)
    with pytest.raises(Refused, match="about 99 devices in there, the largest group"):
        preview.require_blocks(wide, {"here": 98.0, "there": 99.0})


def test_shares_that_are_given_leave_the_rest_to_the_other_groups() -> None:
    assert preview.sizes_of(plan_of(), 1000, {"here": 0.25}) == {"here": 250.0, "there": 750.0}


def test_more_devices_and_a_larger_epsilon_are_expected_to_do_better(public: PublicSpeech) -> None:
    plan, base = plan_of(), base_head()

    def there(devices: int) -> preview.Expected:
        sizes = preview.sizes_of(plan, devices, {"here": 0.5, "there": 0.5})
        return preview.preview(plan, sizes, public, base, np.random.default_rng(0))[1]

    few, many = there(250), there(20_000)
    assert many.noise < few.noise / 20
    assert many.weight > few.weight
    assert many.rejects_before is not None
    assert many.rejects is not None
    assert many.rejects_before > 0.8
    assert many.rejects < 0.1

"""The incident as one drill: false wakes rise with a programme, and fall with another threshold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clients.fleet import habits
from clients.fleet.make import make_fleet
from clients.fleet.tables import read_fleet
from clients.testset.recipe import Recipe
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Judgement
from fa_core.store import open_store
from fa_core.values import Release
from scripts.bench import incident_drill as drill
from scripts.bench.rollout_weeks import SEED, START, WEEK
from tests.fleet.small import small_bank

DEVICES, WEEKS = 1_000, 6
"""As few as the gate's plan has groups for; the last week is that of the stage for all devices."""


class Expands:
    """Stands in for the gate, which a thousand devices can show nothing."""

    def looks(self, document: Rollout, releases: Sequence[Release | None]) -> Judgement:
        return Judgement("expand", {"number": len(releases)}, "a stand-in")

    def stage(self, document: Rollout, stage: int, release: Release, before: Release | None) -> Judgement:
        return Judgement("expand", {"number": stage}, "a stand-in")


def few_clips() -> Recipe:
    """The show's recipe with a minute of the show and one voice, of which nothing can be shown."""
    recipe = drill.show_recipe()
    one = {
        "accents": ("en-US",),
        "speakers": 1,
        "rooms": ("phone",),
        "noise": ("coloured",),
        "snr_db": (17.0,),
    }
    margins = recipe.margins.model_copy(update={"misses_below": 1.0, "false_wakes_below": 1_000.0})
    show = recipe.programmes[0].model_copy(update={"minutes": 1})
    return recipe.model_copy(update={**one, "programmes": (show,), "margins": margins})


def show_wakes(day: Path, version: str) -> int:
    """Return how often a model woke devices by themselves in the hours of the show, without any noise."""
    events = read_fleet(day).tables["wake_events"]
    hours = pc.is_in(pc.hour(events["time"]), pa.array(habits.TELEVISION_HOURS, pa.int64()))
    own = pc.and_(pc.equal(events["model_version"], version), pc.equal(events["outcome"], "false_accept"))
    return int(pc.sum(pc.and_(hours, own)).as_py())


def test_a_programmes_false_wakes_rise_and_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole drill; so few devices show no rise through the noise, so the rows themselves are counted.

    The threshold is one that the small bank's three lines of the show stay under.
    """
    monkeypatch.setattr(drill, "CANDIDATE", replace(drill.CANDIDATE, threshold=0.9))
    until = START + WEEKS * WEEK
    make_fleet(
        small_bank(), DEVICES, tmp_path / "fleet", seed=SEED, until=until, progress=lambda done, of: None,
        weeks=WEEKS, television_weeks=WEEKS - 1,
    )  # fmt: skip
    fleet = read_fleet(tmp_path / "fleet")
    found = drill.play(fleet, few_clips(), tmp_path / "store", tmp_path, Expands())
    assert found.result.failures() == []
    status, lines = found.ended
    assert status == "complete"
    assert [each.split()[1] for each in lines] == ["start", "look", "stage", "stage", "complete"]
    assert found.fall is not None
    assert set(found.rise) == set(found.fall) == {"night", "day", drill.SHOW_HOURS, "late"}
    days = (("day-1", drill.FIELD), ("day-2", drill.FIELD), ("day-after", drill.CANDIDATE))
    before, during, after = (show_wakes(tmp_path / day, model.version) for day, model in days)
    assert during > 10 * (before + after + 1)
    with open_store(str(tmp_path / "store"), create=False) as store:
        assert store.verify_log() == store.verify_ledger() == []


@pytest.mark.long
def test_the_gate_lets_the_fix_through(capsys: pytest.CaptureFixture[str]) -> None:
    """20,000 devices and the real gate; the rise and the fall are significant."""
    assert drill.main([]) == 0, capsys.readouterr().out

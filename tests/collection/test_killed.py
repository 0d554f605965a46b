"""The engine `local`, killed while it collects: its charged release is ended at the next start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients.uploads import UploadingFleet
from fa_core.cli import build
from fa_core.engines.killed import killed, noted
from fa_core.rounds import run as running
from fa_core.store import open_store
from tests.collection.setup import plan_text
from tests.collection.world import Collection
from tests.rounds.small import write_fleet

DEVICES = 52


class Killed(BaseException):
    """The process is gone: it writes nothing more."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("killed")
    text = plan_text("sum: two_aggregators, min_cohort: 50").replace("[[], [accent]]", "[[]]")
    segments = text[text.index("segments:") : text.index("group_by:")]
    (made / "plan.yaml").write_text(text.replace(segments, ""))
    write_fleet(made / "fleet", DEVICES)
    return made


def invoke(folder: Path, store: Path) -> Result:
    places = [str(folder / "plan.yaml"), "--fleet", str(folder / "fleet"), "--store", str(store)]
    return CliRunner().invoke(build(), ["run", *places])


def kill_at(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    """Run the plan, and kill the process when so many devices have reported."""
    report, left = UploadingFleet.report, [devices]

    def until(*arguments: Any) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return report(*arguments)

    def gone(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(UploadingFleet, "report", until)
        patched.setattr(running, "write_failure", gone)
        with pytest.raises(Killed):
            invoke(folder, store)


def ends(store: Path) -> tuple[int, list[str], int]:
    """How many releases, why others failed, and how many charges there are."""
    with open_store(store) as opened:
        assert opened.verify_log() == opened.verify_ledger() == []
        reasons = [each.reason for each in opened.failures()]
        return opened.count(), reasons, len(opened.charges("small"))


def test_what_a_killed_process_left_is_ended_at_the_next_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With enough reports it is released, with too few it has failed; and the run itself goes on."""
    kill_at(folder, tmp_path, monkeypatch, 51)
    assert ends(tmp_path) == (0, [], 1)
    kill_at(folder, tmp_path, monkeypatch, 7)
    assert ends(tmp_path) == (1, [], 2)
    done = invoke(folder, tmp_path)
    assert done.exit_code == 0, done.output
    assert ends(tmp_path) == (2, ["7 devices were counted; fewer than 50 are not summed"], 3)
    assert "whose process was killed, has failed, and its charge stands: 7 devices" in done.stderr
    assert "reports are counted: 0 of 52 that arrived; no more are taken" in done.stderr
    with open_store(tmp_path) as store:
        assert sorted(each.counted for each in store.releases()) == [51, 52]
    assert not list((tmp_path / "local" / "collections").iterdir())


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Collection]:
    found = Collection.make(tmp_path, 6)
    yield found
    found.close()
    found.world.store.close()


def test_a_process_that_lives_keeps_its_release(made: Collection, tmp_path: Path) -> None:
    place, store, job = tmp_path / "collections", made.world.store, made.job()
    made.charge()
    with noted(place, job, store):
        assert list(killed(place, store)) == []
    (found,) = killed(place, store)
    assert (found, found.plan.hash) == (job, job.plan.hash)


def test_what_was_not_charged_or_not_written_is_forgotten(made: Collection, tmp_path: Path) -> None:
    place, store = tmp_path / "collections", made.world.store
    with noted(place, made.job(), store):
        pass
    assert list(place.iterdir()) == []
    for name, text in ((made.release.hex(), ""), ("no release", "{}"), ("00" * 16, '{"plan": 3}')):
        (place / f"{name}.json").write_text(text)
    assert list(killed(place, store)) == []
    assert list(place.iterdir()) == []

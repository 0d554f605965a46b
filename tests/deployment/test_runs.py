"""How a run on a federation ended is asked of the store; one that died after its charge is written off."""

import json
import threading
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from clients.app import relay
from fa_core.cli import build
from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.federation import runs, setup
from fa_core.federation.certificates import make_tls
from fa_core.federation.directory import Federation, Settings
from fa_core.federation.runs import Run
from fa_core.flower import superlink
from fa_core.flower.superlink import RunState, SuperLink, Unanswered
from fa_core.flower.transport import LocalGrid
from fa_core.plan import canonical
from fa_core.rounds.keys import give_budgets
from fa_core.rounds.progress_events import Ended
from fa_core.store import Store, open_store
from fa_core.store.catalogue import Entry
from tests.deployment.https import serving
from tests.rounds.small import NOW, World, small_plan, write_plan

DEVICES = 10


@dataclass
class Link:
    """A SuperLink that returns this state for every run."""

    state: RunState | None

    def run(self, number: int) -> RunState | None:
        return self.state


OVER, RUNNING = Link(RunState("finished", "failed")), Link(RunState("running", ""))


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return setup.init(tmp_path / "lab", Settings(name="lab"))


@pytest.fixture
def world(federation: Federation, tmp_path: Path) -> World:
    made = World.make(tmp_path, DEVICES)
    made.store.close()
    store = open_store(federation.store)
    give_budgets(store, made.authority, "small", "zcdp", NOW)
    return replace(made, store=store)


def note(federation: Federation, release: str) -> Run:
    """Write down a launched run, as `launch` does."""
    run = Run(release, 7, "small@1", "small", NOW.isoformat())
    folder = federation.folder / "runs" / release
    folder.mkdir()
    (folder / "plan.json").write_bytes(canonical(small_plan()))
    (folder / "run.json").write_text(json.dumps(asdict(run)))
    return run


def killed(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a round that is charged and then neither released nor failed; return its release's id."""
    with monkeypatch.context() as patched:
        patched.setattr(Store, "fail", lambda *arguments: None)
        with pytest.raises(RoundFailed):
            world.run_over(LocalGrid(relay(lambda node: {}), DEVICES), small_plan())
    (charge,) = world.store.charges("small")
    return charge.release


def test_a_run_that_died_after_its_charge_is_written_off_once(
    federation: Federation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = note(federation, killed(world, monkeypatch))
    assert runs.settle(federation, RUNNING) == []  # type: ignore[arg-type]
    assert world.store.failures() == ()
    assert runs.settle(federation, OVER) == [run]  # type: ignore[arg-type]
    assert runs.settle(federation, OVER) == []  # type: ignore[arg-type]
    (failure,) = world.store.failures()
    assert failure.release == run.release
    with pytest.raises(RoundFailed, match="died or was stopped during the round"):
        runs.outcome(federation, run, None)
    assert world.store.verify_log() == world.store.verify_ledger() == []


def test_following_a_run_that_died_writes_it_off_as_well(
    federation: Federation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = note(federation, killed(world, monkeypatch))
    with pytest.raises(RoundFailed, match="died or was stopped during the round"):
        runs.outcome(federation, run, None)
    assert len(world.store.failures()) == 1


def test_a_release_is_found_by_its_id(federation: Federation, world: World) -> None:
    release, _ = world.run(small_plan())
    found = runs.outcome(federation, note(federation, release.id), None)
    assert found.release.id == release.id


def test_an_unavailable_store_is_not_one_without_the_release(
    federation: Federation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it were, a run that was released would be written off."""
    monkeypatch.setattr(runs, "LOOK_EVERY", 0.0)
    release, _ = world.run(small_plan())
    run, find, left = note(federation, release.id), Store.find, [3]

    def restarting(store: Store, text: str) -> Entry:
        left[0] -= 1
        if left[0] >= 0:
            raise Unavailable("the store cannot be used: the connection is lost")
        return find(store, text)

    monkeypatch.setattr(Store, "find", restarting)
    assert runs.outcome(federation, run, None).release.id == release.id
    assert left == [-1]
    left[0] = 1
    with pytest.raises(Unavailable):
        runs.settle(federation, OVER)  # type: ignore[arg-type]
    left[0] = 10**6
    monkeypatch.setattr(runs, "STORE_SECONDS", 0.0)
    with pytest.raises(Unavailable):
        runs.outcome(federation, run, None)
    assert world.store.failures() == ()


@pytest.mark.parametrize("kind", [BadInput, Refused])
def test_a_run_that_was_never_charged_ends_as_the_serverapp_reported(
    federation: Federation, world: World, kind: type[BadInput | Refused]
) -> None:
    run = note(federation, "ab" * 16)
    with pytest.raises(kind, match="not today"):
        runs.outcome(federation, run, Ended(kind.exit_code, "not today"))
    with pytest.raises(RoundFailed, match="without a report"):
        runs.outcome(federation, run, None)
    assert world.store.failures() == ()


def test_the_store_takes_precedence_over_the_serverapps_report(
    federation: Federation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = note(federation, killed(world, monkeypatch))
    with pytest.raises(RoundFailed):
        runs.outcome(federation, run, Ended(0, "released"))


@dataclass
class Restarting:
    """A SuperLink that is unavailable `left` times, and then has a run that has ended."""

    left: int

    def __enter__(self) -> "Restarting":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def log(self, run: int, after: float) -> list[tuple[float, str]]:
        self.left -= 1
        if self.left >= 0:
            raise Unanswered("no SuperLink answers")
        return [(1.0, 'unheard: {"ended": 0, "text": "released"}\n')]

    def run(self, number: int) -> RunState:
        return RunState("finished", "completed")


def test_a_superlink_may_be_unavailable_for_a_while_and_not_for_ever(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time counts from the first failure: a run may have been silent for longer before."""
    run, link, time = note(federation, "ab" * 16), Restarting(3), [0.0]
    monkeypatch.setattr(runs, "connect", lambda federation: link)

    def later(seconds: float) -> None:
        time[0] += runs.RETRY_SECONDS / 4

    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: time[0], sleep=later))
    time[0] = 10 * runs.RETRY_SECONDS
    assert runs.follow(federation, run, print) == Ended(0, "released")
    link.left = 7
    with pytest.raises(Unanswered):
        runs.follow(federation, run, print)


@pytest.mark.parametrize(
    ("step", "error"), [("follow", Unanswered("no SuperLink answers")), ("outcome", Unavailable("no store"))]
)
def test_an_error_while_following_a_run_says_how_to_attach_again(
    federation: Federation, step: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: object) -> None:
        raise error

    run = note(federation, "ab" * 16)
    monkeypatch.setattr(runs, "follow", lambda *arguments: None)
    monkeypatch.setattr(runs, step, lost)
    app, where = build(), str(federation.folder)
    done = CliRunner().invoke(app, ["run", "--attach", "latest", "--engine", where])
    assert isinstance(done.exception, type(error))
    assert str(done.exception).startswith(f"{error}; ")
    assert str(done.exception).endswith(f"fa run --attach {run.release} --engine {where}")


def test_a_long_silence_is_not_taken_for_an_unavailable_superlink(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage may say nothing for hours, and a line may come in two pieces, one before and one after it."""
    pieces = ['unheard: {"ended": 0, ', *[""] * 20, '"text": "released"}\n']

    class Quiet(Restarting):
        def log(self, run: int, after: float) -> list[tuple[float, str]]:
            said = pieces.pop(0)
            return [(after + 1.0, said)] if said else []

        def run(self, number: int) -> RunState:
            return RunState("running" if pieces else "finished", "")

    run, time = note(federation, "ab" * 16), [0.0]

    def later(seconds: float) -> None:
        time[0] += runs.RETRY_SECONDS

    monkeypatch.setattr(runs, "connect", lambda federation: Quiet(0))
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: time[0], sleep=later))
    assert runs.follow(federation, run, print) == Ended(0, "released")


def test_the_log_of_a_vanished_superlink_is_not_followed_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host or the network is gone: nothing arrives, and the connection is not closed."""
    monkeypatch.setattr(superlink, "QUIET_SECONDS", 1.0)
    make_tls(tmp_path, "tests", "127.0.0.1")
    left, gone = threading.Event(), threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            if not left.wait(60):
                gone.set()

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    with serving(tmp_path, Silent) as address:
        with SuperLink(address, (tmp_path / "ca.crt").read_bytes()) as link:
            assert list(link.log(7, 0.0)) == []
        left.set()
    assert not gone.is_set()


@pytest.mark.parametrize(("status", "fails"), [(500, True), (503, True), (403, False)])
def test_an_error_of_the_superlink_is_distinguished_from_a_refusal(status: int, fails: bool) -> None:
    """An error may be retried, and following a run does so."""
    link = object.__new__(SuperLink)
    link._address = "127.0.0.1:1"
    request = httpx.Request("POST", "https://127.0.0.1:1/v1/control")
    response = httpx.Response(status, request=request)
    with pytest.raises(BadInput, match=f"HTTP {status}") as caught, link._errors_as_sentences():
        raise httpx.HTTPStatusError("no", request=request, response=response)
    assert isinstance(caught.value, Unanswered) is fails


def test_a_launch_whose_answer_is_lost_does_not_say_that_nothing_was_started(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Losing(Restarting):
        def start(self, bundle: object, config: object) -> int:
            raise Unanswered("no SuperLink answers")

    config = federation.settings.model_copy(update={"population": "small", "devices": 60})
    monkeypatch.setattr(runs, "connect", lambda federation: Losing(0))
    file = write_plan(tmp_path, cohort=50)
    with pytest.raises(Unanswered, match=r"started is not known: if it was, `fa results show [0-9a-f]{32}`"):
        runs.launch(replace(federation, settings=config), file)


def test_a_run_is_found_by_its_first_digits(federation: Federation) -> None:
    run = note(federation, "ab" * 16)
    note(federation, "ac" * 16)
    assert runs.find(federation, "abab") == run
    assert runs.find(federation, "latest").release in ("ab" * 16, "ac" * 16)
    for text in ("a", "ffff"):
        with pytest.raises(BadInput, match="no run begins"):
            runs.find(federation, text)

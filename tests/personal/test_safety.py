"""Kill -9 between a fit and an adapter that acts; nothing of it in clear anywhere; the owner's commands."""

import base64
import json
import logging
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients.device import database
from clients.device.journal import sentence
from clients.device.owner import DeviceHome, entry_object, export
from clients.device.personal import KeptMoment, PersonalRecords
from clients.device.proof import problems
from clients.device.store import Store
from clients.personal import stages, watch
from clients.personal.adapter import windows_of
from clients.personal.collect import session_of
from clients.personal.learn import Candidate
from clients.personal.moments import encode
from clients.personal.status import Share, share
from clients.personal.watch import Heard
from fa_core.cli import device as command
from fa_core.cli import personalise
from fa_core.wire.invitation import encode as encode_invitation
from tests.device.setup import NOW, World, drive, make_setup, plan_of
from tests.personal.devices import BASE, HEAD, PHRASES, WORD, Owned


def go_on(home: DeviceHome, owned: Owned) -> None:
    """Do what is left between the moments and an adapter that acts."""
    owned.home = home
    store, now = home.store, owned.now
    if owned.stage() is None:
        found = owned.learner().learn(WORD, lambda: now, fetch=False, goes_on=lambda _: True)
        assert isinstance(found, Candidate)
    adapter = stages.load(store, WORD, now)
    assert adapter is not None
    adapter = stages.move_on(store, adapter, now)
    assert adapter is not None
    if adapter.used.stage == "shadow":
        with store.transaction(now):
            stages.hear(store, WORD, adapter.used.number, Heard(True, False, True), now)


class Counted:
    """A connection that kills this process at its `target`-th statement, or counts them."""

    def __init__(self, connection: Any, target: int) -> None:
        self._connection, self._target, self.count = connection, target, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *given: Any) -> Any:
        self.count += 1
        if self.count == self._target:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._connection.execute(*given)


@pytest.fixture
def ready(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> Owned:
    """A device that may learn at once, and tries out for one moment."""
    monkeypatch.setattr(watch, "SHADOW_MOMENTS", 1)
    owned.consent()
    owned.fetch_anchors()
    owned.remember()
    owned.home.store.close()
    return owned


def killed_at(ready: Owned, target: int) -> Path:
    """Let a child go on over a copy of the device until it dies at a statement; return the copy."""
    folder = ready.folder.with_name(f"{ready.folder.name}-{target}")
    shutil.copytree(ready.folder, folder)
    child = os.fork()
    if child == 0:
        try:
            home = DeviceHome.open(folder, ready.now)
            home.store.connection = Counted(home.store.connection, target)
            go_on(home, ready)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    return folder


def statements(ready: Owned) -> int:
    folder = ready.folder.with_name(f"{ready.folder.name}-all")
    shutil.copytree(ready.folder, folder)
    home = DeviceHome.open(folder, ready.now)
    counted = Counted(home.store.connection, -1)
    home.store.connection = counted
    go_on(home, ready)
    home.store.close()
    return counted.count


def walk(ready: Owned, step: int) -> int:
    """Kill at every `step`-th statement; each store must hold, and go on to an adapter that acts."""
    found = set()
    targets = range(1, statements(ready) + 1, step)
    for target in targets:
        home = DeviceHome.open(killed_at(ready, target), ready.now)
        assert problems(home.store, None) == [], target
        used = PersonalRecords(home.store).in_use(WORD)
        found.add(used.stage if used is not None else None)
        go_on(home, ready)
        assert ready.stage() == (1, "active"), target
        steps = ready.journal()
        assert steps == ["learn", "validate", "shadow", "activate"], target
        assert problems(home.store, None) == [], target
        home.store.close()
    assert {None, "candidate", "shadow"} <= found
    return len(targets)


def test_killed_at_statements_between_a_fit_and_activation(ready: Owned) -> None:
    assert walk(ready, step=7) > 5


@pytest.mark.long
def test_killed_at_every_statement_between_a_fit_and_activation(ready: Owned) -> None:
    assert walk(ready, step=1) > 30


def test_a_device_without_transactions_is_caught(ready: Owned, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none(connection: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(database, "transaction", none)
    with pytest.raises(AssertionError):
        walk(ready, step=3)


# Nothing of it in clear.


def sightings(data: bytes, secrets: list[bytes]) -> int:
    """Return how many runs of eight bytes of the secrets are in the data, as bytes, in hex or in base64."""
    found = 0
    for secret in secrets:
        for at in range(0, len(secret) - 24, 24):
            run = secret[at : at + 24]
            found += any(form in data for form in (run[:8], run[:12].hex().encode(), base64.b64encode(run)))
    return found


def secrets_of(owned: Owned) -> list[bytes]:
    """Return what must not come out: the moments' features, and the delta's bytes behind its description."""
    deltas = [each.data[-98 * 8 :] for each in owned.records.deltas()]
    return [each.windows for each in owned.records.moments()] + deltas


def test_no_feature_or_adapter_is_in_clear_on_disk_in_logs_or_in_what_is_said(
    at_hand: Owned, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    owned = reopened(at_hand)
    owned.learned()
    owned.hear_missed(1)
    secrets = secrets_of(owned)
    assert len(secrets) > 7
    said = [f"{entry_object(each)} {sentence(each)}" for each in owned.home.store.entries()]
    printed = [fa(owned, *words).output for words in (("status",), ("status", "--json"))]
    everything = {str(path): path.read_bytes() for path in owned.folder.rglob("*") if path.is_file()}
    everything["said"] = "\n".join([*said, *printed, caplog.text, repr(owned.used())]).encode()
    assert {name: found for name, data in everything.items() if (found := sightings(data, secrets))} == {}

    # What comes out would be seen: an owner's own export has all of it, in clear.
    written = export(owned.home, owned.folder / "out", [])
    assert sum(sightings(path.read_bytes(), secrets) for path in written) > 50


def test_a_store_that_is_not_encrypted_is_caught(owned: Owned) -> None:
    owned.learned()
    path = owned.folder / "plain.db"
    plain = Store(sqlite3.connect(path, isolation_level=None), owned.home.store.rules)
    for statement in database.schema():
        plain.connection.execute(statement)
    plain.append(NOW, "created", {})
    secrets = secrets_of(owned)
    remember(plain, secrets[0])
    plain.close()
    assert sightings(path.read_bytes(), secrets) > 5
    assert sightings((owned.folder / "store.db").read_bytes(), secrets) == 0


def test_no_message_of_a_round_has_any_of_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    setup = make_setup(tmp_path, world)
    store = setup.store()
    windows = encode(windows_of(HEAD, PHRASES["missed"]))
    store.grant("personalisation", NOW.replace(year=NOW.year + 1), NOW)
    remember(store, windows)
    store.close()
    plan = plan_of(secure="false")  # nothing is masked, so that whatever is in a message is there in clear
    invitation = world.invite(plan, world.release(), NOW, NOW)
    _, said = drive(world, plan, setup.device(), invitation, others=2)
    messages = b"".join(part for pair in said.values() for part in pair)
    assert messages.startswith(encode_invitation(invitation))
    assert sightings(messages, [windows]) == 0
    assert sightings(messages + windows, [windows]) > 0


def remember(store: Store, windows: bytes) -> None:
    with store.transaction(NOW):
        kept = KeptMoment(NOW, WORD, BASE, session_of(NOW), "retry", windows)
        PersonalRecords(store).keep_moment(kept, NOW)


# The owner's commands.


def fa(owned: Owned, *words: str) -> Result:
    return CliRunner().invoke(command.app, ["personalise", *words, "--dir", str(owned.folder)])


def said(owned: Owned, *words: str) -> Any:
    result = fa(owned, *words, "--json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)


@pytest.fixture
def at_hand(owned: Owned, monkeypatch: pytest.MonkeyPatch) -> Owned:
    """A device whose owner types commands at its clock."""
    now: Callable[[], Any] = lambda: owned.now  # noqa: E731
    monkeypatch.setattr(command, "_now", now)
    monkeypatch.setattr(personalise, "_now", now)
    owned.home.store.close()
    return owned


def reopened(owned: Owned) -> Owned:
    owned.home = DeviceHome.open(owned.folder, owned.now)
    return owned


def test_the_owner_turns_it_on_sees_it_takes_it_back_and_forgets(at_hand: Owned) -> None:
    assert "off; nothing is kept" in fa(at_hand, "status").stdout
    assert said(at_hand, "on", "--days", "200")["until"].startswith("2026-09-18")
    assert "no moment was kept" in fa(at_hand, "status").stdout
    refused = fa(at_hand, "learn")
    assert (refused.exit_code, str(refused.exception)[:34]) == (1, "nothing is learned for okay_nabu: ")
    reopened(at_hand).remember()
    assert "no public anchor set" in fa(at_hand, "status").stdout
    at_hand.fetch_anchors()
    at_hand.home.store.close()
    (word,) = said(at_hand, "status")["wake_words"]
    assert (word["wanted"], word["counting"], word["anchors"]) == (6, 6, True)
    assert word["not_now"].startswith("it learns only while")

    assert said(at_hand, "learn")["gain"] == {"moments": 6, "base": 0, "adapted": 6}
    shown = fa(at_hand, "status").stdout
    assert "adapter 1 is learned, and waits" in shown
    assert "missed 6 (54% to 100%) as it came, 0 (0% to 46%) adapted" in shown
    assert "it learned last on" in shown
    assert said(at_hand, "revert") == {"wake_word": WORD, "reverted": True}
    assert said(at_hand, "revert") == {"wake_word": WORD, "reverted": False}
    assert "the model acts as it came" in fa(at_hand, "status").stdout

    entry = said(at_hand, "forget", "--yes")
    assert entry["body"]["rows"]["personal_moment"] == 6
    assert CliRunner().invoke(command.app, ["verify", "--dir", str(at_hand.folder)]).exit_code == 0
    assert "ended (you revoked it)" in fa(at_hand, "off").stdout
    assert "off; nothing is kept" in fa(at_hand, "status").stdout


def test_status_says_what_is_wrong_with_a_delta_and_changes_nothing(at_hand: Owned) -> None:
    reopened(at_hand).learned()
    at_hand.home.store.connection.execute("UPDATE personal_delta SET digest = x'00'")
    at_hand.home.store.close()
    assert "it will not be loaded: it was damaged" in fa(at_hand, "status").stdout
    verified = CliRunner().invoke(command.app, ["verify", "--dir", str(at_hand.folder)])
    assert "adapter 1 is damaged" in str(verified.exception)
    assert reopened(at_hand).stage() is not None


def test_a_share_has_exact_limits() -> None:
    """Of none of ten, and of all of them: P(none) and P(all) are powers."""
    none, every = share(0, 10), share(10, 10)
    assert (none.low, every.high, share(0, 0)) == (0.0, 1.0, Share(0, 0, 0.0, 1.0))
    assert none.high == pytest.approx(1 - 0.025**0.1)
    assert every.low == pytest.approx(0.025**0.1)


def test_a_store_of_before_gets_the_tables(owned: Owned) -> None:
    for name in ("personal_moment", "personal_delta", "personal_stage", "personal_attempt"):
        owned.home.store.connection.execute(f"DROP TABLE {name}")
    owned.restart()
    assert problems(owned.home.store, None) == []
    owned.learned()
    assert owned.stage() is not None

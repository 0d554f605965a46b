"""Kill -9 at lines of the vault and of the device: what was said holds, what left can be taken back."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from clients.device.proof import problems
from clients.device.store import Store
from clients.donation import offering
from clients.donation.offering import offer
from clients.donation.records import Donations
from fa_core.donation.exchange import VaultSilent
from fa_core.donation.refusal import Refusal
from fa_core.donation.sealing import sample_id, seal
from fa_core.vault import database, keeper
from fa_core.vault.keeper import Keeper
from fa_core.vault.wraps import Wraps
from tests.device.setup import KEY, RULES
from tests.donation.parties import NOW, ONE, OTHER, RECORDING, Log, World, refused

ROOM, DEVICE_ROOM = (str(Path(module.__file__).parent) for module in (keeper, offering))


class FileLog(Log):
    """A log in memory that also writes what was entered to a file, on disk before it returns."""

    file: Path

    def enter(self, sample: str, entry: bytes) -> int:
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, entry + b"\n\n")
        os.close(handle)
        return super().enter(sample, entry)


def killed(target: int, run: Callable[[], bytes], room: str = ROOM) -> tuple[bytes, int]:
    """Run in a child that is killed at the `target`-th different line of the room; 0 never kills.

    Returns what it said, and how many lines there were.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            seen: set[tuple[str, int]] = set()

            def trace(frame: FrameType, event: str, argument: Any) -> Any:
                if not frame.f_code.co_filename.startswith(room):
                    return None
                if event == "line":
                    seen.add((frame.f_code.co_filename, frame.f_lineno))
                    if len(seen) == target:
                        os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            said = run()
            sys.settrace(None)
            os.write(writing, len(seen).to_bytes(4, "big") + said[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return data[4:], int.from_bytes(data[:4], "big")


def at_every_step(
    world: World, run: Callable[[Keeper], bytes], check: Callable[[Keeper, Wraps, bytes], None], kills: int
) -> None:
    """Kill `run` at `kills` of its lines, over copies of the vault, and check what the next start finds."""
    world.keeper.close()

    def opened(folder: Path) -> tuple[Keeper, Wraps]:
        wraps = Wraps(folder / "wraps")
        connection = database.connect(folder / database.FILE)
        return Keeper(connection, wraps, world.key, {world.request.hash: world.request}, 9), wraps

    def attempt(number: int, target: int) -> int:
        folder = world.folder / f"copy-{number}"
        shutil.copytree(world.folder / "vault", folder)
        said, lines = killed(target, lambda: run(opened(folder)[0]))
        found, wraps = opened(folder)
        found.mend(NOW)
        kept = {bytes.fromhex(each.sample) for each in found.samples()}
        assert set(wraps.samples()) == kept
        check(found, wraps, said)
        found.close()
        return lines

    lines = attempt(0, 0)
    assert lines > kills
    for number in range(1, kills + 1):
        attempt(number, lines * number // kills)
    world.keeper = world.open()


def test_killed_while_it_keeps(world: World) -> None:
    good = seal(RECORDING, world.request, bytes(32))

    def check(found: Keeper, wraps: Wraps, said: bytes) -> None:
        if said:
            assert len(found.samples()) == 1, "it said that it keeps what it does not"
        found.keep(good.encode(), NOW)
        assert wraps.read(good.sample, "1") == good.wraps[1]

    at_every_step(world, lambda found: found.keep(good.encode(), NOW), check, 8)


def test_killed_while_it_destroys(world: World) -> None:
    token = bytes(32)
    world.keeper.keep(seal(RECORDING, world.request, token).encode(), NOW)
    data = world.request.hash + token

    def check(found: Keeper, wraps: Wraps, said: bytes) -> None:
        if said:
            assert found.samples() == [], "it said that it destroyed what it has"
        assert b"said" in found.withdraw(data, NOW)
        assert (found.samples(), list(wraps.samples())) == ([], [])
        with refused(Refusal.GONE):
            found.keep(seal(RECORDING, world.request, token).encode(), NOW)

    at_every_step(world, lambda found: found.withdraw(data, NOW), check, 8)


def test_a_vault_that_says_so_before_it_destroys_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "_destroy", lambda self, sample, request, why, now: now.date())
    with pytest.raises(AssertionError, match="destroyed what it has"):
        test_killed_while_it_destroys(world)
    world.keeper = world.open()


def test_killed_while_a_sample_is_handed_out(world: World, tmp_path: Path) -> None:
    """Whatever was said stands in the log."""
    donation = world.donate()
    world.log = FileLog(world.log.key, world.log.witness)
    world.log.file = tmp_path / "log"
    ada, grace = world.review(ONE), world.review(OTHER)
    read, _ = ada.ask(donation.sample)
    grace.release(read, grace.asked(read)[1])
    bodies: list[bytes] = []

    def caught(target: str, body: bytes) -> bytes:
        bodies.append(body)
        raise VaultSilent("not sent")

    with pytest.raises(VaultSilent):
        world.review(ONE, caught).read(read)
    entry = json.loads(bodies[0])["entry"].encode()

    def check(found: Keeper, wraps: Wraps, said: bytes) -> None:
        if said:
            assert b'"sealed"' in said
            assert entry in world.log.file.read_bytes()  # type: ignore[attr-defined]
        world.log.file.write_bytes(b"")  # type: ignore[attr-defined]

    at_every_step(world, lambda found: found.answer(bodies[0], world.log, NOW), check, 8)


def test_a_device_that_is_killed_can_take_back_whatever_left(world: World) -> None:
    """At lines of the device's room; what the child posted before it died went into a pipe."""
    world.store.grant("debug", NOW + timedelta(days=1), NOW)
    world.store.close()
    left = []
    for target in range(6, 46, 5):
        path = world.folder / f"store-{target}.db"
        shutil.copy(world.folder / "store.db", path)
        reading, writing = os.pipe()

        def sending(path: Path = path, writing: int = writing) -> bytes:
            store = Store.open(path, KEY, RULES, NOW)

            def say(target: str, body: bytes) -> bytes:
                os.write(writing, body[51:67])
                return world.keeper.keep(body, NOW)

            return offer(store, world.request, RECORDING, say, lambda: NOW).sample

        killed(target, sending, DEVICE_ROOM)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            sample = pipe.read()
        store = Store.open(path, KEY, RULES, NOW)
        held = {each.sample: each for each in Donations(store).all()}
        assert problems(store, None) == []
        if sample:
            left.append(sample)
            assert sample_id(held[sample].token) == sample, "a sample left, and its token was not kept"
            assert b"destroyed" in world.keeper.withdraw(held[sample].request + held[sample].token, NOW)
        store.close()
    assert 0 < len(left) < 8
    world.store = Store.open(world.folder / "store.db", KEY, RULES, NOW)

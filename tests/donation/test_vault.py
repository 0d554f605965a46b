"""A vault against hostile bytes, kill -9 at its steps, over HTTPS, and as its operator types it."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from clients.device.proof import problems
from clients.device.store import Store
from clients.donation import offering
from clients.donation.offering import offer, withdraw
from clients.donation.records import Donations
from fa_core.cli import build as command_line
from fa_core.donation.exchange import VaultSilent, post, reach, trust_of
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import DonationRequest, read, sign
from fa_core.donation.sealing import LARGEST, sample_id, seal
from fa_core.errors import BadInput, Refused
from fa_core.store import open_store
from fa_core.trust import enrolment
from fa_core.trust.witness import Witness
from fa_core.vault import database, keeper
from fa_core.vault.access_log import StoreLog
from fa_core.vault.keeper import Keeper
from fa_core.vault.process import server
from fa_core.vault.reviewer import open_review
from fa_core.vault.service import LARGEST_STATEMENT, build
from fa_core.vault.settings import Home, read_home
from fa_core.vault.wraps import Wraps
from tests.device.setup import KEY, RULES
from tests.donation.parties import NOW, ONE, OTHER, RECORDING, SAID, Log, World, refused

ROOM, DEVICE_ROOM = (str(Path(module.__file__).parent) for module in (keeper, offering))


# Hostile bytes.


def test_hostile_uploads_are_refused_by_code_and_leave_nothing(world: World) -> None:
    chance = np.random.default_rng(7)
    good = seal(RECORDING, world.request, bytes(32)).encode()
    hostile = [
        b"",
        b"x",
        good[:-1],
        good + b"\0",
        good[:5000],
        bytes(len(good)),
        chance.bytes(len(good)),
        b"{}",
    ]
    hostile += [good.replace(b"donation-1", b"donation-2"), bytes(LARGEST)]
    for data in hostile:
        with refused(Refusal.MALFORMED):
            world.keeper.keep(data, NOW)
    with refused(Refusal.UNKNOWN_REQUEST):
        world.keeper.keep(seal(RECORDING, replace(world.request, samples=99), bytes(32)).encode(), NOW)
    for data in hostile:
        with refused(Refusal.MALFORMED):
            world.keeper.answer(data, world.log, NOW)
        with refused(Refusal.MALFORMED):
            world.keeper.withdraw(data, NOW)
    for text in (
        '{"entry": 1}',
        '{"entry": "x", "share": "zz"}',
        "[]",
        '{"entry": "x", "share": 7}',
        "[" * 9000,
    ):
        with refused(Refusal.MALFORMED):
            world.keeper.answer(text.encode(), world.log, NOW)
    assert (world.keeper.samples(), list(world.wraps.samples()), world.log.entries) == ([], [], [])


def test_the_same_upload_again_is_the_same_and_another_is_a_conflict(world: World) -> None:
    good = seal(RECORDING, world.request, bytes(32))
    said = world.keeper.keep(good.encode(), NOW)
    world.now += timedelta(days=1)
    assert world.keeper.keep(good.encode(), world.now) == said
    assert len(world.keeper.samples()) == 1
    for changed in (
        replace(good, sealed=bytes(len(good.sealed))),
        replace(good, wraps=(good.wraps[1], good.wraps[0])),
    ):
        with refused(Refusal.CONFLICT):
            world.keeper.keep(changed.encode(), NOW)
    assert world.wraps.read(good.sample, "0") == good.wraps[0]


def test_a_full_vault_takes_no_more(tmp_path: Path) -> None:
    small = World(tmp_path, most=1)
    small.keeper.keep(seal(RECORDING, small.request, bytes(32)).encode(), NOW)
    with refused(Refusal.FULL):
        small.keeper.keep(seal(RECORDING, small.request, b"1" * 32).encode(), NOW)
    small.close()


def test_a_withdrawal_that_comes_before_its_upload_holds(world: World) -> None:
    """The upload was held up on its way; its owner withdrew meanwhile."""
    token = b"t" * 32
    world.keeper.withdraw(world.request.hash + token, NOW)
    with refused(Refusal.GONE):
        world.keeper.keep(seal(RECORDING, world.request, token).encode(), NOW)


def test_another_key_store_is_refused(tmp_path: Path, world: World) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="is not this vault's key store"):
        Wraps(tmp_path / "empty").check(world.request.vault_key)
    with pytest.raises(BadInput):
        world.wraps.check(bytes(32))


# Kill -9.


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


# Over HTTPS, set up by commands.


def fa(*words: object) -> str:
    done = CliRunner().invoke(command_line(), [str(each) for each in words])
    assert done.exception is None, (done.output, done.exception)
    return done.output


@contextmanager
def serving(home: Home, log: StoreLog) -> Iterator[None]:
    """Serve a vault with TLS on its own port."""
    found = home.open()
    running = server(home, build(home.settings, found, log))
    host, port = home.settings.name.split(":")
    listening = socket.create_server((host, int(port)))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    end = time.monotonic() + 600
    while not running.started:
        assert time.monotonic() < end
        time.sleep(0.01)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join()
        listening.close()
        found.close()


def set_up(folder: Path) -> tuple[Home, DonationRequest]:
    """Make authority, vault, reviewers and a request by their commands."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        name = f"127.0.0.1:{free.getsockname()[1]}"
    enrolment.create(folder / "authority")
    for party in ("log", "witness"):
        key = Ed25519PrivateKey.generate()
        enrolment.write_key(folder / f"{party}.key", key)
        (folder / f"{party}.pub").write_text(key.public_key().public_bytes_raw().hex())
    pinned = ("--authority", folder / "authority" / "authority.pub")
    open_store(folder / "store").close()
    fa("vault", "init", folder / "vault", "--name", name, *pinned, "--store", folder / "store")
    keys = (
        "--log",
        folder / "log.pub",
        "--witness",
        folder / "witness.pub",
        "--ca",
        folder / "vault" / "ca.crt",
    )
    for each in ("ada", "grace"):
        fa("vault", "reviewer", folder / each, "--name", each.title(), *pinned, *keys)
    fa(
        "vault", "request", "--area", "lamps", "--samples", 3, "--retention-days", 9, "--vault", name,
        "--vault-key", folder / "vault" / "vault.pub", "--reviewer", folder / "ada" / "reviewer.json",
        "--reviewer", folder / "grace" / "reviewer.json", "--authority", folder / "authority",
        "--out", folder / "vault" / "requests" / "lamps.json",
    )  # fmt: skip
    authority = enrolment.load(folder / "authority").public_key
    return read_home(folder / "vault"), read(
        (folder / "vault" / "requests" / "lamps.json").read_bytes(), authority
    )


def test_a_donation_over_https(tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    home, request = set_up(folder)
    witness = Witness(
        enrolment.read_key(folder / "witness.key"), bytes(32), folder / "journal",
        enrolment.read_hex(folder / "log.pub"), lambda: datetime.now(UTC),
    )  # fmt: skip
    trust = trust_of(folder / "vault" / "ca.crt")
    say = partial(post, request.vault, trust)

    def clock() -> datetime:
        return datetime.now(UTC).replace(microsecond=0)

    world.store.grant("debug", clock() + timedelta(days=1), clock())
    with open_store(folder / "store") as store:
        log = StoreLog(store, enrolment.read_key(folder / "log.key"), witness)
        with serving(home, log):
            with pytest.raises(VaultSilent, match="certificate is not trusted"):
                reach(request.vault, trust_of(None))
            reach(request.vault, trust)
            donation = offer(world.store, request, RECORDING, say, clock)
            (kept,) = json.loads(fa("vault", "list", folder / "vault", "--json"))["samples"]
            assert (kept["sample"], kept["area"], kept["reads"]) == (donation.sample.hex(), "lamps", 0)
            path = folder / "vault" / "requests" / "lamps.json"
            theirs = ("--request", path, "--json", "--dir")
            asked = json.loads(fa("vault", "ask", kept["sample"], *theirs, folder / "ada"))["read"]
            fa("vault", "release", asked, "--yes", *theirs, folder / "grace")
            fa("vault", "read", asked, *theirs, folder / "ada", "--out", folder / "heard.wav")
            assert (folder / "heard.wav").read_bytes() == RECORDING.wav()
            with pytest.raises(RefusedByVault, match="too_large"):
                say("/v1/samples", bytes(LARGEST + 1))
            with pytest.raises(RefusedByVault, match="too_large"):
                say("/v1/access", bytes(LARGEST_STATEMENT + 1))
            with pytest.raises(VaultSilent, match="as no vault does"):
                say("/v1/elsewhere", b"")
            assert withdraw(world.store, donation, say, clock).reads == 1
            with pytest.raises(RefusedByVault, match="no_sample"):
                open_review(folder / "ada", path).ask(donation.sample)
        assert [each.kind for each in store.entries()].count("access") == 4
        assert store.verify_log() == []
        assert "read of donated sample" in fa("log", "show", "--store", folder / "store")
    assert SAID not in caplog.text
    assert donation.sample.hex() not in caplog.text
    assert json.loads(fa("vault", "expire", folder / "vault", "--json")) == {"destroyed": 0}


def test_a_vaults_file_is_its_own(tmp_path: Path, world: World) -> None:
    with pytest.raises(BadInput, match="never made anew"):
        database.create(world.file)
    with pytest.raises(BadInput, match="fa vault init"):
        database.connect(tmp_path / "none.db")
    (tmp_path / "junk.db").write_bytes(b"junk" * 2000)
    with pytest.raises(Refused, match="no vault's file"):
        database.connect(tmp_path / "junk.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(Refused, match="another program's"):
        database.connect(tmp_path / "other.db")


def test_a_request_of_another_vault_is_not_served(tmp_path: Path) -> None:
    home, request = set_up(tmp_path)
    authority = enrolment.load(tmp_path / "authority").key
    other = tmp_path / "vault" / "requests" / "other.json"
    for wrong in (replace(request, vault_key=bytes(32)), replace(request, vault="elsewhere:1")):
        other.write_bytes(sign(wrong, authority))
        with pytest.raises(BadInput, match="another vault or address"):
            home.open()
    other.write_bytes(sign(request, Ed25519PrivateKey.generate()))
    with pytest.raises(Refused, match="not signed by the enrolment authority"):
        home.open()

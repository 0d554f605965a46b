"""A vault against hostile bytes, over HTTPS, and as its operator types it."""

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from clients.donation.offering import offer, withdraw
from fa_core.cli import build as command_line
from fa_core.donation.exchange import VaultSilent, post, reach, trust_of
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import DonationRequest, read, sign
from fa_core.donation.sealing import LARGEST, seal
from fa_core.errors import BadInput, Refused
from fa_core.store import open_store
from fa_core.trust import enrolment
from fa_core.trust.witness import Witness
from fa_core.vault import database
from fa_core.vault.access_log import StoreLog
from fa_core.vault.process import server
from fa_core.vault.reviewer import open_review
from fa_core.vault.service import LARGEST_STATEMENT, build
from fa_core.vault.settings import Home, read_home
from fa_core.vault.wraps import Wraps
from tests.donation.parties import NOW, RECORDING, SAID, World, refused

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

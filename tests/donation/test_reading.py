"""Two persons read a sample, one cannot, nobody can without the log; a withdrawn one is gone for good."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from clients.donation.offering import withdraw
from fa_core.donation import sealing
from fa_core.donation.access import Access
from fa_core.donation.keys import ReviewerKeys
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.sealing import handed_over, open_sample, own_share
from fa_core.errors import BadInput, Refused
from fa_core.vault import reading
from fa_core.vault.reading import Reading
from fa_core.vault.reviewer import Read
from fa_core.vault.wraps import Wraps
from tests.donation.parties import NOW, ONE, OTHER, RECORDING, Log, World, refused


def test_two_reviewers_read_together_and_the_log_names_each_step(world: World) -> None:
    donation = world.donate()
    assert world.read_together(donation.sample) == RECORDING
    assert world.log.actions() == ["ask", "open", "release", "read"]
    assert world.keeper.samples()[0].reads == 1


def test_one_reviewer_alone_opens_nothing(world: World) -> None:
    """With everything that the vault holds: both wraps and the sample."""
    donation, sealed = world.donate(), world.sealed()
    own = own_share(sealed.wraps[0], world.request, sealed.sample, 0, ONE)
    for guess in (own, bytes(32)):
        with pytest.raises(BadInput):
            open_sample(sealed.sealed, world.request, sealed.sample, (own, guess))
    for place in (0, 1):
        with pytest.raises(BadInput):
            own_share(sealed.wraps[1], world.request, sealed.sample, place, ONE)
    ada = world.review(ONE)
    read, _ = ada.ask(donation.sample)
    with refused(Refusal.NOT_THIS_READ):
        ada.read(read)
    with refused(Refusal.NOT_THIS_READ):
        ada.asked(read)


def test_a_sample_sealed_for_one_alone_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken control: a device whose second share is nothing gives the key to the first reviewer."""
    monkeypatch.setattr(sealing.secrets, "token_bytes", lambda size: bytes(size))
    world.donate()
    sealed = world.sealed()
    own = own_share(sealed.wraps[0], world.request, sealed.sample, 0, ONE)
    assert open_sample(sealed.sealed, world.request, sealed.sample, (own, bytes(32))) == RECORDING


def test_the_vault_alone_opens_nothing(world: World) -> None:
    """Its keys open no wrap, and a wrap opens for no other sample, request, vault, place or read."""
    world.donate()
    sealed, request = world.sealed(), world.request
    assert own_share(sealed.wraps[0], request, sealed.sample, 0, ONE)
    strangers = ReviewerKeys.generate()
    others = [
        (request, sealed.sample, 0, strangers),
        (request, bytes(16), 0, ONE),
        (replace(request, area="ovens"), sealed.sample, 0, ONE),
        (replace(request, vault_key=bytes(32)), sealed.sample, 0, ONE),
        (request, sealed.sample, 1, ONE),
    ]
    for asked, sample, place, keys in others:
        with pytest.raises(BadInput):
            own_share(sealed.wraps[0], asked, sample, place, keys)
    with pytest.raises(BadInput):
        handed_over(sealed.wraps[0], request, sealed.sample, bytes(8), 0, ONE)


def test_a_share_is_released_for_one_read_alone(world: World) -> None:
    donation = world.donate()
    ada, grace = world.review(ONE), world.review(OTHER)
    first, _ = ada.ask(donation.sample)
    second, _ = ada.ask(donation.sample)
    _, wrap = grace.asked(first)
    grace.release(first, wrap)
    with refused(Refusal.NOT_THIS_READ):
        ada.read(second)
    world.now += reading.RELEASED
    with refused(Refusal.NOT_THIS_READ):
        ada.read(first)


def test_strangers_learn_not_even_that_there_is_a_sample(world: World) -> None:
    donation, stranger = world.donate(), ReviewerKeys.generate()
    review = world.review(stranger)
    with pytest.raises(Refused, match="two other reviewers"):
        review.ask(donation.sample)
    for sample in (donation.sample, bytes(16)):
        access = Access(
            "ask", sample, bytes(8), stranger.signing_public, world.request.vault_key, NOW, bytes(8)
        )
        body = json.dumps({"entry": access.sign(stranger.signing).decode()}).encode()
        with refused(Refusal.NO_SAMPLE):
            world.keeper.answer(body, world.log, NOW)
    assert world.log.entries == []


def test_statements_count_once_in_time_and_for_this_vault(world: World) -> None:
    donation, said = world.donate(), []
    world.review(ONE, lambda target, body: said.append(body) or world.post(target, body)).ask(donation.sample)  # type: ignore[func-returns-value]
    with refused(Refusal.REPLAYED):
        world.keeper.answer(said[0], world.log, world.now)
    entry = json.loads(said[0])["entry"]
    for changed in (entry.replace('"ask"', '"read"'), entry[:-1], "", entry + " "):
        with refused(Refusal.NOT_SIGNED):
            world.keeper.answer(json.dumps({"entry": changed}).encode(), world.log, world.now)
    world.now += timedelta(minutes=6)
    with refused(Refusal.CLOCK):
        world.keeper.answer(said[0], world.log, world.now)
    key = world.request.vault_key
    other = Access("ask", donation.sample, b"otherone", ONE.signing_public, bytes(32), world.now, bytes(8))
    for access in (other, replace(other, vault=key)):
        body = json.dumps({"entry": access.sign(ONE.signing).decode()}).encode()
        if access.vault == key:
            world.keeper.answer(body, world.log, world.now)
        else:
            with refused(Refusal.NOT_SIGNED):
                world.keeper.answer(body, world.log, world.now)


# The log before any byte.


def step_with_a_log_that_fails(world: World) -> list[str]:
    """Return the steps after whose failing log something was handed out, or done."""
    donation = world.donate()
    ada, grace = world.review(ONE), world.review(OTHER)
    read, _ = ada.ask(donation.sample)
    _, wrap = grace.asked(read)
    leaked = []

    def step(name: str, act: Callable[[], object]) -> None:
        world.log.broken = True
        try:
            act()
            leaked.append(name)
        except RefusedByVault as error:
            if error.refusal is not Refusal.UNAVAILABLE:
                raise
        world.log.broken = False

    step("ask", lambda: ada.ask(donation.sample))
    step("open", lambda: grace.asked(read))
    step("release", lambda: grace.release(read, wrap))
    grace.release(read, wrap)
    step("read", lambda: ada.read(read))
    assert ada.read(read) == RECORDING
    return leaked


def test_nothing_is_handed_out_where_the_log_cannot_be_written(world: World) -> None:
    assert step_with_a_log_that_fails(world) == []


def test_a_vault_that_answers_before_it_logs_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Reading._enter

    def later(self: Reading, access: Access, entry: bytes) -> int:
        try:
            return enter(self, access, entry)
        except RefusedByVault:
            return 0

    monkeypatch.setattr(Reading, "_enter", later)
    assert step_with_a_log_that_fails(world) == ["ask", "open", "release", "read"]


def test_a_reviewer_opens_nothing_that_no_cosigned_checkpoint_covers(world: World) -> None:
    donation = world.donate()
    world.log.covered = 0
    read, _ = world.review(ONE).ask(donation.sample)
    with refused(Refusal.NOT_LOGGED):
        world.review(OTHER).asked(read)
    assert world.log.actions() == ["ask"]
    world.log.covered = None
    assert world.review(OTHER).asked(read)


@pytest.mark.parametrize("lie", ["no proof", "another witness", "another read", "not in the log"])
def test_a_vault_that_hides_a_read_gets_no_share(world: World, lie: str) -> None:
    """The reviewer's own program refuses before it unwraps; the vault and the other reviewer are one."""
    donation = world.donate()
    ada = world.review(ONE)
    read, _ = ada.ask(donation.sample)
    other, _ = ada.ask(donation.sample)
    if lie == "another witness":
        pinned = world.log.witness
        world.log.witness = Log().witness
    answer = json.loads(
        world.keeper.answer(_opening(world, read), world.log, world.now)
    )  # what an honest vault says
    if lie == "another witness":
        world.log.witness = pinned
    if lie == "no proof":
        answer["proof"] = None
    if lie == "another read":
        answer["proof"] = world.log.prove(1).body()  # type: ignore[union-attr]
    if lie == "not in the log":
        answer["proof"]["inclusion"] = "00" * 32
    lying = world.review(OTHER, lambda target, body: json.dumps(answer).encode())
    with pytest.raises((Refused, BadInput)):
        lying.asked(read)
    honest = world.review(OTHER)
    assert honest.asked(other)


def _opening(world: World, read: Read) -> bytes:
    access = Access(
        "open",
        read.sample,
        read.number,
        OTHER.signing_public,
        world.request.vault_key,
        world.now,
        b"a nonce!",
    )
    return json.dumps({"entry": access.sign(OTHER.signing).decode()}).encode()


def test_a_vault_that_answers_with_junk_gets_a_sentence(world: World) -> None:
    donation = world.donate()
    read, _ = world.review(ONE).ask(donation.sample)
    proof = world.log.prove(0)
    assert proof is not None
    good = {"entry": 3, "proof": proof.body(), "wrap": "00"}
    junk: list[object] = [[], 7, None, {}, {"entry": "1"}, {"entry": True}, {"entry": 1, "proof": 7}]
    junk += [{**good, "proof": {**proof.body(), name: 7}} for name in proof.body()]
    junk += [{**good, "proof": {**proof.body(), name: "zz"}} for name in proof.body()]
    junk += [{**good, "wrap": 7}, {**good, "wrap": "zz"}]
    for answer in [*(json.dumps(each).encode() for each in junk), b"", b"[" * 9000, b"\xff"]:
        with pytest.raises((BadInput, Refused)):
            world.review(OTHER, lambda target, body, answer=answer: answer).asked(read)
    with pytest.raises(BadInput):
        world.review(OTHER).release(read, bytes(1168))


# Withdrawal, and copies of the vault's file.


def opened_after_withdrawal(world: World, folder: Path) -> bool:
    """Read once, back up the vault's file, withdraw, restore it; return whether both reviewers can read."""
    donation = world.donate()
    assert world.read_together(donation.sample) == RECORDING
    world.keeper.close()
    shutil.copy(world.file, folder / "backup.db")
    world.keeper = world.open()
    said = withdraw(world.store, donation, world.post, lambda: world.now)
    assert (said.said, said.sample, said.reads) == ("destroyed", donation.sample, 1)
    world.keeper.close()
    shutil.copy(folder / "backup.db", world.file)
    world.keeper = world.open()
    try:
        world.read_together(donation.sample)
    except RefusedByVault as error:
        if error.refusal is not Refusal.NO_SAMPLE:
            raise
        return False
    return True


def test_a_restored_backup_opens_no_withdrawn_sample(world: World, tmp_path: Path) -> None:
    assert not opened_after_withdrawal(world, tmp_path)
    assert [each.name for each in (tmp_path / "vault" / "wraps").iterdir()] == ["do-not-back-up"]
    sealed = world.sealed()
    assert all(wrap not in (tmp_path / "backup.db").read_bytes() for wrap in sealed.wraps)
    # The withdrawal can be asked for again, and the sample cannot be put back.
    donation = world.heard[0]
    with refused(Refusal.GONE):
        world.keeper.keep(donation, world.now)


class WrapsInTheFile(Wraps):
    """The broken control: shares in a database that is backed up with the vault's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder.parent / "vault.db"

    def _run(self, query: str, *values: object) -> list[tuple[bytes]]:
        import sqlite3

        connection = sqlite3.connect(self._file.with_name("shares.db"))
        connection.execute("CREATE TABLE IF NOT EXISTS share (sample BLOB, name TEXT, data BLOB)")
        rows = connection.execute(query, values).fetchall()
        connection.commit()
        connection.close()
        return rows

    def keep(self, sample: bytes, name: str, data: bytes) -> None:
        self._run("INSERT INTO share VALUES (?, ?, ?)", sample, name, data)

    def read(self, sample: bytes, name: str) -> bytes | None:
        rows = self._run("SELECT data FROM share WHERE sample = ? AND name = ?", sample, name)
        return bytes(rows[0][0]) if rows else None

    def destroy(self, sample: bytes) -> None:
        self._run("DELETE FROM share WHERE sample = ?", sample)


def test_a_vault_that_keeps_shares_beside_samples_is_caught(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wraps = WrapsInTheFile(tmp_path / "vault" / "wraps")
    world.keeper.close()
    world.keeper = world.open()
    copy, shares = shutil.copy, tmp_path / "vault" / "shares.db"

    def both(source: Path, target: Path) -> None:
        """Back up and restore the file with what is in it, shares too."""
        copy(source, target)
        beside = tmp_path / "backup.shares"
        copy(*((shares, beside) if target.name == "backup.db" else (beside, shares)))

    monkeypatch.setattr(shutil, "copy", both)
    assert opened_after_withdrawal(world, tmp_path)


def test_withdrawal_needs_the_token_and_no_consent(world: World) -> None:
    donation = world.donate()
    world.store.revoke("debug", world.now)
    for token in (bytes(32), donation.sample * 2):
        world.keeper.withdraw(donation.request + token, world.now)
    assert len(world.keeper.samples()) == 1
    with refused(Refusal.UNKNOWN_REQUEST):
        world.keeper.withdraw(bytes(32) + donation.token, world.now)
    first = world.keeper.withdraw(donation.request + donation.token, world.now)
    assert world.keeper.samples() == []
    world.now += timedelta(days=2)
    assert world.keeper.withdraw(donation.request + donation.token, world.now) == first


def test_samples_expire(world: World) -> None:
    donation = world.donate()
    assert donation.until is not None
    world.now += timedelta(days=30)
    assert world.keeper.expire(world.now) == 0
    world.now += timedelta(days=1)
    with refused(Refusal.NO_SAMPLE):
        world.review(ONE).ask(donation.sample)
    assert world.keeper.expire(world.now) == 1
    assert world.keeper.samples() == []
    assert list(world.wraps.samples()) == []
    with refused(Refusal.NO_SAMPLE):
        world.read_together(donation.sample)

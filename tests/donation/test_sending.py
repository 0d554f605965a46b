"""What leaves a device: nothing by default, what was sealed with consent; none of it enters a number."""

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from clients.device.journal import sentence
from clients.device.owner import entry_object
from clients.device.proof import problems
from clients.donation import held, offering
from clients.donation.offering import offer, withdraw
from clients.donation.records import Donations
from clients.donation.showing import agreed, read_recording, shown
from fa_core.cli import build
from fa_core.donation import sealing
from fa_core.donation.exchange import VaultSilent
from fa_core.donation.recording import LENGTHS, Recording
from fa_core.donation.refusal import Refusal, RefusedByVault
from fa_core.donation.request import read, sign
from fa_core.donation.sealing import SealedSample
from fa_core.donation.statement import Statement
from fa_core.errors import BadInput, Refused
from fa_core.trust.enrolment import Authority
from tests.device.test_cli import example
from tests.device.test_store import decrypted
from tests.donation.parties import CANARY, NOW, ONE, RECORDING, SAID, World, public, request_of

ROOT = Path(__file__).parents[2]


def offered_without_consent(world: World) -> list[bytes]:
    """Offer with every consent but the one; return what was sent."""
    for purpose in ("quality_metrics", "personalisation"):
        world.store.grant(purpose, NOW + timedelta(days=30), NOW)  # type: ignore[arg-type]
    world.store.grant("debug", NOW + timedelta(days=1), NOW)
    world.now += timedelta(days=1)
    for _ in range(2):
        with suppress(Refused):
            offer(world.store, world.request, RECORDING, world.post, lambda: world.now)
        world.store.revoke("debug", world.now)
    return world.heard


def test_nothing_leaves_without_consent(world: World) -> None:
    assert offered_without_consent(world) == []
    assert Donations(world.store).all() == []
    assert "donation_offered" not in {entry.kind for entry in world.store.entries()}


def test_a_device_that_asks_for_no_consent_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offering, "allows", lambda grants, purpose, now: True)
    assert offered_without_consent(world)


def test_the_scope_binds_the_device_and_the_vault(world: World) -> None:
    withdraw(world.store, world.donate(), world.post, lambda: world.now)
    for moment in (world.request.first - timedelta(seconds=1), world.request.end):
        world.now = moment
        world.store.grant("debug", moment + timedelta(days=1), moment)
        with pytest.raises(Refused, match="samples are asked for from"):
            offer(world.store, world.request, RECORDING, world.post, lambda: world.now)
        with pytest.raises(RefusedByVault, match="closed"):
            world.keeper.keep(world.heard[0], moment)
    world.now = NOW
    world.donate()
    world.donate()
    with pytest.raises(Refused, match="3 samples were sent"):
        world.donate()


def test_a_request_counts_only_with_the_authoritys_signature() -> None:
    authority, request = Authority.generate(), request_of(bytes(32))
    data = sign(request, authority.key)
    assert read(data, authority.public_key) == request
    for wrong in (data.replace(b"lamps", b"ovens"), data.replace(b'"samples\\":3', b'"samples\\":9')):
        assert wrong != data
        with pytest.raises(Refused):
            read(wrong, authority.public_key)
    with pytest.raises(Refused):
        read(data, Authority.generate().public_key)
    for junk in (b"", b"{}", b"[" * 9000, data[:-9], b'{"request": 1, "signature": ""}'):
        with pytest.raises(BadInput):
            read(junk, authority.public_key)
    ada = request.reviewers[0]
    for changes in (
        {"reviewers": (ada, ada)},
        {"reviewers": (ada, public("Grace", ONE))},
        {"samples": 0},
        {"end": request.first},
        {"vault": "nowhere"},
        {"area": " "},
    ):
        with pytest.raises(BadInput):
            sign(replace(request, **changes), authority.key)


def test_only_samples_leave_in_one_of_four_lengths(tmp_path: Path) -> None:
    path = tmp_path / "tagged.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as sound:
        sound.comment = SAID
        sound.buffer_write(CANARY * 100, "int16")
    found = read_recording(path)
    assert found.samples == CANARY * 100
    assert SAID.encode() not in found.padded()
    assert Recording.unpadded(found.padded()) == found
    assert {len(Recording(bytes(2 * n)).padded()) for n in (1, 65_000, 70_000, 131_100, 480_000)} == {
        *LENGTHS
    }
    with pytest.raises(BadInput):
        Recording(bytes(2 * 480_001))
    with pytest.raises(BadInput):
        Recording(b"ab", "two\nlines")
    with shown(found, None) as private:
        assert private.stat().st_mode & 0o077 == private.parent.stat().st_mode & 0o077 == 0
        assert read_recording(private) == found
    assert not private.exists()
    with pytest.raises(BadInput, match="not heard"), shown(found, "false"):
        pass


# What is written, and when.


def test_what_may_have_left_can_be_taken_back(world: World) -> None:
    """The vault got it and its answer was lost: the token was written before."""
    seen = []

    def lost(target: str, body: bytes) -> bytes:
        seen.append(len(Donations(world.store).all()))
        world.post(target, body)
        raise VaultSilent("no answer")

    world.store.grant("debug", NOW + timedelta(days=30), NOW)
    with pytest.raises(VaultSilent, match="may have arrived"):
        offer(world.store, world.request, RECORDING, lost, lambda: NOW)
    assert seen == [1, 1]
    (donation,) = Donations(world.store).all()
    assert (donation.state, len(world.keeper.samples())) == ("sent", 1)
    world.store.revoke("debug", NOW)
    withdraw(world.store, donation, world.post, lambda: NOW)
    assert world.keeper.samples() == []
    kinds = [entry.kind for entry in world.store.entries()]
    assert kinds == ["created", "granted", "donation_offered", "revoked", "donation_withdrawn"]
    assert problems(world.store, None) == []


def test_a_withdrawal_counts_with_the_vaults_own_words_alone(world: World) -> None:
    one, other = world.donate(), world.donate()
    stranger = Authority.generate().key
    about_other = world.keeper.withdraw(other.request + other.token, NOW)
    said = Statement.read(about_other, world.request.vault_key)
    forged = [
        about_other,
        world.heard[1],
        replace(said, sample=one.sample).sign(stranger),
        replace(said, sample=one.sample).sign(world.key).replace(b"no proof", b"a proof"),
        b"",
        b"[" * 4000,
        b'{"document": 1}',
    ]
    for answer in forged:
        with pytest.raises(Refused):
            withdraw(world.store, one, lambda target, body, answer=answer: answer, lambda: NOW)
    assert Donations(world.store).find(one.sample.hex()).state == "kept"
    assert withdraw(world.store, one, world.post, lambda: NOW).reads == 0
    assert "no proof" in sentence(world.store.entries()[-1])
    too_long = replace(said, said="kept", until=NOW.date() + timedelta(days=99))
    with pytest.raises(Refused, match="longer than the request allows"):
        offer(
            world.store,
            world.request,
            RECORDING,
            lambda target, body: replace(too_long, sample=SealedSample.decode(body).sample).sign(world.key),
            lambda: NOW,
        )


def test_an_owner_exports_tokens_and_no_key_of_a_sample(world: World) -> None:
    donation = world.donate()
    (said,) = held.exported(world.store)
    assert isinstance(said, dict)
    assert said["token"] == donation.token.hex()
    assert {"sample", "token", "request", "area", "vault", "vault_key", "at", "until", "state"} == said.keys()
    # What is exported is enough to withdraw.
    request, token = (bytes.fromhex(str(said[name])) for name in ("request", "token"))
    answer = world.keeper.withdraw(request + token, NOW)
    assert Statement.read(answer, donation.vault_key).said == "destroyed"


def test_stored_statements_of_deletion_are_checked_again(world: World) -> None:
    one, other = world.donate(), world.donate()
    for each in (one, other):
        withdraw(world.store, each, world.post, lambda: world.now)
    assert held.problems(world.store) == []
    donations, entries = Donations(world.store).all(), world.store.entries()
    last = entries[-1]
    body, about_one = dict(last.body), dict(entries[-2].body)
    digits = str(body["signature"])
    broken = {
        "signature": {**body, "signature": ("0" if digits[0] != "0" else "1") + digits[1:]},
        "another's statement": {**about_one, "sample": body["sample"]},
        "reads": {**body, "reads": 7},
        "words": {**body, "statement": str(body["statement"]).replace("no proof", "a proof")},
    }
    for changed in broken.values():
        found = list(held._problems(donations, [*entries[:-1], replace(last, body=changed)]))
        assert found == [
            f"entry {last.sequence}: the vault signed no such statement of deletion of {other.sample.hex()}"
        ]
    assert "not what the journal says" in next(held._problems(donations, entries[:-1]))
    assert "token of donation" in next(held._problems(donations[:1], entries))
    swapped = replace(one, token=other.token)
    assert "another sample's" in next(held._problems([swapped, other], entries))
    world.store.connection.execute("UPDATE donation SET state = 'kept' WHERE sample = ?", (one.sample,))
    assert held.problems(world.store) == [
        f"donation {one.sample.hex()} is 'kept', which is not what the journal says"
    ]


# The canary: the sample's bytes and words, in clear, anywhere.


def sightings(world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> list[str]:
    """Donate, read, withdraw one of two; return where a piece of the sample is in clear."""
    first = world.donate()
    world.donate(Recording(CANARY * 2000, SAID))
    world.read_together(first.sample)
    withdraw(world.store, first, world.post, lambda: world.now)
    places = {f"sent {number}": data for number, data in enumerate(world.heard)}
    places |= {f"log {number}": data for number, data in enumerate(world.log.entries)}
    places |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = [f"{entry_object(entry)} {sentence(entry)}" for entry in world.store.entries()]
    places |= {"journal": " ".join(said).encode(), "logged": caplog.text.encode()}
    places["store, decrypted"] = decrypted(tmp_path)
    parts = (CANARY, CANARY[5:20], SAID.encode(), SAID.encode()[3:15])
    return [place for place, data in places.items() if any(part in data for part in parts)]


def test_no_byte_of_a_sample_is_in_clear_anywhere(
    world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert sightings(world, caplog, tmp_path) == []


def test_a_device_that_does_not_encrypt_is_caught(
    world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        def __init__(self, key: bytes) -> None:
            pass

        def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
            return data + bytes(16)

        def decrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
            return data[:-16]

    monkeypatch.setattr(sealing, "AESGCM", Plain)
    found = sightings(world, caplog, tmp_path)
    assert "sent 0" in found
    assert str(tmp_path / "vault" / "vault.db") in found


# Nothing of it enters a number.


def test_a_donation_changes_no_table_that_a_plan_reads(world: World) -> None:
    before = world.store.counts(), world.store.facts()
    withdraw(world.store, world.donate(), world.post, lambda: world.now)
    assert (world.store.counts(), world.store.facts()) == before


COUNTING = (
    "fa_core/plan", "fa_core/metrics", "fa_core/privacy", "fa_core/secagg", "fa_core/estimate",
    "fa_core/rounds", "fa_core/rollout", "fa_core/engines", "fa_core/wire", "fa_core/layout.py",
    "clients/evaluate.py", "clients/device", "clients/app.py", "clients/party.py", "clients/fleet",
)  # fmt: skip


def reaching(sources: Iterator[tuple[str, str]]) -> list[str]:
    """Return the sources that import a room of donations, or name its table in a query."""
    found = []
    for name, text in sources:
        if "donation" not in text and "vault" not in text:
            continue  # parsing every file would take seconds
        for node in ast.walk(ast.parse(text)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            imports = any("donation" in each or "vault" in each for each in names)
            if imports or (isinstance(node, ast.Constant) and "FROM donation" in str(node.value)):
                found.append(name)
    return found


def test_whatever_counts_knows_no_donation() -> None:
    files = [file for room in COUNTING for file in (ROOT / room).rglob("*.py")]
    files += [ROOT / room for room in COUNTING if room.endswith(".py")]
    assert len(files) > 100
    assert reaching((str(file), file.read_text("utf-8")) for file in files) == []
    broken = ["from fa_core.vault import keeper", "import clients.donation", 'x = "SELECT * FROM donation"']
    assert len(reaching((text, text) for text in broken)) == 3


# The owner's terminal.


def test_the_word_counts_after_the_sample_was_shown_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, terminal = os.openpty()
    os.write(owner, b"donate\n")
    with os.fdopen(terminal, "r+b", buffering=0) as raw, open(raw.fileno(), closefd=False) as text:
        monkeypatch.setattr(sys, "stdin", text)

        class Answering:
            """Standard output; the owner answers when the question is there."""

            def __init__(self, answer: bytes) -> None:
                self.answer = answer

            def write(self, question: str) -> int:
                os.write(owner, self.answer)
                return len(question)

            def flush(self) -> None:
                pass

        for answer, expected in ((b"no\n", False), (b"\n", False), (b"yes\n", False), (b"donate\n", True)):
            os.write(owner, b"donate\n")
            monkeypatch.setattr(sys, "stdout", Answering(answer))
            assert agreed() is expected
    os.close(owner)


def test_no_option_and_no_pipe_answers_for_the_owner(tmp_path: Path) -> None:
    authority = Authority.generate()
    text = example().replace('authority = "' + "0" * 64, f'authority = "{authority.public_key.hex()}')
    (tmp_path / "device.toml").write_text(text, "utf-8")
    soundfile.write(tmp_path / "a.wav", [0.0] * 1600, 16_000)
    now = datetime.now(UTC).replace(microsecond=0)
    request = request_of(bytes(32), first=now - timedelta(days=1), end=now + timedelta(days=1))
    (tmp_path / "request.json").write_bytes(sign(request, authority.key))

    def fa(*words: str, typed: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(build(), ["device", *words, "--dir", str(tmp_path)], input=typed)
        return done.exit_code, f"{done.output} {done.exception or ''}"

    files = (str(tmp_path / "request.json"), str(tmp_path / "a.wav"))
    assert fa("init")[0] == 0
    code, listed = fa("donate", "list", *files)
    assert code == 0
    assert "no consent to debug" in listed
    assert "no consent to debug" in fa("donate", "offer", *files, typed="donate\n")[1]
    assert fa("consent", "debug")[0] == 0
    assert "on a terminal" in fa("donate", "offer", *files, typed="donate\n")[1]
    assert "No such option" in fa("donate", "offer", *files, "--yes", typed="donate\n")[1]
    assert '"samples": []' in fa("donate", "status", "--json")[1]
    assert "name samples, or say --all" in fa("donate", "withdraw")[1]


def test_every_refusal_is_a_status_and_a_sentence() -> None:
    assert all(400 <= refusal.status < 600 and refusal.words for refusal in Refusal)

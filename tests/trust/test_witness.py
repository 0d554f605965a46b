"""The witness signs once: a second roster or bitmap for a release is refused, after a restart too."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from fa_core.cli.witness import app
from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.merkle import Tree, leaf_hash
from fa_core.secagg import MAX_ATTEMPTS, Server, Stage, Task, messages
from fa_core.trust import checkpoint
from fa_core.trust.enrolment import Authority
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessClient, WitnessServer
from tests.secagg import lab
from tests.secagg.lab import AUTHORITY, IDENTITIES, POPULATION, TASK, UnchargedWitness, fresh_record


def records(n: int, task: Task = TASK, first: int = 0) -> list[bytes]:
    """Join replies' records of n devices."""
    return [fresh_record(identity, task) for identity in IDENTITIES[first : first + n]]


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return UnchargedWitness(Ed25519PrivateKey.generate(), AUTHORITY.public_key, tmp_path)


def again(witness: Witness, tmp_path: Path) -> Witness:
    """The same witness after a restart."""
    return UnchargedWitness(witness._key, AUTHORITY.public_key, tmp_path)


def alive(n: int, *gone: int) -> messages.Flags:
    flags = np.ones(n, dtype=np.bool_)
    flags[list(gone)] = False
    return flags


def test_a_roster_is_signed_once_across_restarts(witness: Witness, tmp_path: Path) -> None:
    request = messages.roster_request(TASK, b"", records(6))
    reply = witness.sign_roster(request)
    assert witness.sign_roster(request) == reply
    assert again(witness, tmp_path).sign_roster(request) == reply
    for other in (records(6), records(6, first=1), records(7)):
        with pytest.raises(Refused, match="signed another roster"):
            again(witness, tmp_path).sign_roster(messages.roster_request(TASK, b"", other))


def test_an_attempt_too_many_gets_no_nonce(witness: Witness) -> None:
    """Each nonce draws the ring anew; a server that may throw rosters away finds a bad one."""
    task = replace(TASK, attempt=MAX_ATTEMPTS)
    with pytest.raises(Refused, match="4 attempts at a release, and no more"):
        witness.sign_roster(messages.roster_request(task, b"", records(8, task)))


def test_another_attempt_has_another_nonce(witness: Witness) -> None:
    first = witness.sign_roster(messages.roster_request(TASK, b"", records(6)))
    task = replace(TASK, attempt=1)
    second = witness.sign_roster(messages.roster_request(task, b"", records(6, task)))
    rosters = [
        messages.read_roster_reply(TASK.session, first),
        messages.read_roster_reply(task.session, second),
    ]
    assert rosters[0].nonce != rosters[1].nonce


def test_a_bitmap_is_signed_once_across_restarts(witness: Witness, tmp_path: Path) -> None:
    witness.sign_roster(messages.roster_request(TASK, b"", records(6)))
    request = messages.survivors_request(TASK, alive(6), alive(6, 2))
    reply = witness.sign_survivors(request)
    assert again(witness, tmp_path).sign_survivors(request) == reply
    for dealt, other in ((alive(6), alive(6)), (alive(6), alive(6, 3)), (alive(6, 2), alive(6, 2))):
        with pytest.raises(Refused, match="signed another survivors"):
            again(witness, tmp_path).sign_survivors(messages.survivors_request(TASK, dealt, other))


def test_what_it_does_not_sign(witness: Witness) -> None:
    rows = records(6)
    seventh = records(1, first=6)[0]
    foreign = bytearray(rows[0])
    foreign[32:128] = Authority.generate().certify(IDENTITIES[0].device, POPULATION)
    for bad, why in [
        (rows[:2], "too small"),
        ([*rows[:5], rows[0]], "stands twice"),
        ([*rows[:5], bytes(foreign)], "stands twice"),
        ([bytes(foreign), *rows[1:]], "not certified"),
        ([*rows, records(1, replace(TASK, attempt=3), first=8)[0]], "not certified"),
    ]:
        with pytest.raises(Refused, match=why):
            witness.sign_roster(messages.roster_request(TASK, b"", bad))
    witness.sign_roster(messages.roster_request(TASK, b"", [*rows, seventh]))
    with pytest.raises(Refused, match="the roster has 7"):
        witness.sign_survivors(messages.survivors_request(TASK, alive(6), alive(6)))
    with pytest.raises(Refused, match="never dealt"):
        witness.sign_survivors(messages.survivors_request(TASK, alive(7, 1), alive(7)))
    with pytest.raises(Refused, match="too few"):
        witness.sign_survivors(messages.survivors_request(TASK, alive(7), alive(7, 1, 2)))
    with pytest.raises(Refused, match="no roster"):
        witness.sign_survivors(messages.survivors_request(replace(TASK, attempt=9), alive(7), alive(7)))
    with pytest.raises(Refused, match="another task"):
        witness.sign_survivors(messages.survivors_request(replace(TASK, length=9), alive(7), alive(7)))
    for garbage in (b"", b"UH", bytes(400)):
        with pytest.raises(Refused, match="cannot read"):
            witness.sign_roster(garbage)
        with pytest.raises(Refused, match="cannot read"):
            witness.sign_survivors(garbage)


def opened_twice(witness: Witness) -> int:
    """Give rosters of two attempts, ask for the bitmap of the second and then of the first; how many came."""
    tasks = [replace(TASK, attempt=attempt) for attempt in (0, 1)]
    for task in tasks:
        witness.sign_roster(messages.roster_request(task, b"", records(6, task)))
    signed = 0
    for task in reversed(tasks):
        with suppress(Refused):
            signed += bool(witness.sign_survivors(messages.survivors_request(task, alive(6), alive(6))))
    return signed


def test_a_release_is_opened_in_one_attempt(witness: Witness, tmp_path: Path) -> None:
    """Row 5 of the review: a roster for a later attempt closes all earlier ones, after a restart too."""
    assert opened_twice(witness) == 1
    for attempt in (0, 2, 3):
        task = replace(TASK, attempt=attempt)
        with pytest.raises(Refused, match=r"given up|was opened in attempt 1; there is no other"):
            again(witness, tmp_path).sign_roster(messages.roster_request(task, b"", records(6, task)))


def test_a_witness_that_looks_at_no_other_attempt_opens_it_twice(
    witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken control."""
    monkeypatch.setattr(Witness, "_check_attempts", lambda *_: None)
    assert opened_twice(witness) == 2


@pytest.mark.parametrize(("largest", "signed"), [(1, True), (2, True), (3, False), (20, False)])
def test_one_owner_holds_no_more_than_the_corrupt_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int, signed: bool
) -> None:
    """Row 11 of the review: 20 devices of which a tenth may be corrupt; whoever holds three holds more."""
    owners = {each.device: "" if place < largest else str(place) for place, each in enumerate(IDENTITIES)}
    key, authority = Ed25519PrivateKey.generate(), AUTHORITY.public_key
    witness = UnchargedWitness(key, authority, tmp_path, owner_of=owners.__getitem__)
    request = messages.roster_request(TASK, b"", records(20))
    if not signed:
        with pytest.raises(Refused, match=f"one owner holds {largest} of the 20 devices .* covers 2"):
            witness.sign_roster(request)
        witness = UnchargedWitness(key, authority, tmp_path)  # the control: a witness that knows no owners
    assert witness.sign_roster(request)


def test_the_smallest_cohort_binds_survivors(tmp_path: Path) -> None:
    """Row 10 of the review: two of ten may drop out, but no fewer than nine are summed."""
    task = replace(TASK, min_devices=9)
    witness = UnchargedWitness(Ed25519PrivateKey.generate(), AUTHORITY.public_key, tmp_path)
    witness.sign_roster(messages.roster_request(task, b"", records(10, task)))
    with pytest.raises(Refused, match="8 survivors are too few; 9 must remain"):
        witness.sign_survivors(messages.survivors_request(task, alive(10), alive(10, 1, 2)))
    witness.sign_survivors(messages.survivors_request(task, alive(10), alive(10, 1)))


@pytest.mark.parametrize(("least", "summed"), [(9, False), (8, True)])
def test_a_round_with_fewer_survivors_than_its_smallest_cohort_fails(
    tmp_path: Path, least: int, summed: bool
) -> None:
    """The same round with a smallest cohort of eight shows that it is this bound which stops it."""
    bench = lab.make(tmp_path, n=10, task=replace(TASK, min_devices=least))
    if summed:
        bench.run({Stage.MASKED: {1, 2}})
        assert np.array_equal(bench.server.result.total, bench.expected())
    else:
        with pytest.raises(RoundFailed, match="at least 9 must remain"):
            bench.run({Stage.MASKED: {1, 2}})


def test_the_first_of_two_processes_wins(witness: Witness, tmp_path: Path) -> None:
    """Two witnesses with one key and one journal, as after a careless failover."""
    twin = again(witness, tmp_path)
    one, two = (messages.roster_request(TASK, b"", records(6)) for _ in range(2))
    reply = witness.sign_roster(one)
    with pytest.raises(Refused):
        twin.sign_roster(two)
    assert twin.sign_roster(one) == reply


LOG = Ed25519PrivateKey.generate()
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def cosigner(tmp_path: Path, key: Ed25519PrivateKey) -> Witness:
    log = LOG.public_key().public_bytes_raw()
    return Witness(key, AUTHORITY.public_key, tmp_path, log, lambda: NOW)


def test_it_cosigns_one_history_only(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    leaves = [leaf_hash(b"%d" % i) for i in range(9)]
    tree = Tree(leaves)
    note = checkpoint.sign(5, Tree(leaves[:5]).root, LOG)
    note += cosigner(tmp_path, key).cosign(note, ())
    assert checkpoint.cosigned_at(checkpoint.parse(note), key.public_key()) == NOW
    later = cosigner(tmp_path, key)
    assert later.seen() == 5
    fork = Tree([leaf_hash(b"other"), *leaves[1:]])
    with pytest.raises(Refused, match="no extension"):
        later.cosign(checkpoint.sign(9, fork.root, LOG), fork.consistency(5))
    assert later.seen() == 5
    later.cosign(checkpoint.sign(9, tree.root, LOG), tree.consistency(5))
    assert cosigner(tmp_path, key).seen() == 9


def test_without_a_log_it_cosigns_nothing(witness: Witness) -> None:
    with pytest.raises(Refused, match="transparency log"):
        witness.cosign(checkpoint.sign(0, Tree([]).root, LOG), ())
    assert witness.seen() == 0


@contextmanager
def process(directory: Path, socket: Path) -> Iterator["subprocess.Popen[str]"]:
    """`fa witness serve`, listening; killed without warning at the end."""
    program = (
        "from fa_core.cli import witness; from tests.secagg.lab import UnchargedWitness;"
        "witness.Witness = UnchargedWitness; witness.app()"
    )
    files = ["--authority", str(directory / "authority.pub"), "--log", str(directory / "log.pub")]
    files += ["--devices", str(directory / "devices.csv")]
    command = [sys.executable, "-c", program, "serve", str(directory / "witness"), "--socket", str(socket)]
    running = subprocess.Popen([*command, *files], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert "listens" in running.stdout.readline()
        yield running
    finally:
        running.kill()
        running.communicate()


def test_a_second_witness_does_not_take_the_place_of_one_that_answers(
    witness: Witness, tmp_path: Path
) -> None:
    place = tmp_path / "w.sock"
    with WitnessServer(witness, place):
        with pytest.raises(Refused, match="another process already serves"):
            WitnessServer(witness, place)
        assert place.is_socket()
    with WitnessServer(witness, place):  # what a dead one left is cleared away
        assert place.is_socket()
    place.unlink()
    place.write_text("mine")
    with pytest.raises(Refused, match="is not a socket; it was left as it is"):
        WitnessServer(witness, place)
    assert place.read_text() == "mine"


def test_the_witness_as_a_process(tmp_path: Path) -> None:
    """A whole round, a checkpoint, a kill, and the journal still holds."""
    (tmp_path / "authority.pub").write_text(AUTHORITY.public_key.hex())
    (tmp_path / "log.pub").write_text(LOG.public_key().public_bytes_raw().hex())
    rows = [f"{each.device.hex()},,,owner {i}\n" for i, each in enumerate(IDENTITIES)]
    (tmp_path / "devices.csv").write_text("".join(rows))
    made = CliRunner().invoke(app, ["init", str(tmp_path / "witness")])
    assert (tmp_path / "witness" / "witness.key").stat().st_mode & 0o077 == 0
    socket = tmp_path / "w.sock"
    client = WitnessClient(socket)
    with pytest.raises(RoundFailed, match="does not answer"):
        client.seen()
    bench = lab.make(tmp_path / "unused")
    trust = replace(bench.trust, witness=bytes.fromhex(made.output.strip()))
    bench.parties = {
        i: lab.DeviceParty(TASK, IDENTITIES[i], trust, lambda n, i=i: bench.vectors[i])  # type: ignore[misc]
        for i in range(6)
    }
    bench.server = Server(TASK, AUTHORITY.public_key, client, range(6))
    with process(tmp_path, socket):
        bench.run({Stage.MASKED: {4}})
        assert np.array_equal(bench.server.result.total, bench.expected())
        assert client.cosign(checkpoint.sign(1, leaf_hash(b"0"), LOG), ())
        with pytest.raises(Refused, match="no such operation"):
            client._ask(99, b"")  # type: ignore[arg-type]
    with process(tmp_path, socket):
        assert client.seen() == 1
        with pytest.raises(Refused, match="signed another roster"):
            client.sign_roster(messages.roster_request(TASK, b"", records(6)))
        with pytest.raises(Refused, match="signed another survivors"):
            client.sign_survivors(messages.survivors_request(TASK, alive(6), alive(6)))


def test_a_second_init_does_not_overwrite_the_key(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(tmp_path), "--json"]).exit_code == 0
    key = (tmp_path / "witness.key").read_text()
    assert isinstance(runner.invoke(app, ["init", str(tmp_path)]).exception, BadInput)
    assert (tmp_path / "witness.key").read_text() == key

"""What a device does not answer to. Each test is one thing that a server, or one who speaks for it, may try.

The witness's key is in the test's hand, so the lies are signed ones wherever a signature would stop them:
what is tested is the check itself, not the signature in front of it.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fa_core.secagg import IN_ORDER, DeviceParty, Reason, Refusal, Stage, Task, choose, keys, messages, shamir
from fa_core.secagg.identity import Record, make_record
from fa_core.secagg.messages import Roster
from fa_core.trust.enrolment import Authority
from tests.secagg import lab
from tests.secagg.lab import IDENTITIES, TASK, Lab, fresh_record


def refused(party: DeviceParty, stage: Stage, request: bytes) -> Reason:
    with pytest.raises(Refusal) as caught:
        getattr(party, stage.value)(request)
    assert str(caught.value) == caught.value.reason.value
    return caught.value.reason


def flags(n: int, *gone: int) -> messages.Flags:
    alive = np.ones(n, dtype=np.bool_)
    alive[list(gone)] = False
    return alive


class Liar:
    """A server that has the witness's key, and one honest device (roster index 0) in front of it."""

    def __init__(self, journal: Path, n: int = 6, task: Task = TASK, min_devices: int = 1) -> None:
        self.lab = lab.make(journal, n=1, task=task, min_devices=min_devices)
        self.task = task
        self.party = self.lab.parties[0]
        own = lab.record_of(self.party.join(messages.join_request(task)), task).encode()
        self.share_keys = [X25519PrivateKey.generate() for _ in range(n)]
        others = zip(IDENTITIES[1:n], self.share_keys[1:], strict=True)
        self.records = [own, *(fresh_record(identity, task, key) for identity, key in others)]

    def roster(self, nonce: bytes = bytes(32)) -> Roster:
        return lab.sign_roster(self.lab.witness_key, self.task, self.records, nonce)

    def shares(self, roster: Roster | None = None, index: int = 0) -> bytes:
        return lab.shares_request(self.task, roster or self.roster(), self.records, index)

    def to_masked(self) -> tuple[Roster, bytes]:
        """Have the device deal its shares. The roster, and a confirm request with boxes that open."""
        roster = self.roster()
        self.party.shares(self.shares(roster))
        parameters = choose(len(self.records), self.task.dropout, self.task.corrupt)
        assert parameters
        return roster, self.boxes(flags(len(self.records)), parameters.neighbours)

    def boxes(self, dealt: messages.Flags, count: int) -> bytes:
        """A confirm request with the first `count` boxes of those neighbours that dealt."""
        n, session = len(self.records), self.task.session
        parameters = choose(n, self.task.dropout, self.task.corrupt)
        assert parameters
        around = lab.neighbours_of(0, self.roster().hash(self.task), n, parameters.neighbours)
        own, sealed = Record.decode(self.records[0]), []
        for i in around[dealt[around]].tolist():
            secret = keys.agree(self.share_keys[i], own.share_key)
            key = keys.share_key(secret, session, Record.decode(self.records[i]).device, own.device)
            sealed.append(keys.seal(key, bytes(2 * shamir.SHARE_SIZE)))
        whole = np.frombuffer(b"".join(sealed[:count]), dtype=np.uint8)
        return messages.confirm_request(session, dealt, whole)

    def mask(self, request: bytes) -> bytes:
        """Have the device confirm, and send its masked vector."""
        self.party.confirm(request)
        return self.party.masked(messages.masked_request(self.task.session))

    def unmask(self, roster: Roster, flags: messages.Flags) -> bytes:
        return lab.sign_survivors(self.lab.witness_key, self.task, roster, flags)


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    return Liar(tmp_path)


def test_without_a_lie_the_server_is_not_refused(liar: Liar) -> None:
    roster, masked = liar.to_masked()
    liar.mask(masked)
    liar.party.unmask(liar.unmask(roster, np.ones(6, dtype=np.bool_)))
    assert liar.lab.asked == {0: 6}


def test_roster_without_the_witness(liar: Liar) -> None:
    roster = liar.roster()
    other_witness = lab.sign_roster(Ed25519PrivateKey.generate(), TASK, liar.records)
    for forged in (other_witness, replace(roster, signature=bytes(64)), replace(roster, nonce=b"\x01" * 32)):
        assert refused(liar.party, Stage.SHARES, liar.shares(forged)) is Reason.UNSIGNED_ROSTER
    liar.party.shares(liar.shares(roster))  # a refusal leaves no trace


def test_roster_of_another_release(liar: Liar) -> None:
    other = lab.sign_roster(liar.lab.witness_key, replace(TASK, attempt=1), liar.records)
    assert refused(liar.party, Stage.SHARES, liar.shares(other)) is Reason.UNSIGNED_ROSTER


def test_roster_that_it_is_not_in(liar: Liar) -> None:
    liar.records[0] = fresh_record(IDENTITIES[7])
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.NOT_IN_ROSTER


def test_another_place_than_its_own(liar: Liar) -> None:
    assert refused(liar.party, Stage.SHARES, liar.shares(index=1)) is Reason.NOT_IN_ROSTER


def test_cohort_under_its_own_minimum(tmp_path: Path) -> None:
    liar = Liar(tmp_path, min_devices=7)
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.COHORT_TOO_SMALL


def test_cohort_under_the_plans_minimum(tmp_path: Path) -> None:
    liar = Liar(tmp_path, task=replace(TASK, min_devices=7))
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.COHORT_TOO_SMALL


def test_cohort_that_no_graph_protects(tmp_path: Path) -> None:
    liar = Liar(tmp_path, task=replace(TASK, dropout=Fraction(1, 2), corrupt=Fraction(1, 3)))
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.NO_PARAMETERS


def test_neighbour_that_the_authority_did_not_certify(liar: Liar) -> None:
    liar.records[3] = fresh_record(Authority.generate().enrol("a fleet"))
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.UNCERTIFIED_KEY


def test_round_keys_that_the_device_did_not_sign(liar: Liar) -> None:
    record = bytearray(liar.records[3])
    record[128:160] = X25519PrivateKey.generate().public_key().public_bytes_raw()
    liar.records[3] = bytes(record)
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.UNCERTIFIED_KEY


def test_round_keys_of_another_round(liar: Liar) -> None:
    liar.records[3] = fresh_record(IDENTITIES[3], replace(TASK, attempt=1))
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.UNCERTIFIED_KEY


@pytest.mark.parametrize("which", ["share key", "mask key"])
@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31), (2**255 - 20).to_bytes(32, "little")])
def test_key_that_makes_the_secret_zero(liar: Liar, point: bytes, which: str) -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    round_keys = (point, other) if which == "share key" else (other, point)
    liar.records[3] = make_record(IDENTITIES[3], TASK.session, *round_keys).encode()
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.UNCERTIFIED_KEY


def test_device_on_the_roster_twice(liar: Liar) -> None:
    liar.records[4] = fresh_record(IDENTITIES[3])
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.REPEATED_KEY


def test_round_key_of_two_devices(liar: Liar) -> None:
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    for i in (3, 4):
        other = X25519PrivateKey.generate().public_key().public_bytes_raw()
        liar.records[i] = make_record(IDENTITIES[i], TASK.session, other, public).encode()
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.REPEATED_KEY


def test_one_key_for_both_uses(liar: Liar) -> None:
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    liar.records[3] = make_record(IDENTITIES[3], TASK.session, public, public).encode()
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.REPEATED_KEY


def test_its_own_record_echoed_back(liar: Liar) -> None:
    liar.records[3] = liar.records[0]
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.OWN_KEY


def test_its_own_round_key_in_another_name(liar: Liar) -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    own = liar.records[0][160:192]
    liar.records[3] = make_record(IDENTITIES[3], TASK.session, other, own).encode()
    assert refused(liar.party, Stage.SHARES, liar.shares()) is Reason.OWN_KEY


def test_neighbours_in_another_order(liar: Liar) -> None:
    roster = liar.roster()
    asked = messages.read_shares_request(TASK.session, liar.shares(roster))
    members = [messages.member_bytes(m.record, m.proof) for m in reversed(asked.neighbours)]
    request = messages.shares_request(TASK.session, roster, asked.index, asked.proof, members)
    assert refused(liar.party, Stage.SHARES, request) is Reason.NEIGHBOUR_NOT_IN_ROSTER
    request = messages.shares_request(TASK.session, roster, asked.index, asked.proof, members[1:])
    assert refused(liar.party, Stage.SHARES, request) is Reason.MALFORMED


def test_masked_with_too_few_neighbours(tmp_path: Path) -> None:
    liar = Liar(tmp_path, n=100, task=replace(TASK, dropout=Fraction(1, 5), corrupt=Fraction(0)))
    parameters = choose(100, Fraction(1, 5), Fraction(0))
    assert parameters
    roster, _ = liar.to_masked()
    around = lab.neighbours_of(0, roster.hash(liar.task), 100, parameters.neighbours).tolist()
    k, t = parameters.neighbours, parameters.threshold
    request = liar.boxes(flags(100, *around[: k - t + 1]), t - 1)
    assert refused(liar.party, Stage.CONFIRM, request) is Reason.TOO_FEW_NEIGHBOURS
    assert liar.lab.asked == {}  # its vector was not even computed
    liar.mask(liar.boxes(flags(100, *around[: k - t]), t))


def test_masked_where_too_few_dealt_or_it_did_not_itself(liar: Liar) -> None:
    liar.to_masked()
    assert refused(liar.party, Stage.CONFIRM, liar.boxes(flags(6, 3, 4), 3)) is Reason.TOO_FEW_SURVIVORS
    assert refused(liar.party, Stage.CONFIRM, liar.boxes(flags(6, 0), 5)) is Reason.NOT_A_SURVIVOR
    assert refused(liar.party, Stage.CONFIRM, liar.boxes(flags(6, 3), 3)) is Reason.MALFORMED
    assert liar.lab.asked == {}


def test_unmask_with_other_dealers_than_it_was_shown(liar: Liar) -> None:
    """Devices that saw different dealers mask with different neighbours: see test_cuts."""
    roster, _ = liar.to_masked()
    liar.mask(liar.boxes(flags(6, 3), 4))
    everybody, shown = flags(6), flags(6, 3)
    key = liar.lab.witness_key
    other = lab.sign_survivors(key, TASK, roster, shown, dealt=everybody)
    assert refused(liar.party, Stage.UNMASK, other) is Reason.UNSIGNED_SURVIVORS
    liar.party.unmask(lab.sign_survivors(key, TASK, roster, shown, dealt=shown))


def test_survivors_without_the_witness(liar: Liar) -> None:
    roster, masked = liar.to_masked()
    liar.mask(masked)
    other_witness = lab.sign_survivors(Ed25519PrivateKey.generate(), TASK, roster, flags(6, 3))
    assert refused(liar.party, Stage.UNMASK, other_witness) is Reason.UNSIGNED_SURVIVORS
    signed = liar.unmask(roster, flags(6, 3))
    other = messages.unmask_request(TASK.session, flags(6, 4), signed[-64:])
    assert refused(liar.party, Stage.UNMASK, other) is Reason.UNSIGNED_SURVIVORS


def test_survivors_of_another_roster(liar: Liar) -> None:
    _, masked = liar.to_masked()
    liar.mask(masked)
    other = liar.unmask(liar.roster(nonce=b"\x07" * 32), flags(6, 3))
    assert refused(liar.party, Stage.UNMASK, other) is Reason.UNSIGNED_SURVIVORS


def test_too_few_survivors(liar: Liar) -> None:
    roster, masked = liar.to_masked()
    liar.mask(masked)  # n = 6, f = 1/5: five must survive
    request = liar.unmask(roster, flags(6, 3, 4))
    assert refused(liar.party, Stage.UNMASK, request) is Reason.TOO_FEW_SURVIVORS
    liar.party.unmask(liar.unmask(roster, flags(6, 3)))


def test_unmask_without_having_survived(liar: Liar) -> None:
    roster, masked = liar.to_masked()
    liar.mask(masked)
    assert refused(liar.party, Stage.UNMASK, liar.unmask(roster, flags(6, 0))) is Reason.NOT_A_SURVIVOR


def test_neighbours_that_never_dealt_do_not_count_as_survivors(tmp_path: Path) -> None:
    """Two of nine never dealt, two others then vanish: five are left that can open anything; six must be."""
    liar = Liar(tmp_path, n=10)
    parameters = choose(10, TASK.dropout, TASK.corrupt)
    assert parameters
    assert (parameters.neighbours, parameters.threshold, parameters.survivors) == (9, 6, 8)
    roster = liar.roster()
    liar.party.shares(liar.shares(roster))
    dealt, alive = flags(10, 1, 2), flags(10, 3, 4)
    liar.mask(liar.boxes(dealt, 7))
    request = lab.sign_survivors(liar.lab.witness_key, TASK, roster, alive, dealt)
    assert refused(liar.party, Stage.UNMASK, request) is Reason.TOO_FEW_NEIGHBOURS


@pytest.mark.parametrize("who", ["plan", "device"])
def test_survivors_under_the_smallest_cohort(tmp_path: Path, who: str) -> None:
    """Row 10 of the review: the smallest cohort binds who is summed, not only who joined.

    Ten joined and the plan tolerates two dropouts; either its smallest cohort or the device's own is nine.
    """
    if who == "plan":
        liar = Liar(tmp_path, n=10, task=replace(TASK, min_devices=9))
    else:
        liar = Liar(tmp_path, n=10, min_devices=9)
    roster = liar.roster()
    liar.party.shares(liar.shares(roster))
    for gone in ((1, 2), ()):
        request = liar.boxes(flags(10, *gone), 9 - len(gone))
        if gone:
            assert refused(liar.party, Stage.CONFIRM, request) is Reason.TOO_FEW_SURVIVORS
        else:
            liar.mask(request)
    few = liar.unmask(roster, flags(10, 3, 4))
    assert refused(liar.party, Stage.UNMASK, few) is Reason.TOO_FEW_SURVIVORS
    liar.party.unmask(liar.unmask(roster, flags(10, 3)))


def test_too_few_neighbours_survive(tmp_path: Path) -> None:
    liar = Liar(tmp_path, n=100, task=replace(TASK, dropout=Fraction(1, 5), corrupt=Fraction(0)))
    parameters = choose(100, Fraction(1, 5), Fraction(0))
    assert parameters
    roster, masked = liar.to_masked()
    liar.mask(masked)
    around = lab.neighbours_of(0, roster.hash(liar.task), 100, parameters.neighbours).tolist()
    too_many = parameters.neighbours - parameters.threshold + 1
    assert too_many <= 20  # so enough of the whole roster survives
    request = liar.unmask(roster, flags(100, *around[:too_many]))
    assert refused(liar.party, Stage.UNMASK, request) is Reason.TOO_FEW_NEIGHBOURS
    liar.party.unmask(liar.unmask(roster, flags(100, *around[: too_many - 1])))


def test_a_second_bitmap_after_the_first(liar: Liar) -> None:
    roster, masked = liar.to_masked()
    liar.mask(masked)
    liar.party.unmask(liar.unmask(roster, flags(6, 3)))
    assert refused(liar.party, Stage.UNMASK, liar.unmask(roster, flags(6))) is Reason.DIFFERENT_REQUEST


def test_another_task_than_the_one_agreed(liar: Liar) -> None:
    party = lab.make(liar.lab.witness._journal._directory, n=1).parties[0]
    for other in (
        replace(TASK, plan_hash=bytes(32)),
        replace(TASK, attempt=1),
        replace(TASK, release=bytes(16)),
        replace(TASK, min_devices=2),
        replace(TASK, context=b"\x01" * 32),
        replace(TASK, length=8),
        replace(TASK, bits=64),
        replace(TASK, dropout=Fraction(1, 4)),
    ):
        assert refused(party, Stage.JOIN, messages.join_request(other)) is Reason.WRONG_TASK


def test_every_stage_of_another_round(tmp_path: Path) -> None:
    for stage in IN_ORDER[1:]:
        ours = lab.make(tmp_path / stage.value).run(until=stage)
        other = bytearray(ours.server.requests()[0])
        other[4:36] = replace(TASK, attempt=1).session
        assert refused(ours.parties[0], stage, bytes(other)) is Reason.WRONG_TASK


def test_a_repeated_request_gets_the_stored_reply_and_a_different_one_none(tmp_path: Path) -> None:
    ours, seen = lab.make(tmp_path), []

    def note(stage: Stage, node: int, request: bytes) -> bytes:
        if node == 0:
            seen.append((stage, request))
        return request

    replies: dict[Stage, bytes] = {}

    def store(stage: Stage, node: int, reply: bytes) -> bytes:
        if node == 0:
            replies[stage] = reply
        return reply

    ours.run(request=note, reply=store)
    assert [stage for stage, _ in seen] == list(IN_ORDER)
    for stage, request in seen:
        assert getattr(ours.parties[0], stage.value)(request) == replies[stage]
        assert refused(ours.parties[0], stage, request + b"\x00") is Reason.DIFFERENT_REQUEST


def test_stages_out_of_order(tmp_path: Path) -> None:
    ours: Lab = lab.make(tmp_path).run(until=Stage.MASKED)
    request = ours.server.requests()[0]
    fresh = lab.make(tmp_path / "fresh").parties[0]
    assert refused(fresh, Stage.MASKED, request) is Reason.OUT_OF_ORDER
    assert refused(ours.parties[0], Stage.UNMASK, request) is Reason.OUT_OF_ORDER
    assert refused(ours.parties[0], Stage.MASKED, request[:-1]) is Reason.MALFORMED


def test_a_contribution_is_asked_for_once(tmp_path: Path) -> None:
    ours = lab.make(tmp_path, n=6).run(until=Stage.MASKED)
    calls = []

    def failing(joined: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        calls.append(joined)
        raise RuntimeError

    ours.parties[0]._contribute = failing
    request = ours.server.requests()[0]
    with pytest.raises(RuntimeError):
        ours.parties[0].masked(request)
    assert refused(ours.parties[0], Stage.MASKED, request) is Reason.OUT_OF_ORDER
    assert calls == [6]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(TASK.length + 1, np.int64),
        np.zeros((1, TASK.length), np.int64),
        np.zeros(TASK.length, np.int32),
        np.zeros(TASK.length, np.float64),
    ],
    ids=["longer", "a row", "int32", "floating point"],
)
def test_a_contribution_of_another_shape_or_type_is_never_sent(
    tmp_path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    ours = lab.make(tmp_path, n=6).run(until=Stage.MASKED)
    ours.parties[0]._contribute = lambda joined: values  # type: ignore[assignment, return-value]
    with pytest.raises(ValueError, match="a contribution has shape"):
        ours.parties[0].masked(ours.server.requests()[0])

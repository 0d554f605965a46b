"""Garbage in place of shares is found before anything is masked, and its dealer is named."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from fa_core.errors import Refused
from fa_core.secagg import DeviceParty, Reason, Refusal, RoundFailure, Stage, keys, messages, shamir
from fa_core.secagg.complaint import shares_in
from fa_core.secagg.graph import mirror
from fa_core.secagg.identity import make_record
from fa_core.secagg.masks import lower
from fa_core.secagg.opened_secret import on_curve, opened
from fa_core.trust.witness import Witness
from tests.secagg import attacks, lab
from tests.secagg.lab import AUTHORITY, IDENTITIES, TASK, Lab, UnchargedWitness
from tests.secagg.liars import FalseAccuser, Garbage, Gullible, NoResidues, Swindler, Trusting

N, LIAR = 10, 2
NEXT = replace(TASK, attempt=1)


def bench(journal: Path, kind: type[DeviceParty], party: type[DeviceParty] = DeviceParty) -> Lab:
    """Ten devices, of which one is of another kind."""
    made = lab.make(journal, N, party=party)
    made.parties[LIAR].__class__ = kind
    return made


def heard(journal: Path, made: Lab) -> Witness:
    """The same witness after a restart."""
    return UnchargedWitness(made.witness_key, AUTHORITY.public_key, journal)


def refused(party: DeviceParty, stage: Stage, request: bytes) -> Reason:
    with pytest.raises(Refusal) as caught:
        getattr(party, stage.value)(request)
    return caught.value.reason


def flags(n: int) -> messages.Flags:
    return np.ones(n, dtype=np.bool_)


def kept(journal: Path) -> list[bytes]:
    """The devices that the witness wrote down as liars."""
    return [file.read_bytes()[:32] for file in sorted(journal.glob("*-complaint-*"))]


def again(journal: Path, without: set[int]) -> Lab:
    """The next attempt, by honest devices, with the same journal and key of the witness."""
    identities = [IDENTITIES[i] for i in range(N) if i not in without]
    return lab.make(journal, len(identities), NEXT, identities=identities)


@pytest.mark.parametrize("kind", [Garbage, NoResidues])
def test_who_deals_garbage_is_left_out_before_anything_is_masked(
    tmp_path: Path, kind: type[DeviceParty]
) -> None:
    made = bench(tmp_path, kind).run()
    assert made.server.left_out == {LIAR}
    assert made.server.stage is None
    assert made.asked == {}
    with pytest.raises(RuntimeError):
        _ = made.server.result
    assert kept(tmp_path) == [IDENTITIES[LIAR].device]
    after = again(tmp_path, {LIAR}).run()
    assert len(after.server.result.counted) == N - 1
    assert np.array_equal(after.server.result.total, after.expected())


@pytest.mark.parametrize("kind", [Garbage, NoResidues])
def test_where_nobody_complains_the_round_fails_after_it_was_masked(
    tmp_path: Path, kind: type[DeviceParty]
) -> None:
    """The control: what row 5 of the review did."""
    made = bench(tmp_path, kind, party=Trusting)
    with pytest.raises(RoundFailure, match="too few shares came back to open 1 secrets"):
        made.run()
    assert len(made.asked) == N


def test_a_false_accuser_is_left_out(tmp_path: Path) -> None:
    made = bench(tmp_path, FalseAccuser).run()
    assert made.server.left_out == {LIAR}
    assert made.asked == {}
    assert kept(tmp_path) == [IDENTITIES[LIAR].device]


def test_without_a_look_into_the_box_the_accused_would_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: whoever complains is believed."""
    monkeypatch.setattr("fa_core.secagg.complaint.shares_in", lambda *_: None)
    made = bench(tmp_path, FalseAccuser).run()
    (left_out,) = made.server.left_out
    assert left_out != LIAR
    assert kept(tmp_path) == [IDENTITIES[left_out].device]


def test_who_accuses_and_shows_another_secret_proves_nothing_and_is_left_out(tmp_path: Path) -> None:
    made = bench(tmp_path, Swindler).run()
    assert made.server.left_out == {LIAR}
    assert kept(tmp_path) == []


def test_an_accuser_that_is_lost_is_not_at_fault_where_others_prove_the_same(tmp_path: Path) -> None:
    made = bench(tmp_path, Garbage).run({Stage.DISPUTE: {5, 6}})
    assert made.server.left_out == {LIAR}
    alone = bench(tmp_path / "alone", Garbage).run({Stage.DISPUTE: set(range(N)) - {5}})
    assert alone.server.left_out == {LIAR}
    nobody = bench(tmp_path / "nobody", Garbage).run({Stage.DISPUTE: set(range(N))})
    assert nobody.server.left_out == set(range(N)) - {LIAR}


def test_two_liars_are_found_at_once(tmp_path: Path) -> None:
    """Each of eight accusers names one of two at random: one of them alone with probability 2^-7 at most.

    Both lie to each other, too. Over eight rounds all of them miss one with probability 2^-56.
    """
    for case in range(8):
        made = bench(tmp_path / str(case), Garbage)
        made.parties[7].__class__ = Garbage
        made.run()
        assert made.server.left_out
        assert made.server.left_out <= {LIAR, 7}
        if made.server.left_out == {LIAR, 7}:
            return
    pytest.fail("never both at once")


def test_a_key_off_the_curve_is_no_way_out(tmp_path: Path) -> None:
    """X25519 takes a point of the twist, on which no proof can be made; then the accused lied in any case."""

    class Twisted(Garbage):
        __slots__ = ()

        def _join(self, request: bytes) -> bytes:
            super()._join(request)
            assert self._keys is not None
            off = next(u for u in range(2, 50) if not on_curve(u.to_bytes(32, "little")))
            public = off.to_bytes(32, "little"), self._keys.record.mask_key
            record = make_record(self._identity, self._task.session, *public)
            self._keys = replace(self._keys, record=record)
            return messages.join_reply(self._task.session, record.encode())

    made = bench(tmp_path, Twisted).run()
    assert made.server.left_out == {LIAR}
    assert kept(tmp_path) == [IDENTITIES[LIAR].device]


# --- what a device does after a complaint, and without one ------------------------------------------------


def test_who_complained_masks_nothing_in_this_attempt(tmp_path: Path) -> None:
    made = bench(tmp_path, Garbage).run(until=Stage.DISPUTE)
    accuser = next(iter(made.server.requests()))
    request = messages.masked_request(TASK.session)
    assert refused(made.parties[accuser], Stage.MASKED, request) is Reason.COMPLAINED
    made.parties[accuser].dispute(made.server.requests()[accuser])
    assert refused(made.parties[accuser], Stage.MASKED, request) is Reason.COMPLAINED
    assert made.asked == {}
    assert made.parties[accuser]._keys is None


def test_who_did_not_complain_opens_nothing(tmp_path: Path) -> None:
    made = lab.make(tmp_path, N).run(until=Stage.MASKED)
    party, around = made.parties[0], made.server._neighbours[0]
    evidence = messages.dispute_request(TASK.session, dealt_of(made, int(around[0])))
    assert refused(party, Stage.DISPUTE, evidence) is Reason.OUT_OF_ORDER
    made.run(until=Stage.UNMASK)
    assert refused(party, Stage.DISPUTE, evidence) is Reason.OUT_OF_ORDER
    made.run()
    assert refused(party, Stage.DISPUTE, evidence) is Reason.OUT_OF_ORDER


def dealt_of(made: Lab, dealer: int) -> messages.Dealt:
    """What a party dealt, as it answered."""
    _, reply = made.parties[dealer]._answers[Stage.SHARES]
    return messages.read_shares_reply(TASK.session, reply, made.server._parameters.neighbours)


# --- a server that lies about a complaint -----------------------------------------------------------------


VICTIM = 0


def frame(made: Lab, honest_evidence: bool) -> attacks.Opened:
    """Spoil every box that the victim dealt on its way, and ask those who complain to open.

    The victim's own boxes are whole, so it masks in this attempt. With the secrets that it shares with t
    neighbours both its own are open, and its vector with them.
    """
    made.run(until=Stage.CONFIRM)
    server = made.server
    k, around = server._parameters.neighbours, server._neighbours
    dealt = dealt_of(made, VICTIM)
    openings: dict[int, bytes] = {}
    for i, request in server.requests().items():
        if i == VICTIM:
            made.parties[i].confirm(request)
            vector = made.parties[i].masked(messages.masked_request(TASK.session))
            continue
        who, boxes = messages.read_confirm_request(TASK.session, request, N)
        slot = around[i].tolist().index(VICTIM)
        boxes[slot] = bytes(messages.SEALED_SIZE)
        spoiled = np.frombuffer(b"".join(boxes), dtype=np.uint8)
        reply = made.parties[i].confirm(messages.confirm_request(TASK.session, who, spoiled))
        assert messages.read_count(messages.Kind.CONFIRM_REPLY, TASK.session, reply) == slot
        shown = dealt if honest_evidence else replace(dealt, sealed=np.zeros_like(dealt.sealed))
        with suppress(Refusal):
            answer = made.parties[i].dispute(messages.dispute_request(TASK.session, shown))
            openings[i] = messages.read_dispute_reply(TASK.session, answer)
    view = attacks.of_server(made, {VICTIM: vector[36:]})
    back = mirror(k)
    for i, opening in openings.items():
        slot = around[i].tolist().index(VICTIM)
        one, other = server._records[i], server._records[VICTIM]
        secret = opened(one.share_key, other.share_key, server._hash, opening)
        assert secret is not None
        key = keys.share_key(secret, TASK.session, other.device, one.device)
        pair = shares_in(key, dealt.sealed[back[slot]].tobytes())
        assert pair is not None
        view.points["seed"][VICTIM, back[slot]], view.points["key"][VICTIM, back[slot]] = pair
    view.commitments[VICTIM] = dealt.commitment
    private = view.secret("key", VICTIM)
    return {} if private is None else {VICTIM: lower(attacks.without_pair_masks(view, VICTIM, private))}


@pytest.mark.parametrize("honest_evidence", [True, False])
def test_a_server_that_spoils_boxes_gets_nothing_opened(tmp_path: Path, honest_evidence: bool) -> None:
    made = lab.make(tmp_path, N)
    assert frame(made, honest_evidence) == {}
    evidence = messages.dispute_request(TASK.session, dealt_of(made, VICTIM))
    assert refused(made.parties[5], Stage.DISPUTE, evidence) is Reason.BOX_OPENS
    evidence = evidence[:-1] + bytes([evidence[-1] ^ 1])
    assert refused(made.parties[5], Stage.DISPUTE, evidence) is Reason.BOX_NOT_SIGNED


def test_where_complaints_are_opened_without_a_look_the_server_reads_a_vector(tmp_path: Path) -> None:
    """The control: in an attempt that went on to `masked` for the victim, its counts are read."""
    made = lab.make(tmp_path, N, party=Gullible)
    read = frame(made, honest_evidence=True)
    assert np.array_equal(read[VICTIM], made.vectors[VICTIM])


# --- what an opening opens --------------------------------------------------------------------------------


def boxes(made: Lab) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(dealer, receiver, session, box) of all that was dealt in an attempt."""
    for dealer in range(N):
        _, reply = made.parties[dealer]._answers[Stage.SHARES]
        k = made.server._parameters.neighbours
        dealt = messages.read_shares_reply(made.task.session, reply, k)
        for slot, receiver in enumerate(made.server._neighbours[dealer].tolist()):
            yield dealer, receiver, made.task.session, dealt.sealed[slot].tobytes()


def opens(made: Lab, secrets: list[bytes]) -> set[tuple[int, int]]:
    """(dealer, receiver) of the boxes that some of these secrets open."""
    found = set()
    records = made.server._records
    for dealer, receiver, session, box in boxes(made):
        for secret in secrets:
            key = keys.share_key(secret, session, records[dealer].device, records[receiver].device)
            with suppress(InvalidTag):
                keys.unseal(key, box)
                found.add((dealer, receiver))
    return found


def test_an_opening_opens_what_the_liar_has_and_nothing_else(tmp_path: Path) -> None:
    made = bench(tmp_path, Garbage).run(until=Stage.DISPUTE)
    accuser = next(iter(made.server.requests()))
    record = {i: made.server._records[i] for i in (accuser, LIAR)}
    own_key = made.parties[accuser]._keys
    assert own_key is not None
    reply = made.parties[accuser].dispute(made.server.requests()[accuser])
    opening = messages.read_dispute_reply(TASK.session, reply)
    secret = opened(record[accuser].share_key, record[LIAR].share_key, made.server._hash, opening)
    assert secret is not None
    # The one box that opens is the one which the liar received, and it has its content already.
    assert opens(made, [secret]) == {(accuser, LIAR)}
    other = again(tmp_path / "next", set()).run()
    assert opens(other, [secret]) == set()
    pair_masks = {keys.agree(own_key.mask, each.mask_key) for each in made.server._records}
    assert secret not in pair_masks
    # The control: the accuser's round key opens all that it was dealt, and all that it dealt itself.
    peers = (each.share_key for i, each in enumerate(made.server._records) if i != accuser)
    all_of_it = [own_key.share.exchange(X25519PublicKey.from_public_bytes(each)) for each in peers]
    assert len(opens(made, all_of_it)) == 2 * (N - 1) - 1


# --- the witness ------------------------------------------------------------------------------------------


def complained(journal: Path) -> tuple[Lab, bytes]:
    """A bench after a liar was found, and the complaint that the witness was shown."""
    made = bench(journal, Garbage).run()
    (file,) = journal.glob("*-complaint-*")
    return made, file.read_bytes()[32:]


def test_the_witness_signs_no_survivors_for_an_attempt_that_was_complained_of(tmp_path: Path) -> None:
    made, _ = complained(tmp_path)
    request = messages.survivors_request(TASK, flags(N), flags(N))
    for witness in (made.witness, heard(tmp_path, made)):
        with pytest.raises(Refused, match="given up for a complaint"):
            witness.sign_survivors(request)


def test_a_witness_that_heard_no_complaint_signs_them(tmp_path: Path) -> None:
    """The control."""
    made, _ = complained(tmp_path)
    for file in tmp_path.glob("*-complaint-*"):
        file.unlink()
    made.witness.sign_survivors(messages.survivors_request(TASK, flags(N), flags(N)))


def test_the_witness_signs_no_later_roster_with_the_liar(tmp_path: Path) -> None:
    made, _ = complained(tmp_path)
    everybody = [lab.fresh_record(identity, NEXT) for identity in IDENTITIES[:N]]
    without = [record for i, record in enumerate(everybody) if i != LIAR]
    with pytest.raises(Refused, match="dealt garbage in this release"):
        heard(tmp_path, made).sign_roster(messages.roster_request(NEXT, b"", everybody))
    other = replace(NEXT, release=bytes(16))  # another release is not concerned
    others = [lab.fresh_record(identity, other) for identity in IDENTITIES[:N]]
    made.witness.sign_roster(messages.roster_request(other, b"", others))
    made.witness.sign_roster(messages.roster_request(NEXT, b"", without))


def test_the_witness_takes_a_complaint_twice_and_names_the_same_device(tmp_path: Path) -> None:
    made, request = complained(tmp_path)
    for witness in (made.witness, heard(tmp_path, made)):
        reply = witness.record_complaint(request)
        assert messages.read_complaint_reply(TASK.session, reply) == IDENTITIES[LIAR].device
    assert len(kept(tmp_path)) == 1


def test_the_witness_hears_nothing_that_proves_nothing(tmp_path: Path) -> None:
    made, request = complained(tmp_path)
    task, complaint = messages.read_complaint_request(request)
    swapped = replace(
        complaint,
        accuser=complaint.accused,
        accuser_index=complaint.accused_index,
        accused=complaint.accuser,
        accused_index=complaint.accuser_index,
    )
    elsewhere = replace(complaint, accused_index=(complaint.accused_index + 1) % N)
    spoiled = replace(complaint, opening=bytes(96))
    unsigned = replace(complaint, dealt=replace(complaint.dealt, signature=bytes(64)))
    fewer = replace(complaint, dealt=replace(complaint.dealt, sealed=complaint.dealt.sealed[1:]))
    beyond = replace(complaint, accuser_index=2**32 - 1)
    for wrong in (swapped, elsewhere, spoiled, unsigned, fewer, beyond):
        with pytest.raises(Refused, match="proves nothing"):
            made.witness.record_complaint(messages.complaint_request(task, wrong))
    with pytest.raises(Refused, match="no roster"):
        made.witness.record_complaint(messages.complaint_request(NEXT, complaint))
    for cut in (request[:-1], request + b"\x00", request[:300], request[:36]):
        with pytest.raises(Refused, match="cannot read"):
            made.witness.record_complaint(cut)


def test_the_witness_hears_no_complaint_once_survivors_are_signed(tmp_path: Path) -> None:
    made, request = complained(tmp_path)
    for file in tmp_path.glob("*-complaint-*"):
        file.unlink()
    made.witness.sign_survivors(messages.survivors_request(TASK, flags(N), flags(N)))
    with pytest.raises(Refused, match="after the survivors"):
        made.witness.record_complaint(request)


def test_a_false_complaint_is_written_against_the_accuser(tmp_path: Path) -> None:
    made = bench(tmp_path, FalseAccuser).run()
    (file,) = tmp_path.glob("*-complaint-*")
    reply = heard(tmp_path, made).record_complaint(file.read_bytes()[32:])
    assert messages.read_complaint_reply(TASK.session, reply) == IDENTITIES[LIAR].device


# --- residues that are no shares: what a complaint cannot find ---------------------------------------------


class Forger(Garbage):
    """Seals residues that lie on no polynomial: every box opens, and no secret does."""

    __slots__ = ()

    def _box(self, slot: int) -> bytes:
        assert self._keys is not None
        assert self._cohort is not None
        peer, own = self._cohort.records[slot], self._keys.record.device
        secret = keys.agree(self._keys.share, peer.share_key)
        row = np.random.default_rng(slot).integers(0, shamir.PRIME, 2 * shamir.LIMBS).astype("<u4")
        return keys.seal(keys.share_key(secret, self._task.session, own, peer.device), row.tobytes())


def test_well_formed_shares_of_no_secret_still_break_the_round(tmp_path: Path) -> None:
    """docs/threat-model.md says so; no receiver can see it alone."""
    made = bench(tmp_path, Forger)
    with pytest.raises(RoundFailure, match="wrong shares came back"):
        made.run()

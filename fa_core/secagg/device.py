"""The device's half of the protocol: five answers, each given once, and every reason to give none.

The device trusts the enrolment authority and the witness, not the server. It looks at everything that the
server says before it answers, it computes its vector only when the roster is known to be whole and the
shares of its neighbours open, and it opens masks for one signed set of survivors only. Where a share does not
open it complains, masks nothing in this attempt, and shows who lied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from secrets import SystemRandom, token_bytes

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fa_core.merkle import leaf_hash, verify_inclusion
from fa_core.secagg import keys, messages, shamir
from fa_core.secagg.complaint import dealt_by, dealt_message, shares_in, shares_in_all
from fa_core.secagg.graph import mirror, neighbours_of
from fa_core.secagg.identity import DeviceIdentity, Record, Trust, make_record, signed
from fa_core.secagg.masks import Masker, lift
from fa_core.secagg.messages import (
    NO_COMPLAINT,
    Dealt,
    Flags,
    Kind,
    Malformed,
    Member,
    OtherSession,
    SharesRequest,
)
from fa_core.secagg.opened_secret import OPENING_SIZE, on_curve, open_secret
from fa_core.secagg.pairs import Pairing, RoundKeys, pair_keys
from fa_core.secagg.parameters import Parameters, choose
from fa_core.secagg.task import Reason, Refusal, Stage, Task

_BEFORE = {
    Stage.SHARES: Stage.JOIN,
    Stage.CONFIRM: Stage.SHARES,
    Stage.MASKED: Stage.CONFIRM,
    Stage.UNMASK: Stage.MASKED,
    Stage.DISPUTE: Stage.CONFIRM,
}
"""The stage that must have been answered before another is."""


def commitment_to(seed: bytes, release: bytes, device: bytes) -> bytes:
    """SHA-256(b ‖ release ‖ device): what a device signs of its self mask's seed."""
    return sha256(seed + release + device).digest()


@dataclass(frozen=True, repr=False, slots=True)
class _Cohort:
    """What `shares` established, in slot order where it is a list."""

    parameters: Parameters
    roster_hash: bytes
    index: int
    neighbours: NDArray[np.int64]
    records: tuple[Record, ...]
    seed: bytes
    opening_keys: tuple[bytes, ...]
    mask_keys: tuple[bytes, ...]
    adds: tuple[bool, ...]


@dataclass(frozen=True, repr=False, slots=True)
class _Received:
    """What `confirm` brought: who dealt shares (by roster index and by slot), and their shares.

    `shares` is uint32 (k, 2, 9), `MISSING` where there are none; `complaint` is the slot complained of.
    """

    dealt: Flags
    present: Flags
    shares: NDArray[np.uint32]
    complaint: int


class DeviceParty:
    """One device in one round. Drive it with the server's requests, in order; see the package for an example.

    `contribute(n)` is called once, at `masked`, with the number of devices on the signed roster, and returns
    the vector to be summed: int64 of shape (task.length,), already bounded, scaled and noised. Whatever it
    raises goes through, and the party answers nothing new afterwards. `pairing` agrees on keys: a process
    that plays many devices hands in one that computes those of a pair once for both.

    Each stage raises `Refusal` with a fixed code and leaves the party as it was. A request that was answered
    gets the same bytes again; another request of an answered stage is refused.
    """

    __slots__ = (
        "_answers",
        "_cohort",
        "_complained",
        "_contribute",
        "_identity",
        "_keys",
        "_pairing",
        "_received",
        "_task",
        "_trust",
    )

    def __init__(
        self,
        task: Task,
        identity: DeviceIdentity,
        trust: Trust,
        contribute: Callable[[int], NDArray[np.int64]],
        pairing: Pairing = pair_keys,
    ) -> None:
        self._task = task
        self._identity = identity
        self._trust = trust
        self._pairing = pairing
        self._contribute: Callable[[int], NDArray[np.int64]] | None = contribute
        self._answers: dict[Stage, tuple[bytes, bytes]] = {}
        self._keys: RoundKeys | None = None
        self._cohort: _Cohort | None = None
        self._received: _Received | None = None
        self._complained = False

    def join(self, request: bytes) -> bytes:
        """The task, checked against the one agreed -> this device's certified round keys."""
        return self._once(Stage.JOIN, request, self._join)

    def shares(self, request: bytes) -> bytes:
        """The signed roster and the neighbours' keys -> sealed shares of both secrets."""
        return self._once(Stage.SHARES, request, self._shares)

    def confirm(self, request: bytes) -> bytes:
        """The neighbours' sealed shares -> that all of them open, or the slot of one that does not."""
        return self._once(Stage.CONFIRM, request, self._confirm)

    def dispute(self, request: bytes) -> bytes:
        """What the accused signed -> the secret shared with it and the proof, after a complaint only."""
        return self._once(Stage.DISPUTE, request, self._dispute)

    def masked(self, request: bytes) -> bytes:
        """That nobody complained -> the masked vector."""
        return self._once(Stage.MASKED, request, self._masked)

    def unmask(self, request: bytes) -> bytes:
        """The signed survivors -> a share of each neighbour: of b if it survived, else of its mask key."""
        return self._once(Stage.UNMASK, request, self._unmask)

    def _once(self, stage: Stage, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        digest = sha256(request).digest()
        if stage in self._answers:
            before, reply = self._answers[stage]
            if before != digest:
                raise Refusal(Reason.DIFFERENT_REQUEST)
            return reply
        if stage in _BEFORE and _BEFORE[stage] not in self._answers:
            raise Refusal(Reason.OUT_OF_ORDER)
        if stage is Stage.MASKED and self._complained:
            raise Refusal(Reason.COMPLAINED)
        if stage is Stage.DISPUTE and not self._complained:
            raise Refusal(Reason.OUT_OF_ORDER)
        try:
            reply = answer(request)
        except OtherSession:
            raise Refusal(Reason.WRONG_TASK) from None
        except Malformed:
            raise Refusal(Reason.MALFORMED) from None
        self._answers[stage] = (digest, reply)
        return reply

    def _join(self, request: bytes) -> bytes:
        if messages.read_join_request(request) != self._task or (
            self._identity.population != self._task.population
        ):
            raise Refusal(Reason.WRONG_TASK)
        share, mask = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        public = (share.public_key().public_bytes_raw(), mask.public_key().public_bytes_raw())
        record = make_record(self._identity, self._task.session, *public)
        self._keys = RoundKeys(record, share, mask)
        return messages.join_reply(self._task.session, record.encode())

    def _shares(self, request: bytes) -> bytes:
        assert self._keys is not None
        asked = messages.read_shares_request(self._task.session, request)
        parameters = self._check_roster(asked)
        roster_hash = asked.roster.hash(self._task)
        neighbours = neighbours_of(asked.index, roster_hash, parameters.devices, parameters.neighbours)
        records = self._check_neighbours(asked, neighbours)
        seed = token_bytes(shamir.SECRET_SIZE)
        pairs = self._pairing(self._keys, records, self._task.session)
        rows = shamir.share(
            (seed, self._keys.mask.private_bytes_raw()), parameters.neighbours, parameters.threshold
        ).astype("<u4")
        sealed = [keys.seal(key, row.tobytes()) for key, row in zip(pairs.sealing, rows, strict=True)]
        commitment = commitment_to(seed, self._task.release, self._keys.record.device)
        signature = self._identity.key.sign(dealt_message(roster_hash, commitment, b"".join(sealed)))
        self._cohort = _Cohort(
            parameters,
            roster_hash,
            asked.index,
            neighbours,
            tuple(records),
            seed,
            pairs.opening,
            pairs.mask,
            tuple(self._keys.record.device < record.device for record in records),
        )
        boxes = np.frombuffer(b"".join(sealed), dtype=np.uint8).reshape(len(sealed), -1)
        return messages.shares_reply(self._task.session, Dealt(commitment, signature, boxes))

    def _check_roster(self, asked: SharesRequest) -> Parameters:
        """The witness signed it, it is large enough, and this device is where the server says."""
        assert self._keys is not None
        roster = asked.roster
        if not signed(roster.signature, roster.message(self._task), self._trust.witness):
            raise Refusal(Reason.UNSIGNED_ROSTER)
        if roster.devices < max(self._task.min_devices, self._trust.min_devices):
            raise Refusal(Reason.COHORT_TOO_SMALL)
        parameters = choose(roster.devices, self._task.dropout, self._task.corrupt)
        if parameters is None:
            raise Refusal(Reason.NO_PARAMETERS)
        own = leaf_hash(self._keys.record.encode())
        if not verify_inclusion(own, asked.index, roster.devices, asked.proof, roster.root):
            raise Refusal(Reason.NOT_IN_ROSTER)
        return parameters

    def _check_neighbours(self, asked: SharesRequest, neighbours: NDArray[np.int64]) -> list[Record]:
        """They are the ones that the roster's order gives this device, each certified, and all different."""
        assert self._keys is not None
        if len(asked.neighbours) != len(neighbours):
            raise Refusal(Reason.MALFORMED)
        records = [Record.decode(member.record) for member in asked.neighbours]
        names = [name for record in records for name in _names(record)]
        known = set(names)
        if not known.isdisjoint(_names(self._keys.record)):
            raise Refusal(Reason.OWN_KEY)
        if len(known) < len(names):
            raise Refusal(Reason.REPEATED_KEY)
        for member, index in zip(asked.neighbours, neighbours.tolist(), strict=True):
            if not _on_roster(member, index, asked.roster.devices, asked.roster.root):
                raise Refusal(Reason.NEIGHBOUR_NOT_IN_ROSTER)
        task, authority = self._task, self._trust.authority
        if not all(record.valid(task.session, authority, task.population) for record in records):
            raise Refusal(Reason.UNCERTIFIED_KEY)
        return records

    def _confirm(self, request: bytes) -> bytes:
        assert self._cohort is not None
        cohort = self._cohort
        dealt, sealed = messages.read_confirm_request(self._task.session, request, cohort.parameters.devices)
        present = dealt[cohort.neighbours]
        if len(sealed) != int(present.sum()):
            raise Refusal(Reason.MALFORMED)
        least = max(cohort.parameters.survivors, self._task.min_devices, self._trust.min_devices)
        if int(dealt.sum()) < least:
            raise Refusal(Reason.TOO_FEW_SURVIVORS)
        if not dealt[cohort.index]:
            raise Refusal(Reason.NOT_A_SURVIVOR)
        if len(sealed) < cohort.parameters.threshold:
            raise Refusal(Reason.TOO_FEW_NEIGHBOURS)
        shares = np.full((len(present), 2, shamir.LIMBS), shamir.MISSING, dtype=np.uint32)
        slots = np.flatnonzero(present)
        shares[slots] = shares_in_all([cohort.opening_keys[slot] for slot in slots.tolist()], sealed)
        spoiled = slots[shares[slots, 0, 0] == shamir.MISSING].tolist()
        # Any of them: where several lie at once, the complaints of a cohort then name them all.
        complaint = SystemRandom().choice(spoiled) if spoiled else NO_COMPLAINT
        self._received = _Received(dealt, present, shares, complaint)
        self._complained = bool(spoiled)
        return messages.count_message(Kind.CONFIRM_REPLY, self._task.session, complaint)

    def _dispute(self, request: bytes) -> bytes:
        assert self._cohort is not None
        assert self._keys is not None
        assert self._received is not None
        cohort, slot, k = self._cohort, self._received.complaint, self._cohort.parameters.neighbours
        dealt = messages.read_dispute_request(self._task.session, request, k)
        accused = cohort.records[slot]
        if not dealt_by(dealt, cohort.roster_hash, accused.device):
            raise Refusal(Reason.BOX_NOT_SIGNED)
        # What an honest neighbour signed opens. Only a liar's box does not, and the liar knows this secret.
        if shares_in(cohort.opening_keys[slot], dealt.sealed[mirror(k)[slot]].tobytes()) is not None:
            raise Refusal(Reason.BOX_OPENS)
        opening = bytes(OPENING_SIZE)
        if on_curve(accused.share_key):
            opening = open_secret(self._keys.share, accused.share_key, cohort.roster_hash)
        self._forget()
        return messages.dispute_reply(self._task.session, opening)

    def _masked(self, request: bytes) -> bytes:
        assert self._cohort is not None
        assert self._keys is not None
        assert self._received is not None
        cohort = self._cohort
        messages.read_masked_request(self._task.session, request)
        contribute, self._contribute = self._contribute, None
        if contribute is None:
            raise Refusal(Reason.OUT_OF_ORDER)
        values = contribute(cohort.parameters.devices)
        if values.shape != (self._task.length,) or values.dtype != np.int64:
            raise ValueError(f"a contribution has shape ({self._task.length},) and dtype int64")
        vector = lift(values, self._task.bits)
        masker = Masker(vector)
        masker.apply(keys.self_mask_key(cohort.seed, self._task.session, self._keys.record.device))
        for slot in np.flatnonzero(self._received.present).tolist():
            masker.apply(cohort.mask_keys[slot], subtract=not cohort.adds[slot])
        return messages.masked_reply(self._task.session, vector)

    def _unmask(self, request: bytes) -> bytes:
        assert self._cohort is not None
        assert self._received is not None
        cohort, received, parameters = self._cohort, self._received, self._cohort.parameters
        survivors, signature = messages.read_unmask_request(self._task.session, request, parameters.devices)
        if not signed(
            signature,
            messages.survivors_message(cohort.roster_hash, received.dealt, survivors),
            self._trust.witness,
        ):
            raise Refusal(Reason.UNSIGNED_SURVIVORS)
        if int(survivors.sum()) < max(parameters.survivors, self._task.min_devices, self._trust.min_devices):
            raise Refusal(Reason.TOO_FEW_SURVIVORS)
        if not survivors[cohort.index]:
            raise Refusal(Reason.NOT_A_SURVIVOR)
        alive = survivors[cohort.neighbours]
        if int((alive & received.present).sum()) < parameters.threshold:
            raise Refusal(Reason.TOO_FEW_NEIGHBOURS)
        shares = np.where(alive[:, None], received.shares[:, 0], received.shares[:, 1])
        self._forget()
        return messages.unmask_reply(self._task.session, shares)

    def _forget(self) -> None:
        self._keys = self._cohort = self._received = self._contribute = None


@lru_cache(maxsize=1 << 14)
def _on_roster(member: Member, index: int, devices: int, root: bytes) -> bool:
    """Whether a record is at an index of the roster. Remembered, since all of its neighbours in a hub ask."""
    return verify_inclusion(leaf_hash(member.record), index, devices, member.proof, root)


def _names(record: Record) -> tuple[bytes, bytes, bytes]:
    """The three public keys of a record: none of them may occur twice among the devices that one sees."""
    return record.device, record.share_key, record.mask_key

"""The server's half of the protocol: it passes messages on, and learns one sum.

A driver asks for the `requests()` of the current stage, sends them, and hands back whatever replies came in
time. A reply that is missing, malformed or forged counts as missing. After each stage at least ⌈(1 − f)n⌉
of the roster must still be there, or the round fails; once `unmask` is received, `result` is the exact sum
of all who sent a masked vector. A complaint at `confirm` ends the attempt before anything was masked: then
`left_out` says who is at fault, and the driver may begin the next attempt without them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fa_core.merkle import Tree, leaf_hash
from fa_core.secagg import messages
from fa_core.secagg.complaint import accused_lied, dealt_by
from fa_core.secagg.graph import mirror, neighbours_of
from fa_core.secagg.identity import Record
from fa_core.secagg.masks import lower
from fa_core.secagg.messages import NO_COMPLAINT, Complaint, Dealt, Flags, Kind, Malformed, Member, Roster
from fa_core.secagg.parameters import Parameters, choose, smallest_cohort
from fa_core.secagg.shamir import LIMBS, MISSING
from fa_core.secagg.task import RoundFailure, Stage, Task
from fa_core.secagg.unmask import Opening, unmask


class Witness(Protocol):
    """Signs one roster and one survivor bitmap for each release and attempt (fa_core/trust/witness.py)."""

    def sign_roster(self, request: bytes) -> bytes: ...
    def sign_survivors(self, request: bytes) -> bytes: ...
    def record_complaint(self, request: bytes) -> bytes: ...


@dataclass(frozen=True)
class Result:
    """The end of a round. `total`: int64 of shape (length,), the sum over the nodes in `counted`.

    `missing`: how many devices of those still expected gave no valid reply, by stage.
    """

    total: NDArray[np.int64]
    joined: int
    counted: tuple[int, ...]
    missing: Mapping[Stage, int]


class _Requests(Mapping[int, bytes]):
    """One request a node, made when it is asked for: all of them together would not fit a small server."""

    def __init__(self, nodes: Mapping[int, int], make: Callable[[int], bytes]) -> None:
        self._nodes = nodes
        self._make = make

    def __getitem__(self, node: int) -> bytes:
        return self._make(self._nodes[node])

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class Server:
    """One round. `nodes` are the transport's numbers of the devices that are invited.

    `authority` is the enrolment authority's public key; `charge` shows the witness that the round is charged
    (`fa_core/trust/charges.py`). `stage` is the one whose `requests()` are to be sent, None when the round is
    over. `quorum` is the least number of replies with which the stage can succeed.
    """

    def __init__(
        self, task: Task, authority: bytes, witness: Witness, nodes: Iterable[int], charge: bytes = b""
    ) -> None:
        self._task = task
        self._authority = authority
        self._witness = witness
        self._charge = charge
        self._stage: Stage | None = Stage.JOIN
        self._missing: dict[Stage, int] = {}
        invited = tuple(dict.fromkeys(nodes))
        self._asked: Mapping[int, int] = {node: i for i, node in enumerate(invited)}
        join = messages.join_request(task)
        self._make: Callable[[int], bytes] = lambda _: join
        self._result: Result | None = None
        self._commitments: dict[int, bytes] = {}
        self._complaints: dict[int, int] = {}
        self._left_out: frozenset[int] = frozenset()

    @property
    def stage(self) -> Stage | None:
        """The stage to drive now."""
        return self._stage

    @property
    def quorum(self) -> int:
        """The least number of replies with which this stage can succeed; a driver may wait for more."""
        if self._stage is Stage.DISPUTE:
            return 0
        return self._task.min_devices if self._stage is Stage.JOIN else self._needed(self._stage)

    def _needed(self, stage: Stage | None) -> int:
        """How many must remain: the smallest cohort binds who is summed, not who then opens the sum."""
        survivors = self._parameters.survivors
        return survivors if stage is Stage.UNMASK else max(survivors, self._task.min_devices)

    @property
    def joined(self) -> int:
        """How many devices are on the signed roster; 0 before there is one."""
        return 0 if self._stage is Stage.JOIN else self._parameters.devices

    @property
    def result(self) -> Result:
        """The sum. RuntimeError before the round has ended in one."""
        if self._result is None:
            raise RuntimeError("the round has not ended in a sum")
        return self._result

    @property
    def left_out(self) -> frozenset[int]:
        """Nodes that complaints show to be at fault. Where there are any, the attempt ended without a sum."""
        return self._left_out

    def requests(self) -> Mapping[int, bytes]:
        """The request of this stage for each node that is still in. Made on access; the same each time."""
        return _Requests(self._asked, self._make)

    def receive(self, replies: Mapping[int, bytes]) -> None:
        """Take the replies of this stage, by node, and go on. RoundFailure when the round cannot succeed."""
        handle = {
            Stage.JOIN: self._receive_join,
            Stage.SHARES: self._receive_shares,
            Stage.CONFIRM: self._receive_confirm,
            Stage.DISPUTE: self._receive_dispute,
            Stage.MASKED: self._receive_masked,
            Stage.UNMASK: self._receive_unmask,
        }
        if self._stage is None:
            raise RuntimeError("the round is over")
        stage, self._stage = self._stage, None
        handle[stage]({node: replies[node] for node in self._asked if node in replies})

    def _receive_join(self, replies: Mapping[int, bytes]) -> None:
        records: dict[int, bytes] = {}
        names: set[bytes] = set()
        for node, reply in replies.items():
            record = self._record(reply)
            if record is None or names & (new := {record.device, record.share_key, record.mask_key}):
                continue
            names |= new
            records[node] = record.encode()
        self._missing[Stage.JOIN] = len(self._asked) - len(records)
        self._parameters = self._choose(len(records))
        self._records = [Record.decode(record) for record in records.values()]
        reply = self._witness.sign_roster(
            messages.roster_request(self._task, self._charge, list(records.values()))
        )
        self._roster = messages.read_roster_reply(self._task.session, reply)
        n, k = self._parameters.devices, self._parameters.neighbours
        self._hash = self._roster.hash(self._task)
        self._neighbours = neighbours_of(np.arange(n), self._hash, n, k)
        self._mirror = mirror(k)
        self._nodes = tuple(records)
        self._make = self._shares_requests(self._roster, list(records.values()))
        self._next(Stage.SHARES, np.ones(n, dtype=np.bool_))

    def _record(self, reply: bytes) -> Record | None:
        try:
            record = Record.decode(messages.read_join_reply(self._task.session, reply))
        except Malformed:
            return None
        return record if record.valid(self._task.session, self._authority, self._task.population) else None

    def _choose(self, joined: int) -> Parameters:
        task, missing = self._task, self._missing[Stage.JOIN]
        if joined < task.min_devices:
            text = f"{joined} devices joined ({missing} did not); the plan needs {task.min_devices}"
            raise RoundFailure(Stage.JOIN, missing, text)
        parameters = choose(joined, task.dropout, task.corrupt)
        if parameters is None:
            enough = smallest_cohort(task.dropout, task.corrupt, joined)
            needed = f"the next size that can is {enough}" if enough else "the plan tolerates too much"
            text = (
                f"a cohort of {joined} cannot tolerate {task.dropout} dropouts and {task.corrupt} corrupt"
                f" devices; {needed}"
            )
            raise RoundFailure(Stage.JOIN, missing, text)
        return parameters

    def _shares_requests(self, roster: Roster, records: list[bytes]) -> Callable[[int], bytes]:
        tree = Tree([leaf_hash(record) for record in records])
        proofs = [tree.inclusion(i) for i in range(len(records))]
        self._members = [Member(r, p) for r, p in zip(records, proofs, strict=True)]
        members = [messages.member_bytes(r, p) for r, p in zip(records, proofs, strict=True)]

        def make(i: int) -> bytes:
            around = [members[j] for j in self._neighbours[i].tolist()]
            return messages.shares_request(self._task.session, roster, i, proofs[i], around)

        return make

    def _receive_shares(self, replies: Mapping[int, bytes]) -> None:
        n, k = self._parameters.devices, self._parameters.neighbours
        dealt = np.zeros(n, dtype=np.bool_)
        sealed = np.zeros((n, k, messages.SEALED_SIZE), dtype=np.uint8)
        self._shares: dict[int, Dealt] = {}
        for node, reply in replies.items():
            i = self._asked[node]
            try:
                shares = messages.read_shares_reply(self._task.session, reply, k)
            except Malformed:
                continue
            if dealt_by(shares, self._hash, self._records[i].device):
                dealt[i] = True
                sealed[i] = shares.sealed
                self._shares[i] = Dealt(shares.commitment, shares.signature, sealed[i])
        self._require(Stage.SHARES, dealt)
        self._dealt = dealt

        def make(i: int) -> bytes:
            around = self._neighbours[i]
            present = dealt[around]
            boxes = sealed[around[present], self._mirror[present]]
            return messages.confirm_request(self._task.session, dealt, boxes)

        self._make = make
        self._next(Stage.CONFIRM, dealt)

    def _receive_confirm(self, replies: Mapping[int, bytes]) -> None:
        there = np.zeros(self._parameters.devices, dtype=np.bool_)
        for node, reply in replies.items():
            i = self._asked[node]
            try:
                slot = messages.read_count(Kind.CONFIRM_REPLY, self._task.session, reply)
            except Malformed:
                continue
            if slot == NO_COMPLAINT:
                there[i] = True
            elif slot < self._parameters.neighbours and self._dealt[self._neighbours[i, slot]]:
                there[i] = True
                self._complaints[i] = slot
        self._missing[Stage.CONFIRM] = len(self._asked) - int(there.sum())
        if self._complaints:
            self._make = lambda i: messages.dispute_request(self._task.session, self._accused(i)[1])
            self._next(Stage.DISPUTE, np.isin(np.arange(len(there)), list(self._complaints)))
            return
        self._require(Stage.CONFIRM, there)
        self._commitments = {i: dealt.commitment for i, dealt in self._shares.items()}
        self._shares.clear()
        request = messages.masked_request(self._task.session)
        self._make = lambda _: request
        self._next(Stage.MASKED, there)

    def _accused(self, accuser: int) -> tuple[int, Dealt]:
        """Whom a device complained of, by roster index, and what that one dealt."""
        accused = int(self._neighbours[accuser, self._complaints[accuser]])
        return accused, self._shares[accused]

    def _receive_dispute(self, replies: Mapping[int, bytes]) -> None:
        """End the attempt. Who accuses and proves nothing is at fault, unless another proves the same."""
        liars: set[int] = set()
        unproven: set[int] = set(self._complaints)
        for node, reply in replies.items():
            accuser = self._asked[node]
            accused, dealt = self._accused(accuser)
            if accused in liars:  # one proof is enough, and each takes 50 ms
                continue
            try:
                opening = messages.read_dispute_reply(self._task.session, reply)
            except Malformed:
                continue
            box = dealt.sealed[self._mirror[self._complaints[accuser]]].tobytes()
            one, other = self._records[accuser], self._records[accused]
            verdict = accused_lied(self._task.session, self._hash, one, other, box, opening)
            if verdict is None:
                continue
            unproven.remove(accuser)
            liars.add(accused if verdict else accuser)
            shown = Complaint(
                self._members[accuser], accuser, self._members[accused], accused, dealt, opening
            )
            self._witness.record_complaint(messages.complaint_request(self._task, shown))
        at_fault = liars | {accuser for accuser in unproven if self._accused(accuser)[0] not in liars}
        self._missing[Stage.DISPUTE] = len(self._asked) - len(replies)
        self._left_out = frozenset(self._nodes[i] for i in at_fault)

    def _receive_masked(self, replies: Mapping[int, bytes]) -> None:
        survivors = np.zeros(self._parameters.devices, dtype=np.bool_)
        self._sum = np.zeros(self._task.length, dtype="<u8" if self._task.bits == 64 else "<u4")
        for node, reply in replies.items():
            try:
                vector = messages.read_masked_reply(self._task, reply)
            except Malformed:
                continue
            np.add(self._sum, vector, out=self._sum)
            survivors[self._asked[node]] = True
        self._require(Stage.MASKED, survivors)
        self._survivors = survivors
        reply = self._witness.sign_survivors(messages.survivors_request(self._task, self._dealt, survivors))
        signature = messages.read_survivors_reply(self._task.session, reply)
        request = messages.unmask_request(self._task.session, survivors, signature)
        self._make = lambda _: request
        self._next(Stage.UNMASK, survivors)

    def _receive_unmask(self, replies: Mapping[int, bytes]) -> None:
        n, k = self._parameters.devices, self._parameters.neighbours
        opened = np.zeros(n, dtype=np.bool_)
        shares = np.full((n, k, LIMBS), MISSING, dtype=np.uint32)
        for node, reply in replies.items():
            i = self._asked[node]
            try:
                shares[i] = messages.read_unmask_reply(self._task.session, reply, k)
            except Malformed:
                continue
            opened[i] = True
        self._require(Stage.UNMASK, opened)
        opening = Opening(
            task=self._task,
            parameters=self._parameters,
            records=self._records,
            commitments=self._commitments,
            neighbours=self._neighbours,
            dealt=self._dealt,
            survivors=self._survivors,
        )

        def held(owners: NDArray[np.int64]) -> NDArray[np.uint32]:
            """What the neighbours of these devices sent of them, each in the slot where the device stands."""
            return shares[self._neighbours[owners], self._mirror]

        unmask(self._sum, opening, held)
        counted = tuple(self._nodes[i] for i in np.flatnonzero(self._survivors).tolist())
        self._result = Result(lower(self._sum), n, counted, dict(self._missing))

    def _require(self, stage: Stage, there: Flags) -> None:
        """Count who is missing at this stage; fail below ⌈(1 − f)n⌉."""
        n, needed, left = self._parameters.devices, self._needed(stage), int(there.sum())
        self._missing[stage] = len(self._asked) - left
        if left < needed:
            text = f"{n - left} of {n} devices are missing; at least {needed} must remain"
            raise RoundFailure(stage, n - left, text)

    def _next(self, stage: Stage, who: Flags) -> None:
        self._asked = {self._nodes[i]: i for i in np.flatnonzero(who).tolist()}
        self._stage = stage

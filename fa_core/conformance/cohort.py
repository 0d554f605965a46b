"""The other devices of a round, and a server that keeps to the protocol or breaks it on purpose."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.conformance.adapter import Json
from fa_core.merkle import Tree, leaf_hash
from fa_core.secagg import DeviceIdentity, DeviceParty, Server, Stage, Task, Trust, choose, messages
from fa_core.secagg.complaint import dealt_message
from fa_core.secagg.graph import neighbours_of
from fa_core.secagg.identity import Record, make_record
from fa_core.secagg.messages import Dealt, Flags, Member, Roster, SharesRequest
from fa_core.secagg.parameters import Parameters
from fa_core.secagg.server import Result, Witness
from fa_core.trust.enrolment import Authority
from fa_core.values import Int64Array

NODE: Final = 0
"""The device that is tried; it is asked as the first."""

STRANGER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
"""Signs what an authority or a witness should have signed."""

LATER: Final = MappingProxyType(
    {
        Stage.JOIN: Stage.SHARES,
        Stage.SHARES: Stage.CONFIRM,
        Stage.CONFIRM: Stage.MASKED,
        Stage.MASKED: Stage.UNMASK,
    }
)


@dataclass(frozen=True)
class Step:
    """A request, and the answer that is right: None for any reply that the protocol goes on with.

    `stage` is a `Stage`, or "report" of a collection.
    """

    name: str
    stage: str
    request: bytes
    right: Json | None

    @property
    def question(self) -> Json:
        """The step as the adapter protocol has it."""
        return {"op": "answer", "stage": str(self.stage), "request": self.request.hex()}


Ask = Callable[[Step], Json]
"""Puts a request to the device and returns its answer."""


class Stopped(Exception):
    """The device gave no reply that the round can go on with; in words."""


@dataclass(frozen=True)
class Keys:
    """Who may sign in a round.

    Attributes:
        identities: of all devices, the first one's of the device that is tried; they name `population`.
        spare: a device of the same population that does not join.
    """

    authority: Authority
    witness: Ed25519PrivateKey
    population: str
    identities: Sequence[DeviceIdentity]
    spare: DeviceIdentity


@dataclass(frozen=True)
class Invited:
    """What the device is sent at `join` in place of the bare request, and what it must decline before."""

    invitation: bytes
    declined: Sequence[Step]


class Cohort:
    """One attempt at a round. The others add nothing; `lost` are those who stop before a stage."""

    def __init__(
        self,
        task: Task,
        keys: Keys,
        witness: Witness,
        charge: bytes = b"",
        lost: Mapping[Stage, set[int]] = MappingProxyType({}),
        invited: Invited | None = None,
    ) -> None:
        self.task, self.keys = task, keys
        self._lost, self._invited = lost, invited
        self._replies: dict[Stage, dict[int, bytes]] = {}
        authority = keys.authority.public_key
        trust = Trust(authority, keys.witness.public_key().public_bytes_raw())
        self.parties = {
            node: DeviceParty(task, identity, trust, self._nothing)
            for node, identity in enumerate(keys.identities)
            if node != NODE
        }
        self.server = Server(task, authority, witness, range(len(keys.identities)), charge)
        self.shares: SharesRequest | None = None
        self.dealt: Flags | None = None

    @property
    def result(self) -> Result:
        """The sum, at the end of the round."""
        return self.server.result

    def play(self, ask: Ask, hostile: bool = True) -> None:
        """Drive the round to its end, with what breaks the protocol before and after each right request.

        Raises Stopped where the device gives no right reply, and RoundFailure where the round fails by it.
        """
        while (stage := self.server.stage) is not None:
            right = self.request()
            for step in self.hostile(stage, right) if hostile else ():
                ask(step)
            reply = self.reply(ask, Step(f"{stage}: the right request", stage, right, None))
            if hostile:
                again = {"reply": reply.hex()}
                ask(Step(f"{stage}: the same request again", stage, right, again))
                changed = right[:-1] + bytes([right[-1] ^ 1])
                refused = {"refused": "different_request"}
                ask(Step(f"{stage}: a changed request after it", stage, changed, refused))
            self.receive(reply)

    def reply(self, ask: Ask, step: Step) -> bytes:
        """Ask and return the reply. Raises Stopped where there is none."""
        answer = ask(step)
        try:
            return bytes.fromhex(answer["reply"])
        except (KeyError, TypeError, ValueError):
            raise Stopped(f"no reply to {step.name}") from None

    def request(self) -> bytes:
        """Return the right request of this stage for the device that is tried."""
        requests = self.server.requests()
        if NODE not in requests:
            raise Stopped("the server dropped the device: its last reply did not hold")
        request = requests[NODE]
        if self.server.stage is Stage.JOIN and self._invited is not None:
            return self._invited.invitation
        if self.server.stage is Stage.SHARES:
            self.shares = messages.read_shares_request(self.task.session, request)
        if self.server.stage is Stage.CONFIRM:
            n = len(self.keys.identities)
            self.dealt, _ = messages.read_confirm_request(self.task.session, request, n)
        return request

    def receive(self, reply: bytes) -> None:
        """Have the others answer as well, and the server go on."""
        stage = self.server.stage
        assert stage is not None
        replies = {NODE: reply}
        for node, request in self.server.requests().items():
            if node != NODE and node not in self._lost.get(stage, ()):
                replies[node] = getattr(self.parties[node], stage.value)(request)
        self._replies[stage] = replies
        self.server.receive(replies)

    def _nothing(self, joined: int) -> Int64Array:
        return np.zeros(self.task.length, np.int64)

    # Requests that break the protocol

    def hostile(self, stage: Stage, right: bytes) -> Iterator[Step]:
        """Yield requests that the device must refuse before it answers the right one of a stage."""
        if stage is Stage.JOIN and self._invited is not None:
            yield from self._invited.declined
            return
        if stage in LATER:
            yield self._step(stage, "a later stage's request", right, "out_of_order", LATER[stage])
        yield self._step(
            stage, "cut off", right[:-1] if stage is not Stage.MASKED else right[:35], "malformed"
        )
        yield self._step(stage, "a byte too many", right + b"\0", "malformed")
        foreign = right[:4] + bytes(32) + right[36:]
        yield self._step(stage, "of another session", foreign, "wrong_task")
        makers = {
            Stage.JOIN: self._at_join,
            Stage.SHARES: self._at_shares,
            Stage.CONFIRM: self._at_confirm,
            Stage.UNMASK: self._at_unmask,
        }
        if stage in makers:
            yield from makers[stage](right)

    def _step(self, stage: Stage, name: str, request: bytes, code: str, asked: Stage | None = None) -> Step:
        return Step(f"{stage}: {name}", asked or stage, request, {"refused": code})

    def _at_join(self, right: bytes) -> Iterator[Step]:
        other = messages.join_request(replace(self.task, attempt=self.task.attempt + 1))
        yield self._step(Stage.JOIN, "of another attempt", other, "wrong_task")
        body = bytearray(self.task.encode())
        body[56] = 48
        impossible = messages.wrap(messages.Kind.JOIN_REQUEST, self.task.session, bytes(body))
        yield self._step(Stage.JOIN, "a task that no round can have", impossible, "malformed")

    def _at_shares(self, right: bytes) -> Iterator[Step]:
        asked = messages.read_shares_request(self.task.session, right)
        roster, members = asked.roster, list(asked.neighbours)

        def changed(name: str, code: str, found: SharesRequest) -> Step:
            return self._step(Stage.SHARES, name, self._encoded(found), code)

        def signed(devices: int) -> SharesRequest:
            return replace(asked, roster=self._signed(replace(roster, devices=devices)))

        forged = replace(roster, signature=STRANGER.sign(roster.message(self.task)))
        yield changed(
            "a roster that the witness did not sign", "unsigned_roster", replace(asked, roster=forged)
        )
        yield changed("a cohort too small", "cohort_too_small", signed(self.task.min_devices - 1))
        unworkable = next(
            (
                n
                for n in range(self.task.min_devices, 6)
                if not choose(n, self.task.dropout, self.task.corrupt)
            ),
            None,
        )
        if unworkable is not None:
            yield changed("a cohort without parameters", "no_parameters", signed(unworkable))
        moved = replace(asked, index=(asked.index + 1) % roster.devices)
        yield changed("another one's index", "not_in_roster", moved)
        fewer = replace(asked, neighbours=tuple(members[:-1]))
        yield changed("a neighbour too few", "malformed", fewer)
        yield from self._with_wrong_neighbours(asked, members, changed)

    def _with_wrong_neighbours(
        self,
        asked: SharesRequest,
        members: list[Member],
        changed: Callable[[str, str, SharesRequest], Step],
    ) -> Iterator[Step]:
        own = self._record(NODE)
        echoed = members[0].record[:128] + own[160:192] + members[0].record[160:]
        repeated = members[1].record[:128] + members[0].record[128:160] + members[1].record[160:]
        for name, code, place, record in (
            ("a key of its own", "own_key", 0, echoed),
            ("a key twice", "repeated_key", 1, repeated),
            ("a neighbour that is not in the roster", "neighbour_not_in_roster", 0, self._stranger()),
        ):
            found = list(members)
            found[place] = replace(members[place], record=record)
            yield changed(name, code, replace(asked, neighbours=tuple(found)))
        swapped = (members[1], members[0], *members[2:])
        yield changed(
            "neighbours in the wrong slots", "neighbour_not_in_roster", replace(asked, neighbours=swapped)
        )
        if len(members) == asked.roster.devices - 1:
            for name, record in self._uncertified(members[0].record):
                yield changed(name, "uncertified_key", self._roster_with(asked, record))

    def _record(self, node: int) -> bytes:
        """Return the record with which a device joined."""
        return messages.read_join_reply(self.task.session, self._replies[Stage.JOIN][node])

    def _stranger(self) -> bytes:
        """Return a valid record of a device that did not join."""
        session = self.task.session
        keys = (sha256(session + name).digest() for name in (b"share", b"mask"))
        return make_record(self.keys.spare, session, *keys).encode()

    def _uncertified(self, record: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield records in place of a neighbour's, each wrong in one thing, and put into the roster."""
        found = Record.decode(record)
        identity = next(each for each in self.keys.identities if each.device == found.device)
        session, keys = self.task.session, (found.share_key, found.mask_key)
        other = DeviceIdentity(identity.key, Authority(STRANGER).certify(found.device, self.keys.population))
        yield "a neighbour of another authority", make_record(other, session, *keys).encode()
        abroad = DeviceIdentity(identity.key, self.keys.authority.certify(found.device, "elsewhere"))
        yield "a neighbour of another population", make_record(abroad, session, *keys).encode()
        yield "round keys that their device did not sign", record[:-1] + bytes([record[-1] ^ 1])
        small = (1).to_bytes(32, "little")
        yield "a key of small order", make_record(identity, session, small, found.mask_key).encode()

    def _roster_with(self, asked: SharesRequest, record: bytes) -> SharesRequest:
        """Return the request for a roster that the witness signed with this record in place of a device's."""
        records = [self._record(node) for node in range(asked.roster.devices)]
        place = next(i for i, each in enumerate(records) if each[:32] == record[:32])
        records[place] = record
        tree = Tree([leaf_hash(each) for each in records])
        roster = self._signed(replace(asked.roster, root=tree.root))
        n = len(records)
        slots = neighbours_of(asked.index, roster.hash(self.task), n, len(asked.neighbours)).tolist()
        members = tuple(Member(records[i], tree.inclusion(i)) for i in slots)
        return SharesRequest(roster, asked.index, tree.inclusion(asked.index), members)

    def _at_confirm(self, right: bytes) -> Iterator[Step]:
        assert self.shares is not None
        n, index = self.shares.roster.devices, self.shares.index
        dealt, boxes = messages.read_confirm_request(self.task.session, right, n)
        slots = self._slots()

        def changed(name: str, code: str, who: Flags) -> Step:
            kept, waiting = [], iter(boxes)
            for slot in slots:
                if dealt[slot]:
                    box = next(waiting)
                    kept += [box] if who[slot] else []
            request = messages.wrap(
                messages.Kind.CONFIRM_REQUEST, self.task.session, messages.pack_flags(who) + b"".join(kept)
            )
            return self._step(Stage.CONFIRM, name, request, code)

        yield self._step(Stage.CONFIRM, "a box too few", right[:-88], "malformed")
        past = bytearray(right)
        past[36 + (n - 1) // 8] |= 0x80 if n % 8 else 0
        if n % 8:
            yield self._step(Stage.CONFIRM, "a bitmap with bits past its end", bytes(past), "malformed")
        least = self._parameters().survivors
        few = dealt.copy()
        few[[i for i in np.flatnonzero(dealt).tolist() if i != index][: int(dealt.sum()) - least + 1]] = False
        yield changed("too few dealt", "too_few_survivors", few)
        without = dealt.copy()
        without[index] = False
        if int(dealt.sum()) > least:
            yield changed("it did not deal itself", "not_a_survivor", without)

    def _at_unmask(self, right: bytes) -> Iterator[Step]:
        assert self.shares is not None
        assert self.dealt is not None
        index, dealt = self.shares.index, self.dealt
        alive, _ = messages.read_unmask_request(self.task.session, right, len(dealt))

        def changed(name: str, code: str, who: Flags, dealers: Flags = dealt, forged: bool = False) -> Step:
            roster_hash = self.shares.roster.hash(self.task) if self.shares else b""
            message = messages.survivors_message(roster_hash, dealers, who)
            signature = (STRANGER if forged else self.keys.witness).sign(message)
            request = messages.unmask_request(self.task.session, who, signature)
            return self._step(Stage.UNMASK, name, request, code)

        yield changed("survivors that the witness did not sign", "unsigned_survivors", alive, forged=True)
        everybody = np.ones_like(dealt)
        if not dealt.all():
            yield changed("signed over other dealers", "unsigned_survivors", alive, everybody)
        parameters, slots = self._parameters(), self._slots()
        few = alive.copy()
        excess = int(alive.sum()) - parameters.survivors + 1
        few[[i for i in np.flatnonzero(alive).tolist() if i != index][:excess]] = False
        yield changed("too few survivors", "too_few_survivors", few)
        without = everybody.copy()
        without[index] = False
        yield changed("it did not survive itself", "not_a_survivor", without)
        present = [slot for slot in slots if dealt[slot]]
        lonely = everybody.copy()
        lonely[present[: len(present) - parameters.threshold + 1]] = False
        if int(lonely.sum()) >= parameters.survivors:
            yield changed("too few of its neighbours", "too_few_neighbours", lonely)

    # A complaint

    def complain(self, ask: Ask) -> bytes:
        """Drive the round to a complaint of a box that was changed on its way; return the opening.

        The device must not mask after it, nor open anything but to garbage that the accused signed. Raises
        Stopped where it does not complain, or gives no opening.
        """
        for _ in range(2):
            right = self.request()
            stage = self.server.stage
            assert stage is not None
            self.receive(self.reply(ask, Step(f"{stage}: the right request", stage, right, None)))
        right = self.request()
        assert self.dealt is not None
        spoiled = right[:-88] + bytes(88)
        slot = max(place for place, i in enumerate(self._slots()) if self.dealt[i])
        answer = messages.count_message(messages.Kind.CONFIRM_REPLY, self.task.session, slot)
        yes = Step("confirm: a box that does not open", Stage.CONFIRM, spoiled, {"reply": answer.hex()})
        if self.reply(ask, yes) != answer:
            raise Stopped("no complaint of a box that does not open")
        masked = messages.masked_request(self.task.session)
        ask(Step("masked: after it complained", Stage.MASKED, masked, {"refused": "complained"}))
        dealt = self._dealt_by(slot)
        wrong = replace(dealt, signature=bytes(64))
        for name, found, code in (
            ("dispute: what the accused did not sign", wrong, "box_not_signed"),
            ("dispute: a box that opens", dealt, "box_opens"),
        ):
            request = messages.dispute_request(self.task.session, found)
            ask(Step(name, Stage.DISPUTE, request, {"refused": code}))
        request = messages.dispute_request(self.task.session, self._garbage(slot))
        opening = self.reply(
            ask, Step("dispute: garbage that the accused signed", Stage.DISPUTE, request, None)
        )
        return messages.read_dispute_reply(self.task.session, opening)

    def accuser_and_accused(self) -> tuple[bytes, bytes]:
        """Return the records of a complaint: the device's own, and that of its last neighbour that dealt."""
        assert self.dealt is not None
        accused = [node for node in self._slots() if self.dealt[node]][-1]
        return self._record(NODE), self._record(accused)

    def _dealt_by(self, slot: int) -> Dealt:
        assert self.shares is not None
        reply = self._replies[Stage.SHARES][self._slots()[slot]]
        return messages.read_shares_reply(self.task.session, reply, len(self.shares.neighbours))

    def _garbage(self, slot: int) -> Dealt:
        """Return boxes of zeros with the accused's signature on them."""
        assert self.shares is not None
        accused = self.shares.neighbours[slot].record
        identity = next(each for each in self.keys.identities if each.device == accused[:32])
        dealt = self._dealt_by(slot)
        boxes = np.zeros_like(dealt.sealed)
        roster_hash = self.shares.roster.hash(self.task)
        message = dealt_message(roster_hash, dealt.commitment, boxes.tobytes())
        return replace(dealt, signature=identity.key.sign(message), sealed=boxes)

    # What the right requests say

    def _parameters(self) -> Parameters:
        found = choose(len(self.keys.identities), self.task.dropout, self.task.corrupt)
        assert found is not None
        return found

    def _slots(self) -> list[int]:
        """Return the roster index of the neighbour in each slot."""
        assert self.shares is not None
        roster = self.shares.roster
        k = len(self.shares.neighbours)
        return [int(i) for i in neighbours_of(self.shares.index, roster.hash(self.task), roster.devices, k)]

    def _signed(self, roster: Roster) -> Roster:
        return replace(roster, signature=self.keys.witness.sign(roster.message(self.task)))

    def _encoded(self, found: SharesRequest) -> bytes:
        members = [messages.member_bytes(each.record, each.proof) for each in found.neighbours]
        return messages.shares_request(self.task.session, found.roster, found.index, found.proof, members)

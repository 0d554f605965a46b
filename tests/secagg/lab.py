"""A cohort on a bench: real parties, the keys of every role, and a hand on each message between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fa_core.merkle import Tree, leaf_hash
from fa_core.secagg import DeviceIdentity, DeviceParty, Refusal, Server, Stage, Task, Trust, choose, messages
from fa_core.secagg.graph import neighbours_of
from fa_core.secagg.identity import Record, make_record, population_id
from fa_core.secagg.messages import Roster
from fa_core.trust.enrolment import Authority
from fa_core.trust.witness import Witness

Vectors = NDArray[np.int64]
Tamper = Callable[[Stage, int, bytes], bytes | None]

AUTHORITY = Authority.generate()
POPULATION = "a fleet"
IDENTITIES = [AUTHORITY.enrol(POPULATION) for _ in range(130)]
TASK = Task(
    plan_hash=sha256(b"plan").digest(),
    release=bytes(range(16)),
    attempt=0,
    length=7,
    bits=32,
    dropout=Fraction(1, 5),
    corrupt=Fraction(1, 10),
    min_devices=3,
    population=population_id(POPULATION),
)


def keep(stage: Stage, node: int, message: bytes) -> bytes:
    """Change nothing."""
    return message


class UnchargedWitness(Witness):
    """A witness that signs rosters nobody paid for, for tests of the protocol alone."""

    def _require_charge(self, task: Task, data: bytes) -> None:
        pass


@dataclass
class Lab:
    """n parties and a server that have not spoken yet."""

    task: Task
    witness_key: Ed25519PrivateKey
    witness: Witness
    trust: Trust
    parties: dict[int, DeviceParty]
    server: Server
    vectors: Vectors
    asked: dict[int, int]

    def run(
        self,
        drops: Mapping[Stage, set[int]] | None = None,
        until: Stage | None = None,
        request: Tamper = keep,
        reply: Tamper = keep,
    ) -> "Lab":
        """Drive the round to its end, or until `until` is the stage to be sent.

        `drops`: nodes whose reply to a stage is lost. `request` and `reply` may change a message on its way.
        """
        while self.server.stage not in (None, until):
            stage = self.server.stage
            assert stage is not None
            replies = {}
            for node, original in self.server.requests().items():
                sent = request(stage, node, original)
                if sent is None or node in (drops or {}).get(stage, ()):
                    continue
                try:
                    back = reply(stage, node, getattr(self.parties[node], stage.value)(sent))
                except Refusal:
                    continue
                if back is not None:
                    replies[node] = back
            self.server.receive(replies)
        return self

    def expected(self) -> NDArray[np.int64]:
        """The plain sum of those who counted."""
        total: NDArray[np.int64] = self.vectors[list(self.server.result.counted)].sum(axis=0)
        return total


def make(
    journal: Path,
    n: int = 6,
    task: Task = TASK,
    vectors: Vectors | None = None,
    identities: list[DeviceIdentity] | None = None,
    min_devices: int = 1,
    party: type[DeviceParty] = DeviceParty,
) -> Lab:
    """A lab of `n` devices; device i contributes `vectors[i]`."""
    witness_key = Ed25519PrivateKey.generate()
    witness = UnchargedWitness(witness_key, AUTHORITY.public_key, journal)
    trust = Trust(AUTHORITY.public_key, witness.public_key, min_devices)
    rows = np.arange(n * task.length, dtype=np.int64).reshape(n, -1) - 5 if vectors is None else vectors
    asked: dict[int, int] = {}

    def contribution(i: int) -> Callable[[int], NDArray[np.int64]]:
        def contribute(joined: int) -> NDArray[np.int64]:
            asked[i] = joined
            row: NDArray[np.int64] = rows[i]
            return row

        return contribute

    chosen = identities or IDENTITIES
    parties = {i: party(task, chosen[i], trust, contribution(i)) for i in range(n)}
    server = Server(task, AUTHORITY.public_key, witness, range(n))
    return Lab(task, witness_key, witness, trust, parties, server, rows, asked)


def sign_roster(key: Ed25519PrivateKey, task: Task, records: list[bytes], nonce: bytes = bytes(32)) -> Roster:
    """What a witness would sign that looks at nothing."""
    bare = Roster(len(records), Tree([leaf_hash(r) for r in records]).root, nonce)
    return replace(bare, signature=key.sign(bare.message(task)))


def shares_request(task: Task, roster: Roster, records: list[bytes], index: int) -> bytes:
    """The shares request that fits a roster, whoever signed it."""
    tree = Tree([leaf_hash(r) for r in records])
    parameters = choose(len(records), task.dropout, task.corrupt)
    k = parameters.neighbours if parameters else len(records) - 1
    around = neighbours_of(index, roster.hash(task), len(records), k).tolist()
    members = [messages.member_bytes(records[j], tree.inclusion(j)) for j in around]
    return messages.shares_request(task.session, roster, index, tree.inclusion(index), members)


def sign_survivors(
    key: Ed25519PrivateKey,
    task: Task,
    roster: Roster,
    alive: messages.Flags,
    dealt: messages.Flags | None = None,
) -> bytes:
    """The unmask request for any bitmap, signed by a witness that looks at nothing. By default all dealt."""
    who = np.ones_like(alive) if dealt is None else dealt
    signature = key.sign(messages.survivors_message(roster.hash(task), who, alive))
    return messages.unmask_request(task.session, alive, signature)


def record_of(reply: bytes, task: Task = TASK) -> Record:
    """The record in a join reply."""
    return Record.decode(messages.read_join_reply(task.session, reply))


def fresh_record(identity: DeviceIdentity, task: Task = TASK, share: X25519PrivateKey | None = None) -> bytes:
    """The record of an enrolled device whose private round keys nobody keeps, but that of `share`."""
    private = (share or X25519PrivateKey.generate(), X25519PrivateKey.generate())
    public = (key.public_key().public_bytes_raw() for key in private)
    return make_record(identity, task.session, *public).encode()

"""The same round without masks, for plans that switch secure aggregation off: the server sees each vector.

Two stages, `join` and `masked`, driven like the real ones. Devices are still certified and each signs its
joining, so that a puppet still costs a certificate; a release made this way is marked as such.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fa_core.secagg import messages
from fa_core.secagg.identity import (
    CERTIFICATE_SIZE,
    POPULATION_SIZE,
    SIGNATURE_SIZE,
    DeviceIdentity,
    Trust,
    certified,
    signed,
)
from fa_core.secagg.masks import lift, lower
from fa_core.secagg.messages import Kind, Malformed, OtherSession
from fa_core.secagg.server import Result
from fa_core.secagg.task import Reason, Refusal, RoundFailure, Stage, Task, label

_ORDER = (Stage.JOIN, Stage.MASKED)


class DeviceParty:
    """One device in one unmasked round: `join`, then `masked`. Made like the real party, refuses like it."""

    def __init__(
        self,
        task: Task,
        identity: DeviceIdentity,
        trust: Trust,
        contribute: Callable[[int], NDArray[np.int64]],
    ) -> None:
        self._task = task
        self._identity = identity
        self._trust = trust
        self._contribute: Callable[[int], NDArray[np.int64]] | None = contribute
        self._answers: list[tuple[bytes, bytes]] = []

    def join(self, request: bytes) -> bytes:
        """The task, checked against the one agreed -> this device's certificate and its signature."""
        return self._once(Stage.JOIN, request, self._join)

    def masked(self, request: bytes) -> bytes:
        """How many joined -> the vector, in the clear."""
        return self._once(Stage.MASKED, request, self._masked)

    def _once(self, stage: Stage, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        turn, digest = _ORDER.index(stage), sha256(request).digest()
        if turn < len(self._answers):
            before, reply = self._answers[turn]
            if before != digest:
                raise Refusal(Reason.DIFFERENT_REQUEST)
            return reply
        if turn > len(self._answers):
            raise Refusal(Reason.OUT_OF_ORDER)
        try:
            reply = answer(request)
        except OtherSession:
            raise Refusal(Reason.WRONG_TASK) from None
        except Malformed:
            raise Refusal(Reason.MALFORMED) from None
        self._answers.append((digest, reply))
        return reply

    def _join(self, request: bytes) -> bytes:
        if messages.read_join_request(request) != self._task or (
            self._identity.population != self._task.population
        ):
            raise Refusal(Reason.WRONG_TASK)
        signature = self._identity.key.sign(label("plain join") + self._task.session)
        body = self._identity.device + self._identity.certificate + signature
        return messages.wrap(Kind.PLAIN_JOIN_REPLY, self._task.session, body)

    def _masked(self, request: bytes) -> bytes:
        devices = messages.read_count(Kind.PLAIN_VECTOR_REQUEST, self._task.session, request)
        if devices < max(self._task.min_devices, self._trust.min_devices):
            raise Refusal(Reason.COHORT_TOO_SMALL)
        contribute, self._contribute = self._contribute, None
        if contribute is None:
            raise Refusal(Reason.OUT_OF_ORDER)
        vector = lift(contribute(devices), self._task.bits)
        return messages.wrap(Kind.PLAIN_VECTOR_REPLY, self._task.session, vector.tobytes())


class Server:
    """One unmasked round, driven like the real server, without a witness: nothing is hidden."""

    def __init__(self, task: Task, authority: bytes, nodes: Iterable[int]) -> None:
        self._task = task
        self._authority = authority
        self._asked = tuple(dict.fromkeys(nodes))
        self._request = messages.join_request(task)
        self._missing: dict[Stage, int] = {}
        self.stage: Stage | None = Stage.JOIN
        self.joined = 0
        self.quorum = task.min_devices
        self._result: Result | None = None
        self.left_out: frozenset[int] = frozenset()

    @property
    def result(self) -> Result:
        """The sum. RuntimeError before the round has ended in one."""
        if self._result is None:
            raise RuntimeError("the round has not ended in a sum")
        return self._result

    def requests(self) -> Mapping[int, bytes]:
        """The request of this stage for each node that is still in."""
        return dict.fromkeys(self._asked, self._request)

    def receive(self, replies: Mapping[int, bytes]) -> None:
        """Take the replies of this stage and go on. RoundFailure when too few are valid."""
        if self.stage is None:
            raise RuntimeError("the round is over")
        stage, self.stage = self.stage, None
        valid = {node: replies[node] for node in self._asked if node in replies}
        if stage is Stage.JOIN:
            self._receive_join(valid)
        else:
            self._receive_masked(valid)

    def _receive_join(self, replies: Mapping[int, bytes]) -> None:
        joined: dict[bytes, int] = {}
        for node, reply in replies.items():
            device = self._admit(reply)
            if device is not None:
                joined.setdefault(device, node)
        self._check(Stage.JOIN, len(joined))
        self._asked = tuple(joined.values())
        self.joined = len(joined)
        self.quorum = max(self.joined - int(self._task.dropout * self.joined), self._task.min_devices)
        self._request = messages.count_message(Kind.PLAIN_VECTOR_REQUEST, self._task.session, self.joined)
        self.stage = Stage.MASKED

    def _admit(self, reply: bytes) -> bytes | None:
        try:
            body = messages.read_fixed(
                Kind.PLAIN_JOIN_REPLY, self._task.session, reply, 32 + CERTIFICATE_SIZE + SIGNATURE_SIZE
            )
        except Malformed:
            return None
        device, certificate, signature = body[:32], body[32:-SIGNATURE_SIZE], body[-SIGNATURE_SIZE:]
        message = label("plain join") + self._task.session
        admitted = certificate[:POPULATION_SIZE] == self._task.population and certified(
            device, certificate, self._authority
        )
        return device if admitted and signed(signature, message, device) else None

    def _receive_masked(self, replies: Mapping[int, bytes]) -> None:
        total = np.zeros(self._task.length, dtype="<u8" if self._task.bits == 64 else "<u4")
        counted = []
        for node, reply in replies.items():
            try:
                vector = messages.read_vector(Kind.PLAIN_VECTOR_REPLY, self._task, reply)
            except Malformed:
                continue
            np.add(total, vector, out=total)
            counted.append(node)
        self._check(Stage.MASKED, len(counted))
        self._result = Result(lower(total), self.joined, tuple(counted), dict(self._missing))

    def _check(self, stage: Stage, there: int) -> None:
        self._missing[stage] = missing = len(self._asked) - there
        if there < self.quorum:
            text = f"{missing} of {len(self._asked)} devices are missing; at least {self.quorum} must remain"
            raise RoundFailure(stage, missing, text)

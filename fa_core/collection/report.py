"""A report: what a device uploads, once, and how it is sealed and read.

    id 16 ‖ device 32 ‖ public share ‖ box for the helper ‖ leader's share ‖ certificate 96 ‖ signature 64

The box is an HPKE encryption of the helper's share, with info = label ‖ task ‖ id ‖ device ‖ public share.
The signature is the device's, over the task and the hash of everything that comes before the certificate, in
which the leader's share is replaced by its hash: so the helper, which never sees that share, checks the same
signature. The id is random and is the nonce of the proof. All sizes follow from the task's layout.

A device writes the bytes into its journal before it sends them and sends the same again, whatever happens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey
from numpy.typing import NDArray

from fa_core.collection.refusal import Refusal, RefusedReport
from fa_core.collection.task import ID_SIZE, Task, label
from fa_core.prio.prio3 import Prio3
from fa_core.secagg.identity import CERTIFICATE_SIZE, SIGNATURE_SIZE, DeviceIdentity, certified, signed
from fa_core.trust import hpke

REPORT_ID_SIZE: Final = 16
DEVICE_SIZE: Final = 32
WITHDRAWAL_SIZE: Final = ID_SIZE + REPORT_ID_SIZE + DEVICE_SIZE + CERTIFICATE_SIZE + SIGNATURE_SIZE


@dataclass(frozen=True, slots=True)
class Report:
    """A report, taken apart. Which bytes may be shown to whom: `leader` to the leader alone."""

    id: bytes
    device: bytes
    public: bytes
    box: bytes
    leader: bytes = field(repr=False)
    certificate: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the bytes of an upload."""
        return b"".join(
            (self.id, self.device, self.public, self.box, self.leader, self.certificate, self.signature)
        )

    @classmethod
    def parse(cls, data: bytes, sizes: Prio3) -> "Report":
        """Return the report in `data`. Raises RefusedReport for bytes of another length.

        Args:
            sizes: the task's proof system.
        """
        expected = report_size(sizes)
        if len(data) > expected:
            raise RefusedReport(Refusal.OVERSIZED)
        if len(data) < expected:
            raise RefusedReport(Refusal.MALFORMED)
        return cls(*_pieces(data, _sizes(sizes)))

    @property
    def body_hash(self) -> bytes:
        """What the signature covers beside the task, 32 bytes."""
        return body_hash(self.id, self.device, self.public, self.box, leader_hash(self.leader))


def report_size(sizes: Prio3) -> int:
    """Return how many bytes a report has."""
    return sum(_sizes(sizes))


def leader_hash(share: bytes) -> bytes:
    """Return the hash of a leader's share, by which the helper knows it."""
    return sha256(label("leader share") + share).digest()


def body_hash(report: bytes, device: bytes, public: bytes, box: bytes, leader: bytes) -> bytes:
    """Return the hash that a report's signature covers; `leader` is the hash of the leader's share."""
    return sha256(label("report body") + report + device + public + box + leader).digest()


def seal(task: Task, prio: Prio3, measurement: NDArray[np.int64], identity: DeviceIdentity) -> Report:
    """Return a device's report of its bounded counts. Its randomness is the operating system's.

    Args:
        task: believed. prio: `fa_core.prio.blocks.prio` of its layout.
        measurement: int64 (n,), as `fa_core.prio.blocks.encode` gives it.
        identity: the device's key and certificate.
    """
    (report,) = seal_all(task, prio, [measurement], [identity])
    return report


def seal_all(
    task: Task,
    prio: Prio3,
    measurements: Sequence[NDArray[np.int64]],
    identities: Sequence[DeviceIdentity],
) -> list[Report]:
    """As `seal`, for several devices: for whoever plays them."""
    numbers = [token_bytes(REPORT_ID_SIZE) for _ in identities]
    randoms = [token_bytes(prio.random_size) for _ in identities]
    sharing, key = prio.shard_all(task.id, measurements, numbers, randoms), hpke.public_key(task.sealing)
    reports = []
    for number, shares, identity in zip(numbers, sharing, identities, strict=True):
        device = identity.device
        info = _info(task.id, number, device, shares.public)
        box = hpke.SUITE.encrypt(shares.helper, key, info)
        digest = body_hash(number, device, shares.public, box, leader_hash(shares.leader))
        signature = identity.key.sign(_to_sign("report", task.id, digest))
        reports.append(
            Report(number, device, shares.public, box, shares.leader, identity.certificate, signature)
        )
    return reports


def check_sender(
    task: Task, authority: bytes, device: bytes, certificate: bytes, signature: bytes, digest: bytes
) -> None:
    """Raise RefusedReport unless a certified device of the task's population signed the report.

    Args:
        authority: public key of the enrolment authority, 32 bytes.
        digest: `body_hash` of the report.
    """
    if certificate[:32] != task.population or not certified(device, certificate, authority):
        raise RefusedReport(Refusal.FOREIGN)
    if not signed(signature, _to_sign("report", task.id, digest), device):
        raise RefusedReport(Refusal.FORGED)


def open_share(
    task: bytes, key: MLKEM768X25519PrivateKey, report: bytes, device: bytes, public: bytes, box: bytes
) -> bytes:
    """Return the helper's share of a report. Raises RefusedReport where the box was sealed otherwise."""
    share = hpke.open_box(key, box, _info(task, report, device, public))
    if share is None:
        raise RefusedReport(Refusal.SEALED_OTHERWISE)
    return share


def withdraw(task: Task, report: Report, identity: DeviceIdentity) -> bytes:
    """Return the statement by which a device takes a report back, before it is verified."""
    signature = identity.key.sign(_to_sign("withdrawal", task.id, report.id))
    return task.id + report.id + report.device + report.certificate + signature


def read_withdrawal(data: bytes, task: Task, authority: bytes) -> tuple[bytes, bytes]:
    """Return the id of the report and the device (public key) of a withdrawal. Raises RefusedReport."""
    if len(data) != WITHDRAWAL_SIZE:
        raise RefusedReport(Refusal.MALFORMED)
    sizes = (ID_SIZE, REPORT_ID_SIZE, DEVICE_SIZE, CERTIFICATE_SIZE, SIGNATURE_SIZE)
    about, report, device, certificate, signature = _pieces(data, sizes)
    if about != task.id:
        raise RefusedReport(Refusal.UNKNOWN_TASK)
    if certificate[:32] != task.population or not certified(device, certificate, authority):
        raise RefusedReport(Refusal.FOREIGN)
    if not signed(signature, _to_sign("withdrawal", task.id, report), device):
        raise RefusedReport(Refusal.FORGED)
    return report, device


def _info(task: bytes, report: bytes, device: bytes, public: bytes) -> bytes:
    return label("helper share") + task + report + device + public


def _to_sign(use: str, task: bytes, digest: bytes) -> bytes:
    return label(use) + task + digest


def _sizes(sizes: Prio3) -> tuple[int, ...]:
    return (
        REPORT_ID_SIZE,
        DEVICE_SIZE,
        sizes.public_size,
        sizes.helper_size + hpke.OVERHEAD,
        sizes.leader_size,
        CERTIFICATE_SIZE,
        SIGNATURE_SIZE,
    )


def _pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size

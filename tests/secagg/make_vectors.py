"""Makes the published test vectors: `python -m tests.secagg.make_vectors` writes tests/vectors/secagg-*.json.

Every random draw of a round is replaced by a stream from a public seed, so that the files come out the same
on every machine, and a test makes them again.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fa_core.secagg import (
    DeviceIdentity,
    DeviceParty,
    Server,
    Stage,
    Task,
    Trust,
    choose,
    keys,
    masks,
    messages,
    shamir,
)
from fa_core.secagg.graph import neighbours_of, ring
from fa_core.secagg.identity import population_id
from fa_core.secagg.opened_secret import opened
from fa_core.trust.enrolment import Authority
from tests.secagg.lab import POPULATION, UnchargedWitness
from tests.secagg.liars import Garbage

FOLDER = Path(__file__).parent.parent / "vectors"
TASKS = {
    "secagg-round-32": Task(
        sha256(b"a plan").digest(),
        bytes(range(16)),
        2,
        6,
        32,
        Fraction(1, 5),
        Fraction(1, 10),
        4,
        bytes(32),
        population_id(POPULATION),
    ),
    "secagg-round-64": Task(
        sha256(b"a plan").digest(),
        bytes(range(16, 32)),
        0,
        3,
        64,
        Fraction(1, 4),
        Fraction(0),
        5,
        sha256(b"a checkpoint").digest(),
        population_id(POPULATION),
    ),
    "secagg-round-odd": Task(
        sha256(b"another plan").digest(),
        bytes(range(32, 48)),
        0,
        4,
        32,
        Fraction(1, 5),
        Fraction(1, 10),
        3,
        sha256(b"another checkpoint").digest(),
        population_id(POPULATION),
    ),
}
DEVICES = {"secagg-round-32": 5, "secagg-round-64": 5, "secagg-round-odd": 6}
"""An even number of devices has an odd number of neighbours each."""


class Stream:
    """Bytes that look random and are the same everywhere: SHA-256(seed ‖ counter)."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._drawn = 0
        self._rest = b""

    def __call__(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += sha256(self._seed + self._drawn.to_bytes(8, "big")).digest()
            self._drawn += 1
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


@contextmanager
def fixed(stream: Callable[[int], bytes]) -> Iterator[list[dict[str, Any]]]:
    """Draw everything from `stream`. Yields a list of what each dealer drew, filled as it happens."""
    dealt: list[dict[str, Any]] = []
    drawn: list[bytes] = []
    share = shamir.share

    def noting(values: tuple[bytes, ...], count: int, threshold: int) -> Any:
        rows = share(values, count, threshold, stream)
        (share_private,) = (
            one for one, other in zip(drawn[::2], drawn[1::2], strict=True) if other == values[1]
        )
        dealt.append(
            {
                "seed": values[0].hex(),
                "share_private": share_private.hex(),
                "mask_private": values[1].hex(),
                "shares": rows.tolist(),
            }
        )
        return rows

    class Fixed:
        """Stands where the device asks X25519PrivateKey for a fresh key."""

        @staticmethod
        def generate() -> X25519PrivateKey:
            drawn.append(stream(32))
            return X25519PrivateKey.from_private_bytes(drawn[-1])

    with ExitStack() as stack:
        stack.enter_context(patch("fa_core.secagg.device.token_bytes", stream))
        stack.enter_context(patch("fa_core.trust.witness.token_bytes", stream))
        stack.enter_context(patch("fa_core.secagg.device.X25519PrivateKey", Fixed))
        stack.enter_context(patch("fa_core.secagg.device.shamir.share", noting))
        yield dealt


def fixed_key(stream: Callable[[int], bytes]) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(stream(32))


def enrolled(authority: Authority, stream: Callable[[int], bytes], devices: int = 5) -> list[DeviceIdentity]:
    """Devices and their certificates."""
    private = [fixed_key(stream) for _ in range(devices)]
    return [
        DeviceIdentity(key, authority.certify(key.public_key().public_bytes_raw(), POPULATION))
        for key in private
    ]


def a_round(name: str) -> dict[str, Any]:
    """Five or six devices. Device 3 deals its shares and is lost: before its vector came in 32-bit rounds,
    so that its mask key is opened; after it in the 64-bit round, so that its vector counts.
    """
    task, stream, devices = TASKS[name], Stream(name), DEVICES[name]
    authority, witness_key = Authority(fixed_key(stream)), fixed_key(stream)
    identities = enrolled(authority, stream, devices)
    rows = np.array([[(-1) ** j * (i + 1) * 10**j for j in range(task.length)] for i in range(devices)])
    lost = {Stage.MASKED if task.bits == 32 else Stage.UNMASK: {3}}
    replies: list[dict[str, str]] = [{} for _ in range(devices)]
    requests: list[dict[str, str]] = [{} for _ in range(devices)]
    with tempfile.TemporaryDirectory() as journal, fixed(stream) as dealt:
        witness = UnchargedWitness(witness_key, authority.public_key, Path(journal))
        trust = Trust(authority.public_key, witness.public_key)
        parties = [
            DeviceParty(task, identity, trust, lambda n, i=i: rows[i])  # type: ignore[misc]
            for i, identity in enumerate(identities)
        ]
        server = Server(task, authority.public_key, witness, range(devices))
        while (stage := server.stage) is not None:
            answers = {}
            for node, request in server.requests().items():
                requests[node][stage.value] = request.hex()
                if node not in lost.get(stage, set()):
                    answers[node] = getattr(parties[node], stage.value)(request)
                    replies[node][stage.value] = answers[node].hex()
            server.receive(answers)
    return described(name, server, identities, rows, dealt, requests, replies, witness_key, authority)


def a_complaint() -> dict[str, Any]:
    """Device 1 of five deals garbage; device 0 complains, and opens the secret that the two share."""
    task, stream = replace(TASKS["secagg-round-32"], attempt=0), Stream("secagg-complaint")
    authority, witness_key = Authority(fixed_key(stream)), fixed_key(stream)
    identities, shown = enrolled(authority, stream), []

    class Noting(UnchargedWitness):
        def record_complaint(self, request: bytes) -> bytes:
            shown.append(request)
            return super().record_complaint(request)

    with tempfile.TemporaryDirectory() as journal, fixed(stream), ExitStack() as stack:
        nonce = lambda below: int.from_bytes(stream(64), "little") % below  # noqa: E731
        stack.enter_context(patch("fa_core.secagg.opened_secret.secrets.randbelow", nonce))
        stack.enter_context(patch("tests.secagg.liars.token_bytes", stream))
        witness = Noting(witness_key, authority.public_key, Path(journal))
        trust = Trust(authority.public_key, witness.public_key)
        parties = [
            (Garbage if i == 1 else DeviceParty)(task, identity, trust, lambda n: np.zeros(n, np.int64))
            for i, identity in enumerate(identities)
        ]
        server = Server(task, authority.public_key, witness, range(5))
        requests: dict[str, str] = {}
        replies: dict[str, str] = {}
        while (stage := server.stage) is not None:
            if stage is Stage.DISPUTE:
                accuser = parties[0]._keys
                assert accuser
            answers = {node: getattr(parties[node], stage.value)(r) for node, r in server.requests().items()}
            requests[stage.value], replies[stage.value] = server.requests()[0].hex(), answers[0].hex()
            server.receive(answers)
    _, complaint = messages.read_complaint_request(shown[0])
    records = [server._records[i] for i in range(2)]
    secret = opened(records[0].share_key, records[1].share_key, server._hash, complaint.opening)
    assert (complaint.accuser_index, complaint.accused_index, server.left_out) == (0, 1, {1})
    assert secret
    return {
        "what": "device 0 complains of device 1; docs/protocol.md says what each field is",
        "task_bytes": task.encode().hex(),
        "session": task.session.hex(),
        "parameters": {
            "neighbours": server._parameters.neighbours,
            "threshold": server._parameters.threshold,
        },
        "roster": server._roster.encode().hex(),
        "roster_hash": server._hash.hex(),
        "accuser_share_private": accuser.share.private_bytes_raw().hex(),
        "accuser": records[0].encode().hex(),
        "accused": records[1].encode().hex(),
        "accused_neighbours": server._neighbours[1].tolist(),
        "requests": requests,
        "replies": replies,
        "secret": secret.hex(),
        "complaint": shown[0].hex(),
        "liar": identities[1].device.hex(),
    }


def described(
    name: str,
    server: Server,
    identities: list[DeviceIdentity],
    rows: Any,
    dealt: list[dict[str, Any]],
    requests: list[dict[str, str]],
    replies: list[dict[str, str]],
    witness_key: Ed25519PrivateKey,
    authority: Authority,
) -> dict[str, Any]:
    """The round as JSON: everything public, and the secrets that an implementation needs to make it again."""
    task, roster = TASKS[name], server._roster
    parameters = choose(len(identities), task.dropout, task.corrupt)
    assert parameters
    devices = []
    for i, identity in enumerate(identities):
        record = server._records[i]
        devices.append(
            {
                "identity_private": identity.key.private_bytes_raw().hex(),
                "device": record.device.hex(),
                "certificate": record.certificate.hex(),
                "share_public": record.share_key.hex(),
                "mask_public": record.mask_key.hex(),
                "record": record.encode().hex(),
                **dealt[i],
                "dealt": bool(server._dealt[i]),
                "neighbours": server._neighbours[i].tolist(),
                "contribution": rows[i].tolist(),
                "requests": requests[i],
                "replies": replies[i],
            }
        )
    return {
        "what": "a whole round of a few devices with a dropout; docs/protocol.md says what each field is",
        "task": {
            "plan_hash": task.plan_hash.hex(),
            "release": task.release.hex(),
            "attempt": task.attempt,
            "length": task.length,
            "bits": task.bits,
            "dropout": task.dropout.as_integer_ratio(),
            "corrupt": task.corrupt.as_integer_ratio(),
            "min_devices": task.min_devices,
            "context": task.context.hex(),
            "population": task.population.hex(),
        },
        "task_bytes": task.encode().hex(),
        "session": task.session.hex(),
        "authority_private": authority.key.private_bytes_raw().hex(),
        "witness_private": witness_key.private_bytes_raw().hex(),
        "parameters": {"neighbours": parameters.neighbours, "threshold": parameters.threshold},
        "roster": {
            "root": roster.root.hex(),
            "nonce": roster.nonce.hex(),
            "signature": roster.signature.hex(),
            "hash": roster.hash(task).hex(),
            "ring": ring(roster.hash(task), len(identities))[0].tolist(),
        },
        "devices": devices,
        "sum": server.result.total.tolist(),
    }


def primitives() -> dict[str, Any]:
    """Keys, masks, shares and parameters one by one."""
    stream = Stream("secagg-primitives")
    secret, session, one, other = (stream(32) for _ in range(4))
    private = stream(32)
    peer = X25519PrivateKey.from_private_bytes(stream(32)).public_key().public_bytes_raw()
    agreed = keys.agree(X25519PrivateKey.from_private_bytes(private), peer)
    coefficients = [[int.from_bytes(stream(4), "little") % shamir.PRIME for _ in range(9)] for _ in range(2)]
    raw = b"".join(c.to_bytes(4, "little") for row in coefficients for c in row)
    task = TASKS["secagg-round-32"]
    return {
        "what": "the parts of the protocol one by one; docs/protocol.md says what each field is",
        "agreement": {"private": private.hex(), "public": peer.hex(), "secret": agreed.hex()},
        "derived": {
            "secret": secret.hex(),
            "session": session.hex(),
            "one": one.hex(),
            "other": other.hex(),
            "share_key": keys.share_key(secret, session, one, other).hex(),
            "pair_mask_key": keys.pair_mask_key(secret, session, one, other).hex(),
            "self_mask_key": keys.self_mask_key(secret, session, one).hex(),
        },
        "mask": {"key": secret.hex(), "stream": masks.keystream(secret, 80).hex()},
        "sealed": {
            "key": secret.hex(),
            "plain": bytes(range(72)).hex(),
            "sealed": keys.seal(secret, bytes(range(72))).hex(),
        },
        "shares": {
            "secret": secret.hex(),
            "threshold": 3,
            "limbs": shamir.split(secret),
            "coefficients_highest_first": coefficients,
            "shares": shamir.share((secret,), 5, 3, lambda size: raw[:size]).tolist(),
        },
        "ring": {"roster_hash": session.hex(), "devices": 9, "order": ring(session, 9)[0].tolist()},
        "neighbours": [_neighbours(session, n) for n in (6, 9, 64, 100, 1_000)],
        "parameters": [
            {
                "devices": n,
                "dropout": list(f),
                "corrupt": list(g),
                "neighbours": p.neighbours,
                "threshold": p.threshold,
            }
            for n in (3, 5, 20, 63, 64, 100, 1_000, 10_000)
            for f, g in (((1, 10), (1, 10)), ((1, 5), (1, 10)))
            if (p := choose(n, Fraction(*f), Fraction(*g)))
        ],
        "attempts_differ": [replace(task, attempt=i).session.hex() for i in range(3)],
    }


def _neighbours(roster_hash: bytes, devices: int) -> dict[str, Any]:
    """Who stands in each slot of a few devices, where f = γ = 1/10."""
    parameters = choose(devices, Fraction(1, 10), Fraction(1, 10))
    assert parameters
    k = parameters.neighbours
    some = {i: neighbours_of(i, roster_hash, devices, k).tolist() for i in (0, 1, devices - 1)}
    return {
        "roster_hash": roster_hash.hex(),
        "devices": devices,
        "neighbours": k,
        "threshold": parameters.threshold,
        "slots": {str(index): found for index, found in some.items()},
    }


def files() -> dict[str, str]:
    """The text of every file, by name."""
    made = {name: a_round(name) for name in TASKS}
    made |= {"secagg-complaint": a_complaint(), "secagg-primitives": primitives()}
    return {f"{name}.json": json.dumps(content, indent=1) + "\n" for name, content in made.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text)

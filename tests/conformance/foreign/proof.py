"""Two shares of a device's elements with the proof that they satisfy a circuit.

From docs/device-protocol.md, "Field and randomness" and "Sharing".
"""

import hmac
from dataclasses import dataclass
from functools import cache

from circuit import ONE, Circuit, Form, calls_of
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

P = 2**64 - 2**32 + 1
PROOFS = 3


def encoded(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def stream(seed: bytes, usage: int, task: bytes, binder: bytes, size: int) -> bytes:
    tag = bytes.fromhex("1200ffff1801") + usage.to_bytes(2, "big") + task
    mac = hmac.digest(seed, bytes([len(tag)]) + tag + binder, "sha256")
    key, head, first = mac[:16], mac[16:24], int.from_bytes(mac[24:], "big")
    blocks = b"".join(head + ((first + i) % 2**64).to_bytes(8, "big") for i in range(-(-size // 16)))
    return Cipher(AES(key), ECB()).encryptor().update(blocks)[:size]


def numbers(seed: bytes, usage: int, task: bytes, binder: bytes, count: int) -> list[int]:
    size = 8 * (count + 4)
    while True:
        data = stream(seed, usage, task, binder, size)
        found = [int.from_bytes(data[at : at + 8], "little") for at in range(0, size, 8)]
        found = [value for value in found if value < P]
        if len(found) >= count:
            return found[:count]
        size *= 2


@cache
def roots(n: int) -> list[int]:
    found = [1]
    for _ in range(n - 1):
        found.append(found[-1] * pow(7, (P - 1) // n, P) % P)
    return found


def evaluated(coefficients: list[int]) -> list[int]:
    """The values at the n-th roots of unity."""
    n = len(coefficients)
    if n == 1:
        return coefficients
    even, odd = evaluated(coefficients[::2]), evaluated(coefficients[1::2])
    turned = [root * value % P for root, value in zip(roots(n), odd)]
    return [(a + b) % P for a, b in zip(even, turned)] + [(a - b) % P for a, b in zip(even, turned)]


def interpolated(values: list[int]) -> list[int]:
    """The coefficients of the polynomial with these values at the n-th roots of unity."""
    n = len(values)
    backwards = evaluated(values)
    inverse = pow(n, -1, P)
    return [backwards[-i % n] * inverse % P for i in range(n)]


@dataclass(frozen=True)
class Shares:
    public: bytes
    leader: bytes
    helper: bytes


def value(form: Form, elements: list[int]) -> int:
    return sum(c * (1 if e == ONE else elements[e]) for e, c in form.items()) % P


def proved(circuit: Circuit, blinds: list[int], joint: list[int]) -> list[int]:
    chunk, _, length = calls_of(len(circuit.gates))
    *u, v = joint
    wires = [[blind] + [0] * (length - 1) for blind in blinds]
    for i, (a, b, _) in enumerate(circuit.gates):
        call, j = divmod(i, chunk)
        wires[2 * j][1 + call] = u[call] * pow(v, j + 1, P) * value(a, circuit.elements) % P
        wires[2 * j + 1][1 + call] = value(b, circuit.elements)
    finer = [evaluated(interpolated(wire) + [0] * length) for wire in wires]
    results = [
        sum(finer[2 * j][t] * finer[2 * j + 1][t] for j in range(chunk)) % P for t in range(2 * length - 1)
    ]
    return [*blinds, *results]


def sharded(circuit: Circuit, task: bytes, report: bytes, drawn: bytes) -> Shares:
    """`drawn`: 128 bytes from the operating system."""
    helper, helper_blind, leader_blind, prove = (drawn[at : at + 32] for at in range(0, 128, 32))
    chunk, calls, length = calls_of(len(circuit.gates))
    theirs = numbers(helper, 1, task, b"\x01", len(circuit.elements))
    ours = [(x - y) % P for x, y in zip(circuit.elements, theirs)]
    public = stream(leader_blind, 7, task, b"\x00" + report + encoded(ours), 32)
    public += stream(helper_blind, 7, task, b"\x01" + report + encoded(theirs), 32)
    seed = stream(bytes(32), 6, task, public, 32)
    joint = numbers(seed, 3, task, b"\x03", PROOFS * (calls + 1))
    blinds = numbers(prove, 4, task, b"\x03", PROOFS * 2 * chunk)
    proofs = []
    for i in range(PROOFS):
        mine = blinds[2 * chunk * i : 2 * chunk * (i + 1)]
        proofs += proved(circuit, mine, joint[(calls + 1) * i : (calls + 1) * (i + 1)])
    away = numbers(helper, 2, task, b"\x03\x01", PROOFS * (2 * chunk + 2 * length - 1))
    proofs = [(x - y) % P for x, y in zip(proofs, away)]
    return Shares(public, encoded(ours) + encoded(proofs) + leader_blind, helper + helper_blind)

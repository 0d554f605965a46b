"""The protocol's arithmetic a second time: slow, plain, and without a line of the package.

Written from docs/protocol.md with integers and lists. X25519 is RFC 7748's ladder, HKDF RFC 5869's text, the
Merkle root RFC 6962's recursion; AES's block is the only thing borrowed. It recomputes a whole round from its
published secrets, and opens the sum from the messages that the server received.
"""

import hashlib
import hmac
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

P = 2**31 - 1
CURVE = 2**255 - 19


def label(name: str) -> bytes:
    return b"unheard/secagg/2 " + name.encode() + b"\x00"


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748, section 5."""
    scalar = int.from_bytes(private, "little")
    scalar = (scalar & ~7 & ((1 << 255) - 1)) | (1 << 254)
    x1 = int.from_bytes(public, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = (scalar >> t) & 1
        if swap != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % CURVE, c * b % CURVE
        aa, bb = a * a % CURVE, b * b % CURVE
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % CURVE, x1 * (da - cb) ** 2 % CURVE
        x2, z2 = aa * bb % CURVE, e * (aa + 121665 * e) % CURVE
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, CURVE - 2, CURVE) % CURVE).to_bytes(32, "little")


def x25519_public(private: bytes) -> bytes:
    return x25519(private, (9).to_bytes(32, "little"))


EDWARDS = -121665 * pow(121666, CURVE - 2, CURVE) % CURVE
ORDER = 2**252 + 27742317777372353535851937790883648493
Affine = tuple[int, int]


def plus(p: Affine, q: Affine) -> Affine:
    """Addition on −x² + y² = 1 + d·x²·y²."""
    product = EDWARDS * p[0] * q[0] * p[1] * q[1]
    x = (p[0] * q[1] + p[1] * q[0]) * pow(1 + product, CURVE - 2, CURVE)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, CURVE - 2, CURVE)
    return x % CURVE, y % CURVE


def multiple(scalar: int, point: Affine) -> Affine:
    total = (0, 1)
    for bit in bin(scalar)[2:]:
        total = plus(total, total)
        if bit == "1":
            total = plus(total, point)
    return total


def point_at(y: int, odd: int) -> Affine | None:
    """The point with this y whose x has this parity. CURVE is 5 mod 8 (RFC 8032, section 5.1.3)."""
    square = (y * y - 1) * pow(EDWARDS * y * y + 1, CURVE - 2, CURVE) % CURVE
    x = pow(square, (CURVE + 3) // 8, CURVE)
    if x * x % CURVE != square:
        x = x * pow(2, (CURVE - 1) // 4, CURVE) % CURVE
    if x * x % CURVE != square or (x == 0 and odd):
        return None
    return (x if x % 2 == odd else CURVE - x), y


def compressed(point: Affine) -> bytes:
    return (point[1] + ((point[0] % 2) << 255)).to_bytes(32, "little")


def on_edwards(public: bytes) -> Affine | None:
    """The point of an X25519 public key, x even."""
    u = int.from_bytes(public, "little") % 2**255
    return point_at((u - 1) * pow(u + 1, CURVE - 2, CURVE) % CURVE, 0)


def opened(own: bytes, public: bytes, context: bytes, opening: bytes) -> bytes | None:
    """The X25519 secret that an opening of 96 bytes proves, or None."""
    if len(opening) != 96:
        return None
    y = int.from_bytes(opening[:32], "little") % 2**255
    secret = point_at(y, opening[31] >> 7) if y < CURVE else None
    first, peer = on_edwards(own), on_edwards(public)
    challenge, response = (int.from_bytes(opening[i : i + 32], "little") for i in (32, 64))
    if secret is None or first is None or peer is None or response >= ORDER:
        return None
    if multiple(ORDER, secret) != (0, 1):
        return None
    base = on_edwards((9).to_bytes(32, "little"))
    assert base is not None
    against = ORDER - challenge % ORDER
    one = plus(multiple(8 * response, base), multiple(against, first))
    two = plus(multiple(8 * response, peer), multiple(against, secret))
    hashed = label("opened secret") + context + own + public + b"".join(map(compressed, (secret, one, two)))
    if sha(hashed) != opening[32:64]:
        return None
    return ((1 + y) * pow(1 - y, CURVE - 2, CURVE) % CURVE).to_bytes(32, "little")


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869: no salt, 32 bytes."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def block(key: bytes, counter: int) -> bytes:
    """One block of AES-256-CTR: the counter as 16 bytes, big-endian."""
    return Cipher(AES(key), ECB()).encryptor().update(counter.to_bytes(16, "big"))


def mask(key: bytes, length: int, bits: int) -> list[int]:
    """`length` numbers below 2^bits: the key stream in little-endian words."""
    size = bits // 8
    stream = b"".join(block(key, i) for i in range(-(-length * size // 16)))
    return [int.from_bytes(stream[i * size : (i + 1) * size], "little") for i in range(length)]


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return sha(b"\x00" + leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:]))


def order(roster_hash: bytes, n: int) -> list[int]:
    """Roster indices around the ring."""
    seed = sha(label("order") + roster_hash)
    return sorted(range(n), key=lambda i: block(seed, i))


def slots(index: int, ring: list[int], k: int) -> list[int]:
    """The neighbours of a roster index, in slot order."""
    n, place = len(ring), ring.index(index)
    ahead = (k + 1) // 2
    steps = [*range(1, ahead + 1), *(-i for i in range(1, k - ahead + 1))]
    return [ring[(place + step) % n] for step in steps]


def limbs(secret: bytes) -> list[int]:
    number = int.from_bytes(secret, "little")
    return [(number >> (30 * i)) % 2**30 for i in range(9)]


def at_zero(points: dict[int, int]) -> int:
    """Lagrange at zero over the field of 2^31 − 1 elements."""
    total = 0
    for i, y in points.items():
        top = bottom = 1
        for j in points:
            if i != j:
                top, bottom = top * j % P, bottom * (j - i) % P
        total += y * top * pow(bottom, P - 2, P)
    return total % P


def combine(shares: dict[int, list[int]]) -> bytes:
    """The secret of 32 bytes whose share at x is `shares[x]`, nine limbs."""
    number = sum(at_zero({x: row[i] for x, row in shares.items()}) << (30 * i) for i in range(9))
    return number.to_bytes(32, "little")


def session_of(task: dict[str, Any]) -> bytes:
    return sha(label("task") + task_bytes(task))


def task_bytes(task: dict[str, Any]) -> bytes:
    return b"".join(
        [
            bytes.fromhex(task["plan_hash"]),
            bytes.fromhex(task["release"]),
            u32(task["attempt"]),
            u32(task["length"]),
            bytes([task["bits"]]),
            *(u32(x) for x in task["dropout"]),
            *(u32(x) for x in task["corrupt"]),
            u32(task["min_devices"]),
            bytes.fromhex(task["context"]),
            bytes.fromhex(task["population"]),
        ]
    )


def roster_message(task: dict[str, Any], root: bytes, nonce: bytes, n: int) -> bytes:
    return label("roster") + task_bytes(task) + u32(n) + root + nonce


def pair_mask_key(session: bytes, private: bytes, public: bytes, own: bytes, other: bytes) -> bytes:
    low, high = sorted([own, other])
    return hkdf(x25519(private, public), label("pair mask") + session + low + high)


def self_mask_key(session: bytes, seed: bytes, device: bytes) -> bytes:
    return hkdf(seed, label("self mask") + session + device)


def share_key(session: bytes, private: bytes, public: bytes, sender: bytes, receiver: bytes) -> bytes:
    return hkdf(x25519(private, public), label("share") + session + sender + receiver)


def masked_vector(vector: dict[str, Any], index: int) -> bytes:
    """The body of a device's masked message, from the secrets of a published round."""
    task, devices = vector["task"], vector["devices"]
    session, m, bits = session_of(task), task["length"], task["bits"]
    own = devices[index]
    name = bytes.fromhex(own["device"])
    total = [value % 2**bits for value in own["contribution"]]
    key = self_mask_key(session, bytes.fromhex(own["seed"]), name)
    total = [(a + b) % 2**bits for a, b in zip(total, mask(key, m, bits), strict=True)]
    for other in own["neighbours"]:
        if not devices[other]["dealt"]:
            continue
        peer = bytes.fromhex(devices[other]["device"])
        public = bytes.fromhex(devices[other]["mask_public"])
        key = pair_mask_key(session, bytes.fromhex(own["mask_private"]), public, name, peer)
        sign = 1 if name < peer else -1
        total = [(a + sign * b) % 2**bits for a, b in zip(total, mask(key, m, bits), strict=True)]
    return b"".join(value.to_bytes(bits // 8, "little") for value in total)


def unmask(vector: dict[str, Any]) -> list[int]:
    """The signed sum, from the messages of a published round and nothing secret."""
    task, devices = vector["task"], vector["devices"]
    session, m, bits = session_of(task), task["length"], task["bits"]
    size = bits // 8
    survivors = [i for i, d in enumerate(devices) if "masked" in d["replies"]]
    total = [0] * m
    for i in survivors:
        body = bytes.fromhex(devices[i]["replies"]["masked"])[36:]
        values = [int.from_bytes(body[j * size : (j + 1) * size], "little") for j in range(m)]
        total = [a + b for a, b in zip(total, values, strict=True)]
    held: dict[int, dict[int, list[int]]] = {}
    for i in survivors:
        if "unmask" not in devices[i]["replies"]:
            continue
        body = bytes.fromhex(devices[i]["replies"]["unmask"])[36:]
        for slot, owner in enumerate(devices[i]["neighbours"]):
            row = [int.from_bytes(body[36 * slot + 4 * j :][:4], "little") for j in range(9)]
            if max(row) < P:
                x = devices[owner]["neighbours"].index(i) + 1
                held.setdefault(owner, {})[x] = row
    for owner, shares in held.items():
        enough = dict(list(shares.items())[: vector["parameters"]["threshold"]])
        secret, name = combine(enough), bytes.fromhex(devices[owner]["device"])
        if owner in survivors:
            taken = mask(self_mask_key(session, secret, name), m, bits)
            total = [a - b for a, b in zip(total, taken, strict=True)]
            continue
        for other in devices[owner]["neighbours"]:
            if other in survivors:
                peer = bytes.fromhex(devices[other]["device"])
                public = bytes.fromhex(devices[other]["mask_public"])
                taken = mask(pair_mask_key(session, secret, public, name, peer), m, bits)
                sign = 1 if peer < name else -1
                total = [a - sign * b for a, b in zip(total, taken, strict=True)]
    half = 2 ** (bits - 1)
    return [(a + half) % 2**bits - half for a in total]

"""A device's half of the masked sum. From docs/protocol.md."""

import hmac
from collections.abc import Callable
from fractions import Fraction
from math import comb
from secrets import SystemRandom, randbelow, token_bytes
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from wire import Refused, included, label, leaf_of, sha, verifies

P = 2**31 - 1
CURVE = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
EDWARDS = -121665 * pow(121666, CURVE - 2, CURVE) % CURVE
SMALL = {
    0, 1, CURVE - 1,
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
}  # fmt: skip
NOTHING = b"\xff" * 36
BEFORE = {
    "shares": "join",
    "confirm": "shares",
    "masked": "confirm",
    "unmask": "masked",
    "dispute": "confirm",
}
REQUEST = {"join": 1, "shares": 3, "masked": 5, "unmask": 7, "confirm": 16, "dispute": 18}


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def hkdf(secret: bytes, info: bytes) -> bytes:
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def agreed(private: bytes, public: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def stream(key: bytes, size: int) -> bytes:
    encryptor = Cipher(AES(key), CTR(bytes(16))).encryptor()
    return encryptor.update(bytes(size))


def usable(public: bytes) -> bool:
    return (int.from_bytes(public, "little") & (2**255 - 1)) % CURVE not in SMALL


# Parameters and the ring


def over(population: int, marked: int, drawn: int, limit: int, bits: int, n: int) -> bool:
    """Whether P[more than `limit` of `drawn` are marked] > 2^-bits / n."""
    most = min(marked, drawn)
    ways = sum(
        comb(marked, j) * comb(population - marked, drawn - j)
        for j in range(max(limit + 1, drawn - population + marked), most + 1)
    )
    return ways * n * 2**bits > comb(population, drawn)


def parameters(n: int, f: Fraction, gamma: Fraction) -> tuple[int, int, int] | None:
    """k, t and the least number of survivors, or None."""
    if n < 3:
        return None
    dropped, corrupt = int(f * n), int(gamma * n)
    sizes = [n - 1] if n < 64 else [*range(2, n - 1, 2), n - 1]
    c = 0
    for k in sizes:
        if n >= 64 and k > 1024:
            break
        while over(n - 1, corrupt, -(-k // 2), c, 40, n):
            c += 1
        t = k // 2 + c + 1
        if t <= k and not over(n - 1, dropped, k, k - t, 20, n):
            return k, t, n - dropped
    return None


def slots_of(index: int, roster_hash: bytes, n: int, k: int) -> list[int]:
    """The roster index of the device in each slot of the one at `index`."""
    encryptor = Cipher(AES(sha(label("order") + roster_hash)), ECB()).encryptor()
    blocks = [encryptor.update(i.to_bytes(16, "big")) for i in range(n)]
    ring = sorted(range(n), key=lambda i: blocks[i])
    p, a = ring.index(index), -(-k // 2)
    places = [p + j + 1 for j in range(a)] + [p - (j - a + 1) for j in range(a, k)]
    return [ring[place % n] for place in places]


# Edwards points, for the proof of an opened secret

Point = tuple[int, int]


def plus(p: Point, q: Point) -> Point:
    product = EDWARDS * p[0] * q[0] * p[1] * q[1]
    x = (p[0] * q[1] + p[1] * q[0]) * pow(1 + product, CURVE - 2, CURVE)
    y = (p[1] * q[1] + p[0] * q[0]) * pow(1 - product, CURVE - 2, CURVE)
    return x % CURVE, y % CURVE


def times(scalar: int, point: Point) -> Point:
    total = (0, 1)
    for bit in bin(scalar)[2:]:
        total = plus(total, total)
        if bit == "1":
            total = plus(total, point)
    return total


def point_of(u: int) -> Point | None:
    """The point of a u coordinate with the even x, None for one on the twist."""
    y = (u - 1) * pow(u + 1, CURVE - 2, CURVE) % CURVE
    square = (y * y - 1) * pow(EDWARDS * y * y + 1, CURVE - 2, CURVE) % CURVE
    x = pow(square, (CURVE + 3) // 8, CURVE)
    if x * x % CURVE != square:
        x = x * pow(2, (CURVE - 1) // 4, CURVE) % CURVE
    if x * x % CURVE != square:
        return None
    return (CURVE - x if x % 2 else x), y


def packed(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def opening(private: bytes, accused: bytes, roster_hash: bytes) -> bytes:
    """The secret that two share keys have in common, and the proof; zeros where there is none."""
    there = point_of((int.from_bytes(accused, "little") & (2**255 - 1)) % CURVE)
    if there is None:
        return bytes(96)
    base, other = times(8, point_of(9)), times(8, there)  # type: ignore[arg-type]
    scalar = int.from_bytes(private, "little") & ~7 & (2**255 - 1) | 2**254
    a = scalar // 8 % ORDER
    own = public_of(private)
    if packed(times(a, base)) != packed(point_of(int.from_bytes(own, "little") % CURVE)):  # type: ignore[arg-type]
        a = ORDER - a
    secret, r = times(a, other), 1 + randbelow(ORDER - 1)
    commitment = packed(times(r, base)) + packed(times(r, other))
    challenge = sha(label("opened secret") + roster_hash + own + accused + packed(secret) + commitment)
    response = (r + int.from_bytes(challenge, "little") * a) % ORDER
    return packed(secret) + challenge + response.to_bytes(32, "little")


# Shares


def limbs_of(secret: bytes) -> list[int]:
    value = int.from_bytes(secret, "little")
    return [value >> 30 * i & (2**30 - 1) for i in range(9)]


def dealt(secrets: tuple[bytes, bytes], k: int, t: int) -> list[list[int]]:
    """For each x = 1 … k the 18 shares."""
    limbs = [limb for secret in secrets for limb in limbs_of(secret)]
    polynomials = [[limb, *(randbelow(P) for _ in range(t - 1))] for limb in limbs]
    return [
        [sum(c * pow(x, i, P) for i, c in enumerate(p)) % P for p in polynomials] for x in range(1, k + 1)
    ]


class Reader:
    def __init__(self, body: bytes) -> None:
        self.rest = body

    def take(self, size: int) -> bytes:
        if len(self.rest) < size:
            raise Refused("malformed")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def proof(self) -> list[bytes]:
        return [self.take(32) for _ in range(self.take(1)[0])]

    def bitmap(self, count: int) -> list[bool]:
        data = self.take(-(-count // 8))
        flags = [bool(byte >> bit & 1) for byte in data for bit in range(8)]
        if any(flags[count:]):
            raise Refused("malformed")
        return flags[:count]

    def end(self) -> None:
        if self.rest:
            raise Refused("malformed")


def packed_bits(flags: list[bool]) -> bytes:
    size = -(-len(flags) // 8)
    return sum(1 << i for i, flag in enumerate(flags) if flag).to_bytes(size, "little")


class Party:
    """One device in one round.

    `given` are the secrets of a vector: share_private, mask_private, seed (bytes) and shares (k rows of 18).
    """

    def __init__(
        self,
        identity: Ed25519PrivateKey,
        certificate: bytes,
        trust: dict[str, Any],
        task: bytes,
        contribute: Callable[[int], list[int]],
        given: dict[str, Any],
    ) -> None:
        self.identity, self.certificate, self.trust = identity, certificate, trust
        self.device = identity.public_key().public_bytes_raw()
        self.task, self.contribute, self.given = task, contribute, given
        self.session = sha(label("task") + task)
        self.answered: dict[str, tuple[bytes, bytes]] = {}
        self.complaint: int | None = None
        if not possible(task):
            raise Refused("malformed")
        self.release, self.bits = task[32:48], task[56]
        self.length, self.least = int.from_bytes(task[52:56], "little"), int.from_bytes(task[73:77], "little")
        self.least = max(self.least, trust["min_cohort"])
        ratio = [int.from_bytes(task[at : at + 4], "little") for at in (57, 61, 65, 69)]
        self.dropout, self.corrupt = Fraction(ratio[0], ratio[1]), Fraction(ratio[2], ratio[3])

    def answer(self, stage: str, request: bytes) -> bytes:
        digest = sha(request)
        if stage in self.answered:
            if self.answered[stage][0] != digest:
                raise Refused("different_request")
            return self.answered[stage][1]
        if stage in BEFORE and BEFORE[stage] not in self.answered:
            raise Refused("out_of_order")
        if stage == "masked" and self.complaint is not None:
            raise Refused("complained")
        if stage == "dispute" and self.complaint is None:
            raise Refused("out_of_order")
        reply = getattr(self, "_" + stage)(self._body(stage, request))
        message = b"UH\x03" + bytes([REQUEST[stage] + 1]) + self.session + reply
        self.answered[stage] = (digest, message)
        return message

    def _body(self, stage: str, request: bytes) -> Reader:
        if request[:4] != b"UH\x03" + bytes([REQUEST[stage]]) or len(request) < 36:
            raise Refused("malformed")
        if stage == "join":
            task = request[36:]
            if not possible(task):
                raise Refused("malformed")
            if request[4:36] != sha(label("task") + task):
                raise Refused("wrong_task")
        elif request[4:36] != self.session:
            raise Refused("wrong_task")
        return Reader(request[36:])

    def _join(self, body: Reader) -> bytes:
        if body.rest != self.task or self.certificate[:32] != self.task[109:]:
            raise Refused("wrong_task")
        self.share = self.given.get("share_private") or token_bytes(32)
        self.mask = self.given.get("mask_private") or token_bytes(32)
        keys = public_of(self.share) + public_of(self.mask)
        signature = self.identity.sign(label("round keys") + self.session + keys)
        self.record = self.device + self.certificate + keys + signature
        return self.record

    def _shares(self, body: Reader) -> bytes:
        signed = body.take(132)
        n, root, nonce = int.from_bytes(signed[:4], "little"), signed[4:36], signed[36:68]
        index, proof = body.number(), body.proof()
        members = []
        while body.rest:
            members.append((body.take(256), body.proof()))
        message = label("roster") + self.task + u32(n) + root + nonce
        if not verifies(self.trust["witness"], signed[68:], message):
            raise Refused("unsigned_roster")
        if n < self.least:
            raise Refused("cohort_too_small")
        found = parameters(n, self.dropout, self.corrupt)
        if found is None:
            raise Refused("no_parameters")
        k, t, survivors = found
        if not included(leaf_of(self.record), index, n, proof, root):
            raise Refused("not_in_roster")
        roster_hash = sha(message)
        slots = slots_of(index, roster_hash, n, k)
        if len(members) != k:
            raise Refused("malformed")
        self._check_neighbours(members, slots, n, root)
        self.n, self.k, self.t, self.survivors, self.index = n, k, t, survivors, index
        self.roster_hash, self.slots, self.records = roster_hash, slots, [record for record, _ in members]
        self.seed = self.given.get("seed") or token_bytes(32)
        rows = self.given.get("shares") or dealt((self.seed, self.mask), k, t)
        boxes = b"".join(self._seal(record, row) for record, row in zip(self.records, rows))
        commitment = sha(self.seed + self.release + self.device)
        signature = self.identity.sign(label("dealt") + roster_hash + commitment + sha(boxes))
        return commitment + signature + boxes

    def _check_neighbours(
        self, members: list[tuple[bytes, list[bytes]]], slots: list[int], n: int, root: bytes
    ) -> None:
        own, seen = names_of(self.record), set()
        for record, _ in members:
            names = names_of(record)
            if names & own:
                raise Refused("own_key")
            if len(names) < 3 or names & seen:
                raise Refused("repeated_key")
            seen |= names
        for (record, proof), slot in zip(members, slots):
            if not included(leaf_of(record), slot, n, proof, root):
                raise Refused("neighbour_not_in_roster")
        for record, _ in members:
            device, population, keys = record[:32], record[32:64], record[128:192]
            if not (
                population == self.task[109:]
                and verifies(self.trust["authority"], record[64:128], certificate_message(population, device))
                and verifies(device, record[192:], label("round keys") + self.session + keys)
                and usable(keys[:32])
                and usable(keys[32:])
            ):
                raise Refused("uncertified_key")

    def _box_key(self, record: bytes, sender: bytes, receiver: bytes) -> bytes:
        return hkdf(agreed(self.share, record[128:160]), label("share") + self.session + sender + receiver)

    def _seal(self, record: bytes, row: list[int]) -> bytes:
        key = self._box_key(record, self.device, record[:32])
        return AESGCM(key).encrypt(bytes(12), b"".join(map(u32, row)), None)

    def _opened(self, record: bytes, box: bytes) -> bytes | None:
        """The 72 bytes in a box, None where it is not good."""
        try:
            plain = AESGCM(self._box_key(record, record[:32], self.device)).decrypt(bytes(12), box, None)
        except InvalidTag:
            return None
        numbers = [int.from_bytes(plain[at : at + 4], "little") for at in range(0, 72, 4)]
        return plain if len(plain) == 72 and max(numbers) < P else None

    def _confirm(self, body: Reader) -> bytes:
        dealers = body.bitmap(self.n)
        boxes = []
        while body.rest:
            boxes.append(body.take(88))
        present = [dealers[slot] for slot in self.slots]
        if len(boxes) != sum(present):
            raise Refused("malformed")
        if sum(dealers) < max(self.survivors, self.least):
            raise Refused("too_few_survivors")
        if not dealers[self.index]:
            raise Refused("not_a_survivor")
        if sum(present) < self.t:
            raise Refused("too_few_neighbours")
        self.dealers, self.present = dealers, present
        self.held: list[bytes | None] = [None] * self.k
        bad, waiting = [], iter(boxes)
        for slot in range(self.k):
            if present[slot]:
                self.held[slot] = self._opened(self.records[slot], next(waiting))
                bad += [slot] if self.held[slot] is None else []
        if not bad:
            return u32(0xFFFFFFFF)
        self.complaint = SystemRandom().choice(bad)
        return u32(self.complaint)

    def _dispute(self, body: Reader) -> bytes:
        commitment, signature, boxes = body.take(32), body.take(64), body.take(88 * self.k)
        body.end()
        assert self.complaint is not None
        accused = self.records[self.complaint]
        message = label("dealt") + self.roster_hash + commitment + sha(boxes)
        if not verifies(accused[:32], signature, message):
            raise Refused("box_not_signed")
        # The slot of this device among the accused's: the same distance on the other side of the ring.
        slots = slots_of(self.slots[self.complaint], self.roster_hash, self.n, self.k)
        at = 88 * slots.index(self.index)
        if self._opened(accused, boxes[at : at + 88]) is not None:
            raise Refused("box_opens")
        return opening(self.share, accused[128:160], self.roster_hash)

    def _masked(self, body: Reader) -> bytes:
        body.end()
        vector = self.contribute(self.n)
        size, most = self.bits // 8, 2**self.bits
        total = [value % most for value in vector]

        def add(key: bytes, sign: int) -> None:
            mask = stream(key, size * self.length)
            for i in range(self.length):
                mine = int.from_bytes(mask[i * size : (i + 1) * size], "little")
                total[i] = (total[i] + sign * mine) % most

        add(hkdf(self.seed, label("self mask") + self.session + self.device), 1)
        for slot, record in enumerate(self.records):
            if self.present[slot]:
                lower, higher = sorted((self.device, record[:32]))
                secret = agreed(self.mask, record[160:192])
                key = hkdf(secret, label("pair mask") + self.session + lower + higher)
                add(key, 1 if self.device == lower else -1)
        return b"".join(value.to_bytes(size, "little") for value in total)

    def _unmask(self, body: Reader) -> bytes:
        alive, signature = body.bitmap(self.n), body.take(64)
        body.end()
        message = label("survivors") + self.roster_hash + packed_bits(self.dealers) + packed_bits(alive)
        if not verifies(self.trust["witness"], signature, message):
            raise Refused("unsigned_survivors")
        if sum(alive) < max(self.survivors, self.least):
            raise Refused("too_few_survivors")
        if not alive[self.index]:
            raise Refused("not_a_survivor")
        if sum(alive[slot] and p for slot, p in zip(self.slots, self.present)) < self.t:
            raise Refused("too_few_neighbours")
        shares = [
            NOTHING if held is None else held[:36] if alive[slot] else held[36:]
            for slot, held in zip(self.slots, self.held)
        ]
        return b"".join(shares)


def certificate_message(population: bytes, device: bytes) -> bytes:
    return label("device certificate") + population + device


def names_of(record: bytes) -> set[bytes]:
    return {record[:32], record[128:160], record[160:192]}


def possible(task: bytes) -> bool:
    """Whether a round can have this task."""
    if len(task) != 141:
        return False
    numbers = [int.from_bytes(task[at : at + 4], "little") for at in (57, 61, 65, 69)]
    length, least = int.from_bytes(task[52:56], "little"), int.from_bytes(task[73:77], "little")
    fractions = [(numbers[0], numbers[1]), (numbers[2], numbers[3])]
    return (
        task[56] in (32, 64)
        and 1 <= length < 2**28
        and least >= 1
        and all(top < bottom and Fraction(top, bottom).denominator == bottom for top, bottom in fractions)
    )

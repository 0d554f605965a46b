"""Prio3 again, slow and plain: one report, Python integers, any number of aggregators.

It imports nothing of fa_core. Polynomials are interpolated by Lagrange's formula and multiplied coefficient
by coefficient. The official vectors check it, and the product is compared with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

P64, P128 = 2**64 - 2**32 + 1, 2**128 - 7 * 2**66 + 1


class Xof(Protocol):
    def stream(self, seed: bytes, tag: bytes, binder: bytes, length: int) -> bytes: ...


class Circuit(Protocol):
    """What `Reference` needs to know of a circuit of one gadget, a sum of `chunk` products."""

    @property
    def p(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def joint(self) -> int:
        """Elements of joint randomness for one proof."""

    def wires(self, vector: Sequence[int], joint: Sequence[int], one: int) -> list[list[int]]: ...
    def outputs(
        self, vector: Sequence[int], joint: Sequence[int], one: int, results: Sequence[int]
    ) -> list[int]: ...
    def truncate(self, vector: Sequence[int]) -> list[int]: ...


@dataclass(frozen=True)
class Bits:
    """`length` bits and linear checks. Bit j of call k weighs r_k^(j+1), or u_k v^(j+1) if `factored`."""

    p: int
    length: int
    chunk: int
    linear: Callable[[Sequence[int], int], list[int]]
    """(vector, share of 1) to the linear checks."""
    truncated: Callable[[Sequence[int]], list[int]]
    factored: bool = False

    @property
    def calls(self) -> int:
        return -(-self.length // self.chunk)

    @property
    def joint(self) -> int:
        return self.calls + self.factored

    def truncate(self, vector: Sequence[int]) -> list[int]:
        return self.truncated(vector)

    def outputs(
        self, vector: Sequence[int], joint: Sequence[int], one: int, results: Sequence[int]
    ) -> list[int]:
        return [sum(results) % self.p, *self.linear(vector, one)]

    def wires(self, vector: Sequence[int], joint: Sequence[int], one: int) -> list[list[int]]:
        """Of each call, 2 * chunk."""
        out = []
        for k in range(self.calls):
            row = []
            for j in range(self.chunk):
                at = k * self.chunk + j
                bit = vector[at] if at < len(vector) else 0
                weight = (
                    joint[k] * pow(joint[-1], j + 1, self.p)
                    if self.factored
                    else pow(joint[k], j + 1, self.p)
                )
                row += [weight * bit % self.p, (bit - one) % self.p]
            out.append(row)
        return out


@dataclass(frozen=True)
class Reference:
    circuit: Circuit
    algorithm_id: int
    xof: Xof
    proofs: int
    aggregators: int = 2

    @property
    def p(self) -> int:
        return self.circuit.p

    @property
    def bytes_each(self) -> int:
        return 8 if self.p == P64 else 16

    @property
    def points(self) -> int:
        """Values of a wire's polynomial."""
        return 1 << self.circuit.calls.bit_length()

    @property
    def proof_length(self) -> int:
        return 2 * self.circuit.chunk + 2 * self.points - 1

    def checks(self) -> int:
        zeros = [0] * self.circuit.length
        return len(self.circuit.outputs(zeros, [0] * self.circuit.joint, 0, [0] * self.circuit.calls))

    def encode(self, values: Sequence[int]) -> bytes:
        return b"".join(value.to_bytes(self.bytes_each, "little") for value in values)

    def decode(self, data: bytes) -> list[int]:
        size = self.bytes_each
        return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]

    def tag(self, ctx: bytes, usage: int) -> bytes:
        return b"\x12\x00" + self.algorithm_id.to_bytes(4, "big") + usage.to_bytes(2, "big") + ctx

    def expand(self, seed: bytes, ctx: bytes, usage: int, binder: bytes, count: int) -> list[int]:
        candidates = self.decode(
            self.xof.stream(seed, self.tag(ctx, usage), binder, (count + 8) * self.bytes_each)
        )
        return [value for value in candidates if value < self.p][:count]

    def roots(self, n: int) -> list[int]:
        log = 32 if self.p == P64 else 66
        root = pow(7, (self.p - 1) >> log, self.p)
        root = pow(root, (1 << log) // n, self.p)
        return [pow(root, k, self.p) for k in range(n)]

    def interpolated(self, nodes: Sequence[int], values: Sequence[int], t: int) -> int:
        """The value at t of the polynomial of least degree with `values` at `nodes`."""
        total = 0
        for i, value in enumerate(values):
            above, below = value, 1
            for j, node in enumerate(nodes):
                if i != j:
                    above, below = above * (t - node) % self.p, below * (nodes[i] - node) % self.p
            total += above * pow(below, -1, self.p)
        return total % self.p

    def prove(self, vector: Sequence[int], blinds: Sequence[int], joint: Sequence[int]) -> list[int]:
        wires = [list(blinds), *self.circuit.wires(vector, joint, 1)]
        wires += [[0] * len(blinds)] * (self.points - len(wires))
        nodes = self.roots(self.points)
        polynomial = []
        for index, t in enumerate(self.roots(2 * self.points)[:-1]):
            at = [
                column[index // 2] if index % 2 == 0 else self.interpolated(nodes, column, t)
                for column in zip(*wires, strict=True)
            ]
            polynomial.append(sum(a * b for a, b in zip(at[::2], at[1::2], strict=True)) % self.p)
        return [*blinds, *polynomial]

    def query(
        self, vector: Sequence[int], proof: Sequence[int], random: Sequence[int], joint: Sequence[int]
    ) -> list[int]:
        one, arity = pow(self.aggregators, -1, self.p), 2 * self.circuit.chunk
        blinds, polynomial = proof[:arity], proof[arity:]
        results = [polynomial[2 * (k + 1)] for k in range(self.circuit.calls)]
        outputs = self.circuit.outputs(vector, joint, one, results)
        weights = random[: len(outputs)] if len(outputs) > 1 else [1]
        t = random[-1]
        wires = [blinds, *self.circuit.wires(vector, joint, one)]
        wires += [[0] * arity] * (self.points - len(wires))
        nodes = self.roots(self.points)
        return [
            sum(weight * output for weight, output in zip(weights, outputs, strict=True)) % self.p,
            *(self.interpolated(nodes, column, t) for column in zip(*wires, strict=True)),
            self.interpolated(self.roots(2 * self.points)[:-1], polynomial, t),
        ]

    def part(self, ctx: bytes, role: int, blind: bytes, nonce: bytes, vector: Sequence[int]) -> bytes:
        return self.xof.stream(blind, self.tag(ctx, 7), bytes((role,)) + nonce + self.encode(vector), 32)

    def joint_seed(self, ctx: bytes, parts: Sequence[bytes]) -> bytes:
        return self.xof.stream(bytes(32), self.tag(ctx, 6), b"".join(parts), 32)

    def joint(self, ctx: bytes, seed: bytes) -> list[list[int]]:
        return self.split(self.expand(seed, ctx, 3, bytes((self.proofs,)), self.proofs * self.circuit.joint))

    def split(self, values: Sequence[int]) -> list[list[int]]:
        """One list a proof."""
        size = len(values) // self.proofs
        return [list(values[at : at + size]) for at in range(0, len(values), size)]

    def helper(self, ctx: bytes, role: int, seed: bytes) -> tuple[list[int], list[int]]:
        vector = self.expand(seed, ctx, 1, bytes((role,)), self.circuit.length)
        return vector, self.expand(seed, ctx, 2, bytes((self.proofs, role)), self.proofs * self.proof_length)

    def shard(
        self, ctx: bytes, vector: Sequence[int], nonce: bytes, random: bytes
    ) -> tuple[bytes, list[bytes]]:
        seeds = [random[at : at + 32] for at in range(0, len(random), 32)]
        helpers, (blind, prove_seed) = list(zip(seeds[:-2:2], seeds[1:-2:2], strict=True)), seeds[-2:]
        own, parts = list(vector), []
        shares = [self.helper(ctx, role, seed) for role, (seed, _) in enumerate(helpers, 1)]
        for role, ((_, helper_blind), (share, _)) in enumerate(zip(helpers, shares, strict=True), 1):
            own = [(a - b) % self.p for a, b in zip(own, share, strict=True)]
            parts.append(self.part(ctx, role, helper_blind, nonce, share))
        parts.insert(0, self.part(ctx, 0, blind, nonce, own))
        blinds = self.split(
            self.expand(prove_seed, ctx, 4, bytes((self.proofs,)), self.proofs * 2 * self.circuit.chunk)
        )
        joint = self.joint(ctx, self.joint_seed(ctx, parts))
        proof = [value for pair in zip(blinds, joint, strict=True) for value in self.prove(vector, *pair)]
        for _, share in shares:
            proof = [(a - b) % self.p for a, b in zip(proof, share, strict=True)]
        return b"".join(parts), [self.encode(own) + self.encode(proof) + blind, *(a + b for a, b in helpers)]

    def begin(
        self, role: int, verify_key: bytes, ctx: bytes, nonce: bytes, public: bytes, share: bytes
    ) -> tuple[bytes, list[int], bytes]:
        """The verifier share, the output share, and the seed that `decide` must give."""
        blind = share[-32:]
        if role:
            vector, proofs = self.helper(ctx, role, share[:32])
        else:
            values = self.decode(share[:-32])
            vector, proofs = values[: self.circuit.length], values[self.circuit.length :]
        parts = [public[at : at + 32] for at in range(0, len(public), 32)]
        parts[role] = self.part(ctx, role, blind, nonce, vector)
        seed = self.joint_seed(ctx, parts)
        each = 1 + (self.checks() if self.checks() > 1 else 0)
        random = self.split(
            self.expand(verify_key, ctx, 5, bytes((self.proofs,)) + nonce, self.proofs * each)
        )
        verifier = []
        for proof, query, joint in zip(self.split(proofs), random, self.joint(ctx, seed), strict=True):
            verifier += self.query(vector, proof, query, joint)
        return self.encode(verifier) + parts[role], self.circuit.truncate(vector), seed

    def decide(self, ctx: bytes, shares: Sequence[bytes]) -> bytes | None:
        columns = zip(*(self.decode(share[:-32]) for share in shares), strict=True)
        for verifier in self.split([sum(column) % self.p for column in columns]):
            result, wires, test = verifier[0], verifier[1:-1], verifier[-1]
            if result or sum(a * b for a, b in zip(wires[::2], wires[1::2], strict=True)) % self.p != test:
                return None
        return self.joint_seed(ctx, [share[-32:] for share in shares])


def weights(largest: int) -> list[int]:
    """Of the bits of an integer in [0, largest]."""
    out = [1 << bit for bit in range(largest.bit_length() - 1)]
    return [*out, largest - sum(out)]


def bits(value: int, largest: int) -> list[int]:
    *low, last = weights(largest)
    if value > sum(low):
        return [*bits_of(value - last, len(low)), 1]
    return [*bits_of(value, len(low)), 0]


def bits_of(value: int, count: int) -> list[int]:
    return [value >> bit & 1 for bit in range(count)]


def integers(p: int, vector: Sequence[int], largest: int) -> list[int]:
    each = weights(largest)
    return [
        sum(weight * bit for weight, bit in zip(each, vector[at : at + len(each)], strict=True)) % p
        for at in range(0, len(vector), len(each))
    ]


def sum_vec(p: int, count: int, largest: int, chunk: int, factored: bool = False) -> Bits:
    length = count * len(weights(largest))
    return Bits(p, length, chunk, lambda _, __: [], lambda vector: integers(p, vector, largest), factored)


def histogram(p: int, count: int, chunk: int) -> Bits:
    return Bits(p, count, chunk, lambda vector, one: [(sum(vector) - one) % p], list)


def multihot(p: int, count: int, most: int, chunk: int) -> Bits:
    def linear(vector: Sequence[int], one: int) -> list[int]:
        return [(sum(vector[:count]) - integers(p, vector[count:], most)[0]) % p]

    return Bits(p, count + len(weights(most)), chunk, linear, lambda vector: list(vector[:count]))


def l1_bound(p: int, count: int, largest: int, chunk: int) -> Bits:
    def linear(vector: Sequence[int], one: int) -> list[int]:
        *values, claimed = integers(p, vector, largest)
        return [(sum(values) - claimed) % p]

    length = (count + 1) * len(weights(largest))
    return Bits(p, length, chunk, linear, lambda vector: integers(p, vector, largest)[:-1])

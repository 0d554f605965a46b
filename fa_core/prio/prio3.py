"""Prio3 with two aggregators: a device splits its vector in two shares with a proof, they check and sum.

Source: draft-irtf-cfrg-vdaf, section 7 (wire version 18). The leader's share is the whole vector and proof;
the helper's is a seed. Everything is a function of its arguments: nothing is random here but what the caller
gives, and that must come from the operating system (`secrets`). numpy is not constant-time.

What each caller owes:
- a device: `random` and `nonce` fresh for each report;
- the aggregators: one `verify_key` between them, secret from every device and fixed before the first report;
  a report, by its nonce, is taken once;
- `ctx` names the task, with all parameters of the circuit: Prio3 binds none of them itself.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fa_core.prio.field import Array, Field, centred
from fa_core.prio.flp import Circuit, decide, prove, query, sizes
from fa_core.prio.xof import Xof, expand

VERSION = 18
NONCE_SIZE = 16
LEADER: Literal[0] = 0
HELPER: Literal[1] = 1

# What a stream of the XOF is for (draft, table of constants of Prio3).
MEASUREMENT_SHARE, PROOF_SHARE, JOINT_RANDOM, PROVE_RANDOM, QUERY_RANDOM, JOINT_SEED, JOINT_PART = range(1, 8)


class Refusal(StrEnum):
    """Why a report is not counted. Says nothing of what is in it."""

    NONCE_SIZE = "nonce_size"
    PUBLIC_SIZE = "public_size"
    SHARE_SIZE = "share_size"
    NOT_AN_ELEMENT = "not_an_element"
    """An element of the leader's share is not below p."""
    TEST_POINT = "test_point"
    """The random point would disclose a wire: once in 2^64 / (points), by chance, never by the device."""
    NOT_DECIDED = "not_decided"
    """The proof does not hold, or there is no message for another reason."""
    JOINT_RANDOM = "joint_random"
    """The device's public share is not what the aggregators find."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Of one report."""

    public: bytes
    leader: bytes = field(repr=False)
    helper: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Input:
    """What one aggregator has of one report; `share` is its own."""

    nonce: bytes
    public: bytes
    share: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch between `begin` and `finish`: n reports. `inputs` and `seeds` are secret."""

    refused: tuple[Refusal | None, ...]
    verifiers: tuple[bytes, ...] = field(repr=False)
    """For the other aggregator; b"" where refused."""
    inputs: Array = field(repr=False)
    """(n, circuit.length): this aggregator's share of each vector; zeros where refused."""
    seeds: tuple[bytes, ...] = field(repr=False)
    """The seed of the joint randomness that each report was checked with."""


@dataclass(frozen=True, slots=True)
class Finished:
    accepted: NDArray[np.bool_]
    """(n,)"""
    refused: tuple[Refusal | None, ...]
    """None where accepted."""
    total: Array = field(repr=False)
    """(length,): the sum mod p of the accepted reports' output shares."""


@dataclass(frozen=True)
class Prio3:
    """`proofs` proofs of one circuit; Field64 with joint randomness needs three (draft, section 9.5)."""

    circuit: Circuit
    algorithm_id: int
    xof: Xof
    proofs: int

    @property
    def length(self) -> int:
        """Elements of an output share."""
        return self.circuit.output_length

    @cached_property
    def public_size(self) -> int:
        return 2 * self._blind_size

    @cached_property
    def leader_size(self) -> int:
        elements = self.circuit.length + self.proofs * sizes(self.circuit).proof
        return elements * self._field.size + self._blind_size

    @cached_property
    def helper_size(self) -> int:
        return self.xof.seed_size + self._blind_size

    @cached_property
    def verifier_size(self) -> int:
        return self.proofs * sizes(self.circuit).verifier * self._field.size + self._blind_size

    @property
    def message_size(self) -> int:
        return self._blind_size

    @property
    def random_size(self) -> int:
        return 2 * self.helper_size

    def shard(self, ctx: bytes, measurement: Any, nonce: bytes, random: bytes) -> Shares:
        """The shares of one report. `random`: `random_size` fresh bytes; `nonce`: 16.

        ValueError for wrong sizes, and for a measurement that the circuit does not encode.
        """
        (shares,) = self.shard_all(ctx, [measurement], [nonce], [random])
        return shares

    def shard_all(
        self, ctx: bytes, measurements: Sequence[Any], nonces: Sequence[bytes], randoms: Sequence[bytes]
    ) -> list[Shares]:
        """As `shard`, of several reports at once: for whoever plays many devices."""
        if any(len(each) != NONCE_SIZE for each in nonces) or any(
            len(each) != self.random_size for each in randoms
        ):
            raise ValueError(f"a nonce has {NONCE_SIZE} bytes and the randomness {self.random_size}")
        size = self.xof.seed_size
        seeds = [[each[at : at + size] for at in range(0, len(each), size)] for each in randoms]
        inputs = np.stack([self.circuit.encode(each) for each in measurements])
        helpers, prove_seeds = [each[0] for each in seeds], [each[-1] for each in seeds]
        helper_inputs = self._helper_inputs(ctx, helpers)
        leader_inputs = self._field.subtract(inputs, helper_inputs)
        parts: list[tuple[bytes, ...]] = [()] * len(seeds)
        leader_blinds = helper_blinds = [b""] * len(seeds)
        joint = self._field.zeros((len(seeds), self.proofs, 0))
        if self._blind_size:
            helper_blinds, leader_blinds = [each[1] for each in seeds], [each[2] for each in seeds]
            parts = [
                (
                    self._joint_part(
                        ctx, LEADER, leader_blinds[row], nonce, self._encoded(leader_inputs, row)
                    ),
                    self._joint_part(
                        ctx, HELPER, helper_blinds[row], nonce, self._encoded(helper_inputs, row)
                    ),
                )
                for row, nonce in enumerate(nonces)
            ]
            joint = self._joint_random(ctx, [self._joint_seed(ctx, *each) for each in parts])
        prove_random = self._expand(
            prove_seeds,
            self._tag(ctx, PROVE_RANDOM),
            [bytes((self.proofs,))] * len(seeds),
            sizes(self.circuit).prove_random,
        )
        proof = prove(self.circuit, inputs, prove_random, joint)
        leader_proof = self._field.subtract(proof, self._helper_proof(ctx, helpers))
        return [
            Shares(
                public=b"".join(parts[row]),
                leader=self._encoded(leader_inputs, row)
                + self._encoded(leader_proof, row)
                + leader_blinds[row],
                helper=helpers[row] + helper_blinds[row],
            )
            for row in range(len(seeds))
        ]

    def _encoded(self, values: Array, row: int) -> bytes:
        return self._field.encode(values[row])

    def begin(self, role: Literal[0, 1], verify_key: bytes, ctx: bytes, inputs: Sequence[Input]) -> Begun:
        """Check one's own share of each report: 0 is the leader, 1 the helper.

        ValueError for a `verify_key` of a wrong size. A report that is malformed is refused, and changes
        nothing for the others.
        """
        if len(verify_key) != self.xof.seed_size:
            raise ValueError(f"the verification key has {self.xof.seed_size} bytes, not {len(verify_key)}")
        refused = [self._malformed(role, report) for report in inputs]
        vectors = self._field.zeros((len(inputs), self.circuit.length))
        verifiers, seeds = [b""] * len(inputs), [b""] * len(inputs)
        rows = [row for row, refusal in enumerate(refused) if refusal is None]
        if rows:
            shares, proof, elements = self._expanded(role, ctx, [inputs[row].share for row in rows])
            parts, found = self._joint(role, ctx, [inputs[row] for row in rows], shares)
            query_random = self._expand(
                [verify_key] * len(rows),
                self._tag(ctx, QUERY_RANDOM),
                [bytes((self.proofs,)) + inputs[row].nonce for row in rows],
                sizes(self.circuit).query_random,
            )
            verifier, usable = query(
                self.circuit, shares, proof, query_random, self._joint_random(ctx, found), verifiers=2
            )
            for at, row in enumerate(rows):
                if not elements[at]:
                    refused[row] = Refusal.NOT_AN_ELEMENT
                elif not usable[at]:
                    refused[row] = Refusal.TEST_POINT
                else:
                    vectors[row], seeds[row] = shares[at], found[at]
                    verifiers[row] = self._field.encode(verifier[at]) + parts[at]
        return Begun(tuple(refused), tuple(verifiers), vectors, tuple(seeds))

    def decide(
        self, ctx: bytes, leader: Sequence[bytes], helper: Sequence[bytes]
    ) -> tuple[bytes | None, ...]:
        """The message with which both finish; None where a proof does not hold, or a share is malformed.

        The message is the seed of the joint randomness, b"" for a circuit without. ValueError for unlike
        lengths.
        """
        messages: list[bytes | None] = [None] * len(leader)
        rows = [
            row
            for row, pair in enumerate(zip(leader, helper, strict=True))
            if all(len(share) == self.verifier_size for share in pair)
        ]
        if not rows:
            return tuple(messages)
        size = self.verifier_size - self._blind_size
        shape = (len(rows), self.proofs, sizes(self.circuit).verifier)
        one, one_valid = self._field.decode(b"".join(leader[row][:size] for row in rows), shape)
        other, other_valid = self._field.decode(b"".join(helper[row][:size] for row in rows), shape)
        elements = (one_valid & other_valid).all(axis=(1, 2))
        valid = decide(self.circuit, self._field.add(one, other)) & elements
        for at, row in enumerate(rows):
            if valid[at]:
                messages[row] = self._joint_seed(ctx, leader[row][size:], helper[row][size:])
        return tuple(messages)

    def finish(self, begun: Begun, messages: Sequence[bytes | None]) -> Finished:
        """Sum the output shares of reports whose message is as expected. ValueError for unlike lengths."""
        refused = list(begun.refused)
        for row, (message, seed) in enumerate(zip(messages, begun.seeds, strict=True)):
            if refused[row] is not None:
                continue
            if message is None:
                refused[row] = Refusal.NOT_DECIDED
            elif not hmac.compare_digest(message, seed):
                refused[row] = Refusal.JOINT_RANDOM
        accepted = np.array([refusal is None for refusal in refused], dtype=np.bool_)
        total = self._field.sum(begun.inputs[accepted], axis=0)
        return Finished(accepted, tuple(refused), self.circuit.truncate(total[None])[0])

    def unshard(self, totals: Sequence[Array]) -> NDArray[np.int64]:
        """(length,): the integers of least absolute value that are the sum of `totals` mod p."""
        return centred(self._field, self._field.sum(np.stack([*totals]), axis=0))

    @property
    def _field(self) -> Field:
        return self.circuit.field

    @cached_property
    def _blind_size(self) -> int:
        """Bytes of a blind, a part and a seed of joint randomness: 0 for a circuit without."""
        return self.xof.seed_size if self.circuit.joint_length else 0

    def _tag(self, ctx: bytes, usage: int) -> bytes:
        """The domain separation tag: version, class 0 (VDAF), algorithm, usage; and the task."""
        return bytes((VERSION, 0)) + self.algorithm_id.to_bytes(4, "big") + usage.to_bytes(2, "big") + ctx

    def _expand(self, seeds: Sequence[bytes], tag: bytes, binders: Sequence[bytes], count: int) -> Array:
        """(n, proofs, count)"""
        flat = expand(self.xof, self._field, seeds, tag, binders, self.proofs * count)
        return flat.reshape(len(seeds), self.proofs, count)

    def _helper_inputs(self, ctx: bytes, seeds: Sequence[bytes]) -> Array:
        binders = [bytes((HELPER,))] * len(seeds)
        tag = self._tag(ctx, MEASUREMENT_SHARE)
        return expand(self.xof, self._field, seeds, tag, binders, self.circuit.length)

    def _helper_proof(self, ctx: bytes, seeds: Sequence[bytes]) -> Array:
        binders = [bytes((self.proofs, HELPER))] * len(seeds)
        return self._expand(seeds, self._tag(ctx, PROOF_SHARE), binders, sizes(self.circuit).proof)

    def _joint_part(self, ctx: bytes, role: int, blind: bytes, nonce: bytes, share: bytes) -> bytes:
        binder = bytes((role,)) + nonce + share
        return self.xof.stream(blind, self._tag(ctx, JOINT_PART), binder, self.xof.seed_size)

    def _joint_seed(self, ctx: bytes, leader_part: bytes, helper_part: bytes) -> bytes:
        if not self._blind_size:
            return b""
        zeros = bytes(self.xof.seed_size)
        return self.xof.stream(
            zeros, self._tag(ctx, JOINT_SEED), leader_part + helper_part, self.xof.seed_size
        )

    def _joint_random(self, ctx: bytes, seeds: Sequence[bytes]) -> Array:
        """(n, proofs, joint_length)"""
        if not self._blind_size:
            return self._field.zeros((len(seeds), self.proofs, 0))
        binders = [bytes((self.proofs,))] * len(seeds)
        return self._expand(seeds, self._tag(ctx, JOINT_RANDOM), binders, self.circuit.joint_length)

    def _malformed(self, role: Literal[0, 1], report: Input) -> Refusal | None:
        if len(report.nonce) != NONCE_SIZE:
            return Refusal.NONCE_SIZE
        if len(report.public) != self.public_size:
            return Refusal.PUBLIC_SIZE
        if len(report.share) != (self.leader_size, self.helper_size)[role]:
            return Refusal.SHARE_SIZE
        return None

    def _expanded(
        self, role: Literal[0, 1], ctx: bytes, shares: Sequence[bytes]
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Shares of vectors (n, length) and of proofs (n, proofs, proof); and (n,) are they all elements?"""
        n = len(shares)
        if role == HELPER:
            seeds = [share[: self.xof.seed_size] for share in shares]
            return self._helper_inputs(ctx, seeds), self._helper_proof(ctx, seeds), np.ones(n, dtype=np.bool_)
        size = self.leader_size - self._blind_size
        values, below = self._field.decode(b"".join(share[:size] for share in shares), (n, -1))
        length = self.circuit.length
        proof = values[:, length:].reshape(n, self.proofs, -1)
        return values[:, :length], proof, np.asarray(below.all(axis=1))

    def _joint(
        self, role: Literal[0, 1], ctx: bytes, inputs: Sequence[Input], shares: Array
    ) -> tuple[list[bytes], list[bytes]]:
        """Of each report: this aggregator's part of the joint randomness, and the seed that follows."""
        size = self._blind_size
        if not size:
            return [b""] * len(inputs), [b""] * len(inputs)
        parts, seeds = [], []
        for report, share in zip(inputs, shares, strict=True):
            encoded = self._field.encode(share)
            part = self._joint_part(ctx, role, report.share[-size:], report.nonce, encoded)
            other = report.public[size:] if role == LEADER else report.public[:size]
            parts.append(part)
            seeds.append(self._joint_seed(ctx, *((part, other) if role == LEADER else (other, part))))
        return parts, seeds

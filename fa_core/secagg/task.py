"""What a round is about, and the ways in which it can be refused or fail.

A `Task` is the public agreement of one round. Every signature, key and message of the round is bound to its
`session`, the hash of the task's bytes, so that nothing of one round can be used in another.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from hashlib import sha256

from fa_core.errors import RoundFailed

_TASK = struct.Struct("<32s16sIIBIIIII32s32s")
TASK_SIZE = _TASK.size
_U32 = 2**32

MAX_ATTEMPTS = 4
"""Attempts at one release. Every roster draws the ring of neighbours anew, and the chance that one is bad
(`parameters`) holds for each draw: who may draw many times finds a bad one."""


def label(name: str) -> bytes:
    """The domain-separation prefix of one use of a hash, a signature or a derived key."""
    return b"unheard/secagg/2 " + name.encode() + b"\x00"


class Stage(StrEnum):
    """The message rounds: five in order, and the one that follows a complaint at `confirm`."""

    JOIN = "join"
    SHARES = "shares"
    CONFIRM = "confirm"
    MASKED = "masked"
    UNMASK = "unmask"
    DISPUTE = "dispute"


IN_ORDER = (Stage.JOIN, Stage.SHARES, Stage.CONFIRM, Stage.MASKED, Stage.UNMASK)
"""The stages of a round in which nobody complains."""


class Reason(StrEnum):
    """Why a device refused. The code is all that leaves the device; it says nothing about its data."""

    MALFORMED = "malformed"
    OUT_OF_ORDER = "out_of_order"
    DIFFERENT_REQUEST = "different_request"
    WRONG_TASK = "wrong_task"
    COHORT_TOO_SMALL = "cohort_too_small"
    NO_PARAMETERS = "no_parameters"
    UNSIGNED_ROSTER = "unsigned_roster"
    NOT_IN_ROSTER = "not_in_roster"
    NEIGHBOUR_NOT_IN_ROSTER = "neighbour_not_in_roster"
    OWN_KEY = "own_key"
    UNCERTIFIED_KEY = "uncertified_key"
    REPEATED_KEY = "repeated_key"
    TOO_FEW_NEIGHBOURS = "too_few_neighbours"
    UNSIGNED_SURVIVORS = "unsigned_survivors"
    NOT_A_SURVIVOR = "not_a_survivor"
    TOO_FEW_SURVIVORS = "too_few_survivors"
    COMPLAINED = "complained"
    BOX_NOT_SIGNED = "box_not_signed"
    BOX_OPENS = "box_opens"


class Refusal(Exception):
    """A device declines to answer. It carries a fixed code and never a value, a key or a message."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class RoundFailure(RoundFailed):
    """The round cannot end in a sum; nothing is released. `missing` devices did not do their part."""

    def __init__(self, stage: Stage, missing: int, text: str) -> None:
        super().__init__(f"secure aggregation failed at {stage.value}: {text}")
        self.stage = stage
        self.missing = missing


@dataclass(frozen=True)
class Task:
    """The public facts of one round, equal for every party.

    `plan_hash`: SHA-256 of the plan's canonical bytes. `release` and `attempt` name the round. The vector has
    `length` entries in Z mod 2^`bits`. `dropout` is the largest share of the roster that may go missing and
    `corrupt` the largest share that may be dishonest. No round runs with fewer than `min_devices`.
    `context`: 32 bytes that stand for whatever else every device must be sent alike; zeros for nothing.
    `population`: the 32 bytes of the population that is charged; every certificate must name it.

    Raises ValueError when a field is outside its range.
    """

    plan_hash: bytes
    release: bytes
    attempt: int
    length: int
    bits: int
    dropout: Fraction
    corrupt: Fraction
    min_devices: int
    context: bytes = bytes(32)
    population: bytes = bytes(32)

    def __post_init__(self) -> None:
        sizes = tuple(map(len, (self.plan_hash, self.release, self.context, self.population)))
        if sizes != (32, 16, 32, 32):
            raise ValueError(
                "a task has a plan hash of 32 bytes, a release of 16, a context and a population of 32"
            )
        if self.bits not in (32, 64):
            raise ValueError(f"bits is {self.bits}: it is 32 or 64")
        if not (1 <= self.length < 2**28 and 0 <= self.attempt < _U32 and 1 <= self.min_devices < _U32):
            raise ValueError("length, attempt or min_devices is out of range")
        for name, share in (("dropout", self.dropout), ("corrupt", self.corrupt)):
            if not 0 <= share < 1 or share.denominator >= _U32:
                raise ValueError(f"{name} is {share}: it is a fraction in [0, 1) with a 32-bit denominator")

    def encode(self) -> bytes:
        """The task as 141 bytes; equal tasks have equal bytes."""
        return _TASK.pack(
            self.plan_hash,
            self.release,
            self.attempt,
            self.length,
            self.bits,
            *self.dropout.as_integer_ratio(),
            *self.corrupt.as_integer_ratio(),
            self.min_devices,
            self.context,
            self.population,
        )

    @classmethod
    def decode(cls, data: bytes) -> "Task":
        """The task of `data`. ValueError unless they are exactly the bytes that `encode` would make."""
        try:
            plan, release, attempt, length, bits, *rest = _TASK.unpack(data)
            fn, fd, gn, gd, least, context, population = rest
            dropout, corrupt = Fraction(fn, fd), Fraction(gn, gd)
        except (struct.error, ZeroDivisionError) as error:
            raise ValueError("these bytes are not a task") from error
        task = cls(plan, release, attempt, length, bits, dropout, corrupt, least, context, population)
        if task.encode() != data:
            raise ValueError("a task's fractions are in lowest terms")
        return task

    @cached_property
    def session(self) -> bytes:
        """32 bytes that name this round in every message, signature and derived key."""
        return sha256(label("task") + self.encode()).digest()

    @property
    def vector_size(self) -> int:
        """Bytes of one masked vector."""
        return self.length * self.bits // 8

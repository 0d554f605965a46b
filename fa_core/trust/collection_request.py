"""What the helper of two aggregators asks of the witness, before they collect and before it gives its share.

First to bind a charged release to one task:

    release 16 ‖ plan's hash 32 ‖ population 32 ‖ task's id 32 ‖ proof of the charge

The signature is over all but the proof, so that whoever knows the task can check it. Then to keep the hash of
the one noised share of that task's sum:

    release 16 ‖ task's id 32 ‖ hash 32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from fa_core.errors import BadInput
from fa_core.trust.charges import Round

TASK_SIZE: Final = 32
_LABEL: Final = b"unheard/collection/1 witness\x00"
_HEAD: Final = (16, 32, 32, TASK_SIZE)
_SHARE: Final = (16, TASK_SIZE, 32)


@dataclass(frozen=True, slots=True)
class CollectionRequest:
    """A release of two aggregators.

    Attributes:
        about: release, plan and population, with which the charge must agree.
        task: id of the one task that the charge pays for, 32 bytes.
        charge: a `ChargeProof`, encoded.
    """

    about: Round
    task: bytes
    charge: bytes

    def encode(self) -> bytes:
        """Return the request's bytes."""
        return self._head() + self.charge

    @classmethod
    def decode(cls, data: bytes) -> "CollectionRequest":
        """Return the request in `data`. Raises BadInput for fewer bytes than it must have."""
        if len(data) < sum(_HEAD):
            raise BadInput("it is too short")
        release, plan, population, task = _cut(data, _HEAD)
        return cls(Round(release, plan, population), task, data[sum(_HEAD) :])

    def message(self) -> bytes:
        """Return what the witness signs."""
        return _LABEL + self._head()

    def _head(self) -> bytes:
        return self.about.release + self.about.plan_hash + self.about.population + self.task


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """The share of a sum that a helper is about to give away.

    Attributes:
        release: id, 16 bytes. task: id of the task that the witness bound it to, 32 bytes.
        digest: hash of the noised share and of what was counted in it, 32 bytes.
    """

    release: bytes
    task: bytes
    digest: bytes

    def encode(self) -> bytes:
        """Return the request's bytes."""
        return self.release + self.task + self.digest

    @classmethod
    def decode(cls, data: bytes) -> "ShareRequest":
        """Return the request in `data`. Raises BadInput for another length."""
        if len(data) != sum(_SHARE):
            raise BadInput("it is of another length")
        return cls(*_cut(data, _SHARE))


def _cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return the first parts of `data`, of these sizes."""
    ends = list(accumulate(sizes))
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]

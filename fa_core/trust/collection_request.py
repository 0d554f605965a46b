"""What the witness is asked before two aggregators collect: to bind a charged release to one task.

    release 16 ‖ plan's hash 32 ‖ population 32 ‖ task's id 32 ‖ proof of the charge

The signature is over all but the proof, so that whoever knows the task can check it.
"""

from dataclasses import dataclass
from typing import Final

from fa_core.errors import BadInput
from fa_core.trust.charges import Round

TASK_SIZE: Final = 32
_LABEL: Final = b"unheard/collection/1 witness\x00"
_HEAD: Final = (16, 32, 32, TASK_SIZE)


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
        parts = []
        for size in _HEAD:
            parts.append(data[:size])
            data = data[size:]
        release, plan, population, task = parts
        return cls(Round(release, plan, population), task, data)

    def message(self) -> bytes:
        """Return what the witness signs."""
        return _LABEL + self._head()

    def _head(self) -> bytes:
        return self.about.release + self.about.plan_hash + self.about.population + self.task

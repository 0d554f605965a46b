"""The result of a controlled test set: the first gate of a rollout, passed before any device hears of it.

A test set is built from a recipe and both models are scored on it offline (`fa testset`). The result is one
JSON document, which the rollout names by its SHA-256 (`gate.test_set`): who signs the rollout signs it too.
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput

_BASES = ("baseline_bases", "candidate_bases")


@dataclass(frozen=True, slots=True)
class Condition:
    """Both models on the clips of one condition, e.g. an accent in noise, or a jingle.

    Attributes:
        name: what the condition is, in words.
        clips: clips in which the wake word is spoken, heard by both models; 0 where there are none.
        missed_by_baseline_alone, missed_by_candidate_alone: of those.
        hours: of audio without the wake word, heard by both; 0 where there is none.
        false_wakes_of_baseline, false_wakes_of_candidate: in those hours.
        misses_at_most: upper bound of how much more the candidate misses, as a share of the clips; one-sided,
            exact, at the result's level. None without clips.
        false_wakes_at_most: upper bound of how many more false wakes an hour it has, the same. None without
            hours.
    """

    name: str
    clips: int
    missed_by_baseline_alone: int
    missed_by_candidate_alone: int
    hours: float
    false_wakes_of_baseline: int
    false_wakes_of_candidate: int
    misses_at_most: float | None
    false_wakes_at_most: float | None


@dataclass(frozen=True, slots=True)
class ControlledResult:
    """What both models did on one test set.

    Attributes:
        test_set: hex SHA-256 of the set: its recipe, seed and clips.
        wake_word: that is spoken in it.
        baseline, candidate: hex SHA-256 of the two models.
        level: of the bounds, e.g. 0.95.
        misses_below, false_wakes_below: the margins that every condition's bounds must be under.
        conditions: at least one.
        baseline_bases, candidate_bases: hex SHA-256 of what thresholds and adapters changed as they were
            scored, the nearest first, since their own bytes do not say it; none for a head.
    """

    test_set: str
    wake_word: str
    baseline: str
    candidate: str
    level: float
    misses_below: float
    false_wakes_below: float
    conditions: tuple[Condition, ...]
    baseline_bases: tuple[str, ...] = ()
    candidate_bases: tuple[str, ...] = ()

    def document(self) -> bytes:
        """Return the canonical JSON, which is hashed; bases are left out where there are none."""
        return canonical({name: value for name, value in asdict(self).items() if value or name not in _BASES})

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical JSON: `gate.test_set` of a rollout."""
        return sha256(self.document()).hexdigest()

    @classmethod
    def from_document(cls, document: bytes) -> "ControlledResult":
        """Return the result in canonical JSON. Raises BadInput for any other bytes."""
        try:
            body: Any = json.loads(document)
            conditions = tuple(Condition(**each) for each in body.pop("conditions"))
            bases: dict[str, Any] = {name: tuple(body.pop(name, ())) for name in _BASES}
            found = cls(**body, conditions=conditions, **bases)
            sound = found.document() == document and bool(conditions)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BadInput("these bytes are no result of a controlled test set") from None
        if not sound:
            raise BadInput("these bytes are no result of a controlled test set")
        return found

    def failures(self) -> list[str]:
        """Return a sentence for each condition that is not under its margins; none where the set is passed.

        A condition that was measured in nothing fails as well: it shows nothing.
        """
        found = []
        for each in self.conditions:
            if each.misses_at_most is None and each.false_wakes_at_most is None:
                found.append(f"{each.name}: nothing was measured")
            if each.misses_at_most is not None and not each.misses_at_most < self.misses_below:
                found.append(
                    f"{each.name}: the candidate may miss {each.misses_at_most:.2%} more, "
                    f"and {self.misses_below:.2%} is too much"
                )
            if each.false_wakes_at_most is not None and not each.false_wakes_at_most < self.false_wakes_below:
                found.append(
                    f"{each.name}: the candidate may wake {each.false_wakes_at_most:.3g} times an hour more, "
                    f"and {self.false_wakes_below:.3g} is too much"
                )
        return found


def read_result(path: Path) -> ControlledResult:
    """Return the result in a file. Raises BadInput, naming the file, where there is none."""
    try:
        return ControlledResult.from_document(path.read_bytes().strip())
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}; `fa testset run` writes one") from None

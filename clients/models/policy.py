"""A policy as an artefact: what a device asks before it acts, and when it wakes less easily.

A rule is a closed form: an action, the intents that it is about (all where none is named), and the contexts
in which it holds (always where none is named; of several all must hold):

    {"rules":[{"action":"confirm","intents":["HassTurnOff"]},
              {"action":"tighter_threshold","contexts":["nobody_interacts"],"hours":[20,22],"threshold":"0.97"}]}

`confirm` has the device ask whether the command was meant, `unlock` has it done only while its owner has
unlocked the device, `tighter_threshold` raises the wake threshold and never lowers it.

What came of asking is a command's `confirmation` (`clients.runtime.labels.command_row`). An answer is also
the reaction `confirmed` or `denied` to the wake before, so it labels that wake, with the source `explicit`.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clients.models.thresholds import THRESHOLD
from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, problems

ContextName = Literal["nobody_interacts", "playback"]
Required = Literal["confirm", "unlock"]

NOBODY_INTERACTS = timedelta(minutes=10)
"""After so long without a reaction or a command nobody interacts with the device."""

_Hour = Annotated[int, Field(ge=0, le=24)]
_Label = Annotated[str, Field(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class Context:
    """What a device knows as it decides: the hour (UTC, 0 to 23), whether it is sounding, and whether nobody
    interacts with it."""

    hour: int
    playback: bool
    nobody_interacts: bool


class Rule(BaseModel):
    """One rule. `hours` are [start, end) in UTC, over midnight where start is after end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["confirm", "unlock", "tighter_threshold"]
    intents: Annotated[tuple[_Label, ...], Field(max_length=64)] = ()
    contexts: Annotated[tuple[ContextName, ...], Field(max_length=2)] = ()
    hours: tuple[_Hour, _Hour] | None = None
    threshold: Annotated[str, Field(pattern=f"^{THRESHOLD.pattern}$")] | None = None

    @model_validator(mode="after")
    def _of_its_action(self) -> "Rule":
        tighter = self.action == "tighter_threshold"
        if tighter != (self.threshold is not None):
            raise ValueError("a threshold belongs to the action tighter_threshold, and to no other")
        if tighter and self.intents:
            raise ValueError("a wake has no intent yet: tighter_threshold names none")
        if self.hours is not None and self.hours[0] == self.hours[1]:
            raise ValueError("hours from and to the same hour are none")
        return self

    def holds(self, context: Context) -> bool:
        """Return whether the rule holds in a context."""
        if self.hours is not None:
            start, end = self.hours
            within = start <= context.hour < end
            if not (within if start < end else not end <= context.hour < start):
                return False
        return all(getattr(context, name) for name in self.contexts)


class Policy(BaseModel):
    """The whole of a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=64)]

    def threshold(self, own: float, context: Context) -> float:
        """Return the threshold in a context: the model's own, or a tighter one."""
        tighter = [float(each.threshold) for each in self.rules if each.threshold and each.holds(context)]
        return max(own, *tighter) if tighter else own

    def required(self, intent: str, context: Context) -> Required | None:
        """Return what must happen before an intent is carried out; `unlock` where both are required."""
        found: set[Required] = {
            each.action
            for each in self.rules
            if each.action != "tighter_threshold" and each.holds(context)
            if not each.intents or intent in each.intents
        }
        return "unlock" if "unlock" in found else "confirm" if "confirm" in found else None


def encode(policy: Policy) -> bytes:
    """Return the canonical bytes of a policy; what is left out by default is left out."""
    return canonical(policy.model_dump(mode="json", exclude_defaults=True))


def parse(text: bytes) -> Policy:
    """Return the policy that somebody wrote, in any layout. Raises BadInput with what is wrong, by key."""
    try:
        return Policy.model_validate(json.loads(text))
    except ValidationError as error:
        raise BadInput("\n".join(f"this is no policy: {each}" for each in problems(error))) from None
    except (ValueError, OverflowError, RecursionError):
        raise BadInput("this is no policy: a JSON object with the key rules is expected") from None


def decode(data: bytes) -> Policy:
    """Return the policy in canonical bytes. Raises BadInput for anything else."""
    policy = parse(data)
    if encode(policy) != data:
        raise BadInput("these bytes are no policy: they are not in its one form")
    return policy

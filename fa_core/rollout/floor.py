"""The floor of a rollout, the oldest version that a device may go back to: against its models and the log.

A device keeps the highest floor that it ever saw of each name of a model, and refuses a rollout with a model
under one (`clients.rollout.belief`). So what is found here, every device would refuse, or would not heed.
"""

from collections.abc import Collection, Iterator, Sequence

from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import show
from fa_core.publication.versions import older
from fa_core.rollout.document import Model, Rollout

_FLOOR: Loc = ("models", "floor")


def above_models(rollout: Rollout) -> Iterator[Finding]:
    """Yield a finding where the floor is above the rollout's own baseline or candidate."""
    floor = rollout.models.floor
    for role, model in _models(rollout):
        if older(model.version, floor):
            found = f"floor {show(floor)} is above the {role}, {show(model.version)}: no device would load it"
            yield Finding(_FLOOR, found, f"write {show(_lowest(rollout))} at most")


def against_log(
    rollout: Rollout, registered: Collection[str], earlier: Sequence[Rollout]
) -> Iterator[Finding]:
    """Yield what is wrong with a floor where the log is known.

    Args:
        registered: versions of the models in the log for the rollout's wake word.
        earlier: rollouts that were started; those of another population or wake word do not count.
    """
    floor = rollout.models.floor
    if floor not in registered and not any(_ordered(floor, each.version) for _, each in _models(rollout)):
        found = f"no model is called {show(floor)}, and neither model of the rollout is a later version of it"
        right = f"write a version that `fa model list` shows, as {show(rollout.models.baseline.version)}"
        yield Finding(_FLOOR, found, right)
    for other in earlier:
        if other.pair != rollout.pair or other.hash == rollout.hash:
            continue
        before = other.models.floor
        if older(floor, before):
            found = (
                f"floor {show(floor)} is below {show(before)}, the floor of {other.name}: devices keep that"
            )
            yield Finding(_FLOOR, found, f"write {show(before)} or a later version")
        for role, model in _models(rollout):
            if older(model.version, before):
                found = f"{show(model.version)} is below {show(before)}, the floor of {other.name}"
                yield Finding(("models", role, "version"), found, f"write {show(before)} or a later version")


def _models(rollout: Rollout) -> tuple[tuple[str, Model], ...]:
    return ("baseline", rollout.models.baseline), ("candidate", rollout.models.candidate)


def _lowest(rollout: Rollout) -> str:
    """Return the older of the two models' versions, the baseline's where they have no order."""
    baseline, candidate = rollout.models.baseline.version, rollout.models.candidate.version
    return candidate if older(candidate, baseline) else baseline


def _ordered(one: str, other: str) -> bool:
    return one == other or older(one, other) or older(other, one)

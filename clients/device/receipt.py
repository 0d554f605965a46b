"""What a plan reads and costs, as the owner's receipt says it."""

from fractions import Fraction

from clients.device.journal import Json
from clients.device.trust import Believed
from fa_core.plan import Plan, TrainPlan, window_text
from fa_core.privacy.accounting import epsilon_for, pure_as_zcdp
from fa_core.tables import DEVICE_FACTS
from fa_core.values import Layout
from fa_core.wire.invitation import Invitation


def sources(plan: Plan) -> tuple[str, ...]:
    """Return the tables that a plan reads, in alphabetical order."""
    named = {spec.source for spec in plan.metrics.values() if spec.source is not None}
    joined = {name for spec in plan.metrics.values() for name in spec.companions}
    return tuple(sorted(named | joined))


def columns(plan: Plan) -> tuple[str, ...]:
    """Return the event columns that a plan reads, in alphabetical order; `time` always, for the window."""
    read = {"time", *plan.where}
    read |= {segment.column for segment in plan.segments.values() if segment.level == "event"}
    for spec in plan.metrics.values():
        read |= {use.column for use in spec.fields()}
        read |= {column for _, where in spec.conditions() for column in where}
    return tuple(sorted(read - set(DEVICE_FACTS)))


def facts(plan: Plan) -> tuple[str, ...]:
    """Return the device facts that a plan's segments and filters use, in alphabetical order."""
    used = {each.column for each in plan.segments.values() if each.level == "device"} | set(plan.where)
    for spec in plan.metrics.values():
        used |= {name for _, where in spec.conditions() for name in where}
    return tuple(sorted(used & set(DEVICE_FACTS)))


def cost(layout: Layout) -> Fraction:
    """Return a layout's whole cost in rho, the device's own currency."""
    return layout.cost if layout.accounting == "zcdp" else pure_as_zcdp(layout.cost)


def receipt(
    invitation: Invitation, believed: Believed, layout: Layout, rho: Fraction, zeros: str
) -> dict[str, Json]:
    """Return the journal's body for a contribution that was charged `rho`. `zeros` says why nothing was
    counted, "" if it was."""
    plan, signer = believed.plan, believed.signer
    return {
        "plan": plan.metadata.name,
        "revision": plan.metadata.revision,
        "question": plan.metadata.question,
        "owner": plan.metadata.owner,
        "hash": plan.hash,
        "signer": f"{signer.name} (key {signer.key.hex()[:16]})",
        "purpose": plan.eligibility.consent,
        "window": window_text(plan.window),
        "until": invitation.until.strftime("%Y-%m-%d %H:%M UTC"),
        "source": ", ".join(sources(plan)),
        "columns": ", ".join(columns(plan)),
        "facts": ", ".join(facts(plan)),
        "cells": layout.length,
        "protection": _protection(layout, plan),
        "noise": _noise(layout),
        "rho": str(rho),
        "cost": _at(rho, layout.epsilon),
        "zeros": zeros,
        "release": invitation.release.hex(),
        "attempt": invitation.attempt,
        **_training(plan, layout),
        **_two_aggregators(layout, rho),
    }


def _protection(layout: Layout, plan: Plan) -> str:
    if layout.kappa is not None:
        return "shared"
    return "masked" if plan.privacy.secure_aggregation else "unmasked"


def _noise(layout: Layout) -> str:
    if layout.kappa is not None:
        return "leader and helper"
    return "this device" if layout.noise == "distributed" else "the server"


def _two_aggregators(layout: Layout, rho: Fraction) -> dict[str, Json]:
    """Return what a receipt of a collection says beside: what a reader of the release, the leader and the
    helper face, of whom either aggregator knows its own noise (`fa_core.privacy.two_aggregators`)."""
    if layout.kappa is None:
        return {}
    faced = {"reader": rho / (1 + layout.kappa), "leader": rho, "helper": rho / layout.kappa}
    return {who: _at(cost, epsilon_for(cost, layout.delta)) for who, cost in faced.items()}


def _at(rho: Fraction, epsilon: float | Fraction) -> str:
    return f"rho {float(rho):.3g}" + (f" (epsilon {float(epsilon):.3g})" if rho else "")


def _training(plan: Plan, layout: Layout) -> dict[str, Json]:
    """Return what a receipt of clipped means says beside: what was sent names its speaker, and what tells
    two voices apart.

    The cost is against a device that adds nothing. Two voices in one group are up to twice as far apart as
    one from nothing, so against another voice it is up to 4 rho.
    """
    if not isinstance(plan, TrainPlan) or plan.method != "one_shot_means":
        return {}
    epsilon = epsilon_for(4 * layout.cost, layout.delta)
    return {"biometric": True, "between_voices": f"rho {float(4 * layout.cost):.3g} (epsilon {epsilon:.3g})"}

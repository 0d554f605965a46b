"""The plan language: YAML in, a frozen Plan out, or every problem with its place."""

from fa_core.plan.budget import UnsupportedRho, rho_of, with_rho
from fa_core.plan.document import from_canonical, load, parse
from fa_core.plan.policy import PlanPolicy
from fa_core.plan.problems import BadPlan, Problem
from fa_core.plan.schema import (
    OTHER,
    DeviceSegment,
    Eligibility,
    EventSegment,
    Guardrail,
    Metadata,
    Plan,
    Privacy,
    Segment,
    canonical,
    window_text,
)
from fa_core.plan.signing import SignedPlan, sign, verify
from fa_core.plan.training import TrainPlan

__all__ = [
    "OTHER",
    "BadPlan",
    "DeviceSegment",
    "Eligibility",
    "EventSegment",
    "Guardrail",
    "Metadata",
    "Plan",
    "PlanPolicy",
    "Privacy",
    "Problem",
    "Segment",
    "SignedPlan",
    "TrainPlan",
    "UnsupportedRho",
    "canonical",
    "from_canonical",
    "load",
    "parse",
    "rho_of",
    "sign",
    "verify",
    "window_text",
    "with_rho",
]

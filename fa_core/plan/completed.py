"""What an author leaves out, written out: a plan's canonical form says everything that devices rely on.

Only a plan that is read from YAML is completed. One that comes in canonical bytes says already what it says,
and what it lacks it lacks on purpose: plans of before are counted and read as they were.
"""

from fa_core.plan.schema import Privacy
from fa_core.plan.sections import Parts


def complete(parts: Parts) -> None:
    """Write out how counts are sent, in the parts of a plan."""
    privacy: Privacy | None = parts.fields.get("privacy")
    if privacy is None:
        return
    if privacy.counters is None:
        counters = "joint" if privacy.accounting == "zcdp" else "blocks"
        parts.fields["privacy"] = privacy.model_copy(update={"counters": counters})

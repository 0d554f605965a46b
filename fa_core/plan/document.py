"""Bytes to a Plan, and back from canonical bytes: the only two ways in which a plan comes to be."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from fa_core.errors import BadInput
from fa_core.plan.budget import UnsupportedRho, unsupported, with_rho
from fa_core.plan.checks import Situation, check
from fa_core.plan.completed import complete
from fa_core.plan.labels import check_labels
from fa_core.plan.located import Finding, Located
from fa_core.plan.policy import PlanPolicy
from fa_core.plan.problems import BadPlan, Position, Problem, Problems
from fa_core.plan.scalars import tree_of
from fa_core.plan.schema import Plan, Privacy, canonical
from fa_core.plan.sections import parts_of
from fa_core.plan.tree import MAX_BYTES
from fa_core.plan.words import what

DEFAULT_POLICY = PlanPolicy()

NO_RHO = "epsilon and delta are so small together that no noise is large enough"


def plan_files(folder: Path) -> list[Path]:
    """Return the plans in a directory by name: its files that end in .yaml or .yml, but for hidden ones."""
    found = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def load(
    path: Path | str,
    *,
    today: date | None = None,
    policy: PlanPolicy | None = DEFAULT_POLICY,
    fleet: int | None = None,
) -> Plan:
    """Read a plan from a YAML file and check it. The arguments and errors are `parse`'s.

    The size is checked before the file is read. Raises BadInput where it is no readable file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise BadInput(f"{path}: this is a directory; name one plan file in it")
        if not path.is_file():
            raise BadInput(f"{path}: there is no such file; the plans to start from are in eval_plans/")
        if (size := path.stat().st_size) > MAX_BYTES:
            problem = Problem(
                Position(1, 1), f"this file has {size:,} bytes", f"a plan has at most {MAX_BYTES:,}"
            )
            raise BadPlan(str(path), [problem])
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    return parse(data, str(path), today=today, policy=policy, fleet=fleet)


def parse(
    data: bytes,
    name: str,
    *,
    today: date | None = None,
    policy: PlanPolicy | None = DEFAULT_POLICY,
    fleet: int | None = None,
) -> Plan:
    """Return the plan that YAML bytes say.

    Args:
        data: the file's bytes, whatever they are.
        name: what the file is called in messages.
        today: the day (UTC) for the check of the expiry; the clock's where left out.
        policy: the organisation's limits; None checks none.
        fleet: public number of devices to be asked, to check that they can fill the groups.

    Raises:
        BadPlan: with every problem found, each as `name:line:column: what was found; what would be right`.

    >>> from datetime import date
    >>> text = b'''
    ... apiVersion: fa/v1
    ... kind: EvalPlan
    ... metadata: {name: misses, revision: 1, owner: quality, question: How often?, expires: 2027-03-31}
    ... source: wake_events
    ... window: 7d
    ... metrics: [false_reject_rate]
    ... privacy: {epsilon: 1}
    ... '''
    >>> plan = parse(text, "misses.yaml", today=date(2026, 11, 28), policy=None)
    >>> plan.privacy.rho, list(plan.metrics)
    (Fraction(172053180393, 10000000000000), ['false_reject_rate'])
    >>> from_canonical(canonical(plan)) == plan
    True
    """
    # Imported here: devices and servers read canonical bytes only, and a wrong path needs no YAML to be seen.
    from fa_core.plan.reader import read

    problems = Problems()
    root = read(data, problems)
    if root is None:
        raise BadPlan(name, problems.found)
    located = Located(root)
    values = tree_of(root, problems)
    if not isinstance(values, dict):
        problems.add(root.position, what(values), "a plan is a mapping, and begins with `apiVersion: fa/v1`")
        raise BadPlan(name, problems.found)
    parts = parts_of(values, located.text, written=True)
    complete(parts)
    situation = Situation(today or datetime.now(UTC).date(), policy, fleet, file=True)
    for finding in [*parts.findings, *check(parts, situation), *check_labels(parts)]:
        problems.add(located.place(finding), finding.found, finding.right)
    problems.raise_if_any(name)
    privacy = with_rho(parts.fields["privacy"])
    if privacy is None:
        finding = Finding(("privacy", "epsilon"), NO_RHO, "raise epsilon")
        problems.add(located.place(finding), finding.found, finding.right)
        raise BadPlan(name, problems.found)
    parts.fields["privacy"] = privacy
    return parts.plan()


def from_canonical(data: bytes) -> Plan:
    """Return the plan of canonical bytes, checked as in `parse` but for expiry, policy, fleet and labels.

    `canonical(from_canonical(data)) == data` holds for whatever it returns. Raises UnsupportedRho where the
    plan's rho does not imply its epsilon and delta, and BadInput for any other bytes, however close to a
    plan they come.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(f"these plan bytes are {len(data):,} long; a plan has at most {MAX_BYTES:,}")
    try:
        values = json.loads(data.decode("ascii"), parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError):
        raise BadInput("these bytes are not the canonical JSON of a plan; read YAML with `parse`") from None
    if not isinstance(values, dict):
        raise BadInput("these bytes are not a plan; its canonical form is one JSON object")
    parts = parts_of(values, _no_text, written=False)
    privacy: Privacy | None = parts.fields.get("privacy")
    if privacy is not None and (unproven := unsupported(privacy)) is not None:
        raise UnsupportedRho(_by_path(unproven))
    findings = [*parts.findings, *check(parts, Situation())]
    if findings:
        raise BadInput("\n".join(_by_path(finding) for finding in findings[:20]))
    plan = parts.plan()
    if canonical(plan) != data:
        raise BadInput(
            "these bytes say a plan, but not in its canonical form; they may not be hashed or signed"
        )
    return plan


def _by_path(finding: Finding) -> str:
    path = ".".join(str(step) for step in finding.loc) or "plan"
    return f"{path}: {finding.found}; {finding.right}"


def _no_text(loc: tuple[str | int, ...]) -> None:
    return None


def _no_float(text: str) -> Any:
    raise ValueError(f"{text} is no exact number")

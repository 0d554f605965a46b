"""A plan that uses every part of the language, and ways to break it."""

from datetime import date

from fa_core.errors import BadInput
from fa_core.plan import Plan, PlanPolicy, parse

TODAY = date(2026, 11, 22)

GOOD = """\
# yaml-language-server: $schema=../docs/eval-plan.schema.json
apiVersion: fa/v1
kind: EvalPlan
metadata:
  name: wake-word-weekly
  revision: 3
  owner: wake-word-quality
  question: Does any accent or device class miss the wake word more than the rest?
  expires: 2027-03-31
source: wake_events
window: 7d
where: {wake_word: okay_nabu, model_version: ["2.1"]}
segments:
  accent:       {device: accent, values: [en-US, en-GB, en-IN, es-en]}      # anything else: other
  device_class: {device: device_class, values: [phone, speaker, watch]}
  environment:  {event: snr_db, edges: [8, 18], labels: [noisy, moderate, quiet]}
  # playback:   {event: playback, values: [true, false]}
group_by: [[], [accent], [accent, device_class], [environment]]
metrics:
  false_reject_rate:
    kind: rate
    of: {outcome: false_reject}
    over: {outcome: [false_reject, true_accept]}
    expect: 0.05
  false_accepts_per_hour:
    kind: rate_per_hour
    of: {outcome: false_accept}
    expect: 0.5
  score:
    kind: histogram
    field: score
    edges: {from: 0, to: 1, bins: 25}
    by: outcome
    group_by: [[], [accent]]
eligibility: {require: [unmetered_network, charging, idle], consent: quality_metrics, sample: 0.2}
privacy:
  epsilon: 1.0
  delta: 1e-8
  noise: distributed
  max_events: 64
  min_cohort: 100
guardrails:
  - {metric: false_reject_rate, by: accent, max: 0.08}
  - {metric: false_reject_rate, by: accent, max_gap: 0.03}
"""


def good(text: str = GOOD, *, policy: PlanPolicy | None = None, fleet: int | None = None) -> Plan:
    """Parse a plan that should be good."""
    return parse(text.encode(), "plan.yaml", today=TODAY, policy=policy or PlanPolicy(), fleet=fleet)


def broken(old: str, new: str, text: str = GOOD) -> str:
    """Return a plan with the one place that reads `old` replaced."""
    assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
    return text.replace(old, new)


def complaints(
    data: str | bytes, *, policy: PlanPolicy | None = None, fleet: int | None = None, today: date = TODAY
) -> list[str]:
    """Return the lines that a bad plan is refused with, without the file's name."""
    data = data.encode() if isinstance(data, str) else data
    try:
        parse(data, "plan.yaml", today=today, policy=policy or PlanPolicy(), fleet=fleet)
    except BadInput as error:
        return [line.removeprefix("plan.yaml:") for line in str(error).split("\n")]
    return []

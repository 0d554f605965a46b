"""`fa plan preview` finds, in a real store, the release that a plan could be subtracted from."""

from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256

from fa_core.cli.earlier import earlier
from fa_core.plan import Plan, canonical, parse
from fa_core.privacy.differencing import sentence
from fa_core.store import Store
from fa_core.values import Estimates
from tests.store.samples import NOW, make_estimate, make_release, run

TEXT = """
apiVersion: fa/v1
kind: EvalPlan
metadata: {name: weekly, revision: 1, owner: us, question: Who is missed more?, expires: 2027-01-01}
source: wake_events
window: 7d
where: {wake_word: okay_nabu}
segments:
  accent: {device: accent, values: [en-US, es-en]}
group_by: [[], [accent]]
metrics: [false_reject_rate]
privacy: {epsilon: 1, delta: 1e-8}
"""


def plan(text: str) -> Plan:
    return parse(text.encode(), "plan.yaml", today=date(2026, 11, 1))


def put(store: Store, old: Plan) -> None:
    """A release of the plan about the week until NOW, with 880 devices, of which 22 noisily en-IN."""
    data = canonical(old)
    release = make_release()
    layout = replace(release.layout, plan_hash=sha256(data).hexdigest())
    counts = {"en-US": 660.0, "es-en": 110.0, "en-IN": 22.0}
    results = tuple(replace(make_estimate(label, 0.1), devices=count) for label, count in counts.items())
    estimates = Estimates(release.id, 0.95, results, ())
    run(store, replace(release, plan=data, layout=layout), estimates)


def test_an_accent_more_is_named_with_the_devices_counted_before(store: Store) -> None:
    put(store, plan(TEXT))
    new = plan(TEXT.replace("es-en", "es-en, en-IN"))
    (found,) = earlier(store, new, NOW, 10_000)
    assert found.isolated is not None
    assert found.isolated.column == "accent"
    assert "isolates accent en-IN where wake_word is okay_nabu" in sentence(found)
    assert "(about 250 devices at most)" in sentence(found), "22 of 880, of 10,000"


def test_another_week_and_another_table_do_not_overlap(store: Store) -> None:
    put(store, plan(TEXT))
    assert earlier(store, plan(TEXT), datetime(2026, 11, 30, tzinfo=UTC), 10_000) == ()
    other = TEXT.replace("wake_events", "command_events").replace("false_reject_rate", "correction_rate")
    assert earlier(store, plan(other.replace("where: {wake_word: okay_nabu}\n", "")), NOW, 10_000) == ()

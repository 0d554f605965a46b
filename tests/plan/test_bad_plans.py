"""Every check of the plan language: where the problem is, what was found, and what would be right."""

from datetime import date, timedelta
from fractions import Fraction

import pytest

from fa_core.plan import BadPlan, PlanPolicy, parse
from tests.plan.samples import GOOD, TODAY, broken, complaints, good

MARK, NEWLINE = "¦", "\n"

INSTEAD = [
    # (what a good plan says, what is written instead with the place of the complaint marked, the complaint)
    ("owner: wake-word-quality", "ownr: us", "`owner` is missing; add `owner:`"),
    ("owner: wake-word-quality", "¦ownr: us", "unknown key `ownr`; did you mean `owner`?"),
    ("window: 7d", "¦windows: 7d", "unknown key `windows`; did you mean `window`?"),
    ("    by: outcome\n", "    ¦buy: outcome\n", "unknown key `buy`; did you mean `by`?"),
    (
        "window: 7d",
        "window: 7d\n¦window: 8d",
        "`window` is written twice (first at line 11); keep one of them",
    ),
    ("bins: 25", "bins: 25, ¦bin: 3", "unknown key `bin`; did you mean `bins`?"),
    ("kind: rate\n", "kind: ¦rates\n", "unknown kind `rates`; did you mean `rate`?"),
    ("wake_word: okay_nabu", "wake_word: ¦no", "`no` without quotes is a truth value for some"),
    ("[en-US, en-GB", "[¦on, en-GB", "`on` without quotes is a truth value for some"),
    (
        '["2.1"]',
        "[¦2.10]",
        '`model_version` holds text, and `2.10` without quotes is not; write "2.10" in quotes',
    ),
    (
        '["2.1"]',
        "¦2.10",
        '`model_version` holds text, and `2.10` without quotes is not; write "2.10" in quotes',
    ),
    ('["2.1"]', "{not: ¦2026-11-22}", "`model_version` holds text, and `2026-11-22` without quotes"),
    ("owner: wake-word-quality", "owner: ¦12", '`12` is a whole number; write "12" in quotes'),
    (
        "owner: wake-word-quality",
        "owner: ¦2026-11-22",
        '`2026-11-22` is a date; write "2026-11-22" in quotes',
    ),
    ("owner: wake-word-quality", "¦owner:", "nothing is written here; write a text"),
    ("max_events: 64", "max_events: ¦0x40", "`0x40` without quotes is a hexadecimal"),
    ("max_events: 64", "max_events: ¦064", "`064` without quotes is a hexadecimal, octal"),
    ("max_events: 64", "max_events: ¦1_000", "`1_000` without quotes is a number with separators"),
    ("max_events: 64", "max_events: ¦1:30", "`1:30` without quotes is a number to base 60"),
    ("max_events: 64", "max_events: ¦6.4", "`6.4` is a number; write a whole number"),
    ("max_events: 64", "max_events: ¦true", "`true` is a truth value; write a whole number"),
    ("noise: distributed", "secure_aggregation: ¦1", "`1` is a whole number; write true or false"),
    ("expires: 2027-03-31", "expires: ¦31.3.2027", "`31.3.2027` is text; write a date such as 2027-03-31"),
    ("expires: 2027-03-31", "expires: ¦2027-02-30", "`2027-02-30` without quotes is a date that does not"),
    ("epsilon: 1.0", "epsilon: ¦.nan", "`.nan` is not a finite number"),
    ("epsilon: 1.0", "epsilon: ¦-.inf", "`-.inf` is not a finite number"),
    ("epsilon: 1.0", "epsilon: ¦inf", "`inf` is not a finite number"),
    (
        "epsilon: 1.0",
        "epsilon: ¦9999999999999999999999999999999999999999",
        "`9999999999999999999999999999999999999999` is out of range",
    ),
    ("epsilon: 1.0", "epsilon: ¦1e99999999", "`1e99999999` is out of range"),
    ("epsilon: 1.0", "epsilon: ¦1e-30", "`1e-30` is out of range"),
    ("max_events: 64", "max_events: ¦١", "`١` is text; write a whole number"),
    ("epsilon: 1.0", "epsilon: ¦'1_0'", "`1_0` is text; write a number in plain decimal digits"),
    ("    expect: 0.5\n", "    max_hours: ¦true\n", "`true` is a truth value; write a whole number"),
    ("bins: 25", "bins: ¦25.0", "`25.0` is a number; write a whole number"),
    ("epsilon: 1.0", "epsilon: ¦one", "`one` is text; write a number"),
    ("epsilon: 1.0", "epsilon: ¦[1]", "a list stands here; write a number"),
    ("name: wake-word-weekly", "name: ¦Weekly", "`Weekly` is no name"),
    ("name: wake-word-weekly", "name: ¦aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""),
    ("environment:  {event", "¦Environment:  {event", "`Environment` is no name"),
    ("  score:\n", "  ¦2score:\n", "`2score` is no name"),
    ("revision: 3", "revision: ¦0", "`0` is out of range; write at least 1"),
    ("owner: wake-word-quality", 'owner: ¦""', "this is empty; write something"),
    (
        "owner: wake-word-quality",
        "owner: ¦" + "x" * 101,
        "",
    ),
    ("owner: wake-word-quality", 'owner: ¦"a\\x07b"', "`a\\u0007b` contains the control or invisible"),
    ("owner: wake-word-quality", 'owner: ¦"a\\u202eb"', "`a\\u202eb` contains the control or invisible"),
    (
        "source: wake_events",
        "source: ¦wake_event",
        "`wake_event` is not known here; did you mean `wake_events`?",
    ),
    ("source: wake_events\n", "", "this metric has no `source`; add `source:` to the plan or to the metric"),
    ("window: 7d", "window: ¦1 week", "`1 week` is text; write a length of time such as 7d, 24h or 30m"),
    ("window: 7d", "window: ¦0d", ""),
    ("{device: accent,", "{device: ¦accents,", "`accents` is not known here; did you mean `accent`?"),
    ("event: snr_db", "event: ¦snr", "no table has a column `snr`; did you mean `snr_db`?"),
    ("en-IN, es-en]", "en-IN, ¦en-US]", "`en-US` is here twice; keep one of them"),
    ("en-IN, es-en]", "en-IN, ¦other]", "the label `other` is declared; take it out"),
    ("[en-US, en-GB, en-IN, es-en]", "¦[]", "this is empty; write something"),
    ("edges: [8, 18]", "edges: [8, ¦8]", "the edge 8 is not above 8 before it"),
    ("edges: [8, 18]", "edges: [18, ¦8]", "the edge 8 is not above 18 before it"),
    ("edges: [8, 18]", "edges: [8]", "labels here: 3, parts that the edges make: 2"),
    (
        "edges: [8, 18], ",
        "",
        "how to divide the column is not clear; give `values`, or `edges` together with `labels`",
    ),
    ("{event: snr_db, ", "¦{event: snr_db, values: [1], ", "how to divide the column is not clear"),
    ("{event: snr_db, ", "¦{event: snr_db, device: accent, ", "both `device` and `event` are given"),
    ("{event: snr_db, ", "¦{", "neither `device` nor `event` is given"),
    ("event: snr_db", "event: outcome", "`outcome` is no number, so it has no edges; cut it by `values`"),
    ("edges: [8, 18], labels: [noisy, moderate, quiet]", "values: ¦[8]", "`snr_db` is a measured number"),
    (
        "event: snr_db",
        "event: score",
        "the edge 8 leaves a part that nothing falls into; `score` lies from 0 to 1",
    ),
    (
        "# playback:   {event: playback, values: [true, false]}",
        'playback: {event: playback, values: [¦"true"]}',
        "`playback` is true or false, never `true`",
    ),
    (
        "# playback:   {event: playback, values: [true, false]}",
        "playback: {event: outcome, values: [¦false_rejects]}",
        "`outcome` is never `false_re",
    ),
    (
        "# playback:   {event: playback, values: [true, false]}",
        "playback: {event: hour, values: [¦24]}",
        "`hour` is never 24; it lies from 0 to 23",
    ),
    (
        "[accent], [accent, d",
        "[¦accents], [accent, d",
        "no segment is named `accents`; did you mean `accent`?",
    ),
    ("[accent, device_class]", "[accent, ¦accent]", "`accent` is twice in one grouping; keep one of them"),
    ("[accent, device_class]", "¦[accent]", "`[accent]` is here twice; keep one: each is charged for"),
    (
        "group_by: [[], [accent], [accent",
        "group_by: [¦accent, [accent], [accent",
        "`accent` is text; write `[[accent]]`: each grouping is itself a list",
    ),
    (
        "    group_by: [[], [accent]]\n",
        "    group_by: [¦[device_class]]\n",
        "`[device_class]` is not in the plan's `group_by`",
    ),
    (
        "    group_by: [[], [accent]]\n",
        "    group_by: [[¦acent]]\n",
        "no segment is named `acent`; did you mean",
    ),
    ("where: {wake_word", "where: {¦wake_wrd", "`wake_events` has no column `wake_wrd`, which"),
    ("where: {wake_word: okay_nabu", "where: {outcome: [¦x]", "`outcome` is never `x`; write one of"),
    (
        "where: {wake_word: okay_nabu",
        "where: {¦outcome: true_accept",
        "`listening` has no column `outcome`, which",
    ),
    ("where: {wake_word: okay_nabu", "where: {¦time: yesterday", "`listening` has no column `time`"),
    ("where: {wake_word: okay_nabu", "where: {snr_db: ¦loud", "`snr_db` is a number, never `loud`"),
    ("where: {wake_word: okay_nabu", "where: {snr_db: {lt: ¦loud}", "`loud` is text; write a number"),
    ("where: {wake_word: okay_nabu", "where: {snr_db: ¦{lt: 3, gt: 8}", "nothing is above 8 and below 3"),
    ("where: {wake_word: okay_nabu", "where: {snr_db: ¦{less: 3}", "unknown comparison 'less'"),
    (
        "where: {wake_word: okay_nabu",
        "where: {playback: ¦maybe",
        "`playback` is true or false, never `maybe`",
    ),
    ("where: {wake_word: okay_nabu", "where: {playback: {gt: ¦0}", "`playback` has no order to compare by"),
    ("where: {wake_word: okay_nabu", "where: {hour: ¦25", "`hour` is never 25; it lies from 0 to 23"),
    ("where: {wake_word: okay_nabu", "where: {wake_word: ¦[]", "an empty list matches nothing"),
    ("of: {outcome: false_reject}", "of: {outcome: ¦false_rejct}", "`outcome` is never `false_re"),
    (
        "of: {outcome: false_reject}",
        "of: {¦words: 3}",
        "`wake_events` has no column `words`; it is a column of",
    ),
    ("    of: {outcome: false_reject}\n", "", "`of` is missing; add `of:` (The events that count)"),
    ("field: score", "field: ¦scores", "`wake_events` has no column `scores`; did you mean `score`?"),
    ("field: score", "field: ¦outcome", "`field` cannot be `outcome`, a column of type label"),
    ("by: outcome", "by: ¦wake_word", "`by` cannot be `wake_word`, a column of type label; write one of"),
    ("expect: 0.05", "expect: ¦1.5", "`1.5` is a number; write a rate above 0 and below 1"),
    (
        "{from: 0, to: 1, bins: 25}",
        "¦{from: 1, to: 0, bins: 25}",
        "a mapping stands here; write `from` below `to`",
    ),
    ("kind: histogram", "preset: ¦dett", "unknown preset `dett`; did you mean `det`?"),
    ("    kind: histogram\n", "", "neither `kind` nor `preset` is given"),
    ("charging, idle]", "¦chargin, idle]", "`chargin` is not known here; did you mean `charging`?"),
    ("consent: quality_metrics", "consent: ¦all", "`all` is not known here; write one of `quality_metrics`"),
    ("sample: 0.2", "sample: ¦0", "`0` is out of range; write more than 0"),
    ("sample: 0.2", "sample: ¦1.5", "`1.5` is out of range; write at most 1"),
    ("epsilon: 1.0", "epsilon: ¦0", "`0` is out of range; write more than 0"),
    ("epsilon: 1.0", "epsilon: ¦-1", "`-1` is out of range; write more than 0"),
    ("epsilon: 1.0", "epsilon: ¦4.5", "epsilon 4.5 is over the policy; write at most 4"),
    ("delta: 1e-8", "delta: ¦0.01", "delta 0.01 is not below 1/min_cohort = 1/100"),
    ("delta: 1e-8", "delta: ¦0.001", "delta 0.001 is over the policy; write at most 0.00001"),
    ("delta: 1e-8", "delta: ¦0", "delta is 0; write more than 0"),
    ("min_cohort: 100", "min_cohort: ¦49", "min_cohort 49 is under the policy; write at least 50"),
    ("max_events: 64", "max_events: ¦0", "`0` is out of range; write at least 1"),
    ("max_events: 64", "max_events: ¦1001", "max_events 1001 is over the policy; write at most 1000"),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  ¦max_excess: 20",
        "max_excess is gone: it narrowed no interval, and hid the worst groups; take it out, and lower",
    ),
    (
        "noise: distributed",
        "noise: central\n  accounting: pure\n  counters: ¦joint",
        "joint counters need Gaussian noise, which has no pure epsilon; write `counters: blocks`",
    ),
    (
        "max_events: 64",
        "max_events: ¦3000",
        "with this a device can have any of 4,504,500 counts, too many to try for its bound; lower it",
    ),
    (
        "    expect: 0.5\n",
        "    expect: 0.5\n    max_hours: ¦300\n",
        "with this a device can have any of 21,438,600 counts, too many to try for its bound; lower it",
    ),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  shares: [{metric: ¦false_reject_rates, share: 0.1}]",
        "no metric is named `false_reject_rates`; did you mean `false_reject_rate`?",
    ),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  shares: [{metric: score, by: ¦environment, share: 0.1}]",
        "`score` does not report `[environment]`; share among `[]`, `[accent]`",
    ),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  shares: [{metric: score, share: 0.1}, ¦{metric: score, share: 0.2}]",
        "this grouping has a share already; keep one of them",
    ),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  shares: ¦[{metric: score, share: 0.5}, {metric: score, by: accent, share: 1/2}]",
        "the shares add up to 1, and leave nothing for 8 other groupings; make them less than 1 together",
    ),
    (
        "min_cohort: 100",
        "min_cohort: 100\n  shares: [{metric: score, share: ¦0}]",
        "`0` is out of range; write more than 0",
    ),
    ("noise: distributed", "secure_aggregation: ¦false", "distributed noise without secure aggregation"),
    ("noise: distributed", "accounting: ¦pure", "pure accounting needs geometric noise"),
    ("noise: distributed", "mechanism: ¦geometric", "geometric noise in a zCDP ledger is never narrower"),
    ("noise: distributed", "dropout: ¦0.45", "dropout and corrupt add up to 0.55"),
    ("noise: distributed", "noise: ¦none", "`none` is not known here; write one of"),
    ("by: accent, max: 0.08", "by: accent", "this guardrail has no limit; give `max`, `min` or `max_gap`"),
    ("by: accent, max_gap", "max_gap", "a gap needs groups; say which with `by`"),
    ("false_reject_rate, by: accent, max:", "¦frr, by: accent, max:", "no metric is named `frr`"),
    ("by: accent, max:", "by: ¦acent, max:", "no segment is named `acent`; did you mean `accent`?"),
    ("by: accent, max:", "by: ¦device_class, max:", "`false_reject_rate` does not report `[device_class]`"),
    ("max: 0.08", "max: ¦1", "1 is no limit for this rate; write at least 0 and less than 1"),
    ("max_gap: 0.03", "max_gap: ¦-0.1", "-0.1 is no limit for this rate; write at least 0 and"),
    ("false_reject_rate, by: accent, max:", "¦score, by: accent, max:", "a histogram has no single number"),
]


WRONG = [broken(old, new) for old, new, _ in INSTEAD]


def read_mark(text: str) -> tuple[str, str]:
    """Return the text without its mark, and the place of the mark as line:column: with a blank."""
    before, mark, after = text.partition(MARK)
    place = f"{before.count(NEWLINE) + 1}:{len(before) - before.rfind(NEWLINE)}: " if mark else ""
    return before + after, place


@pytest.mark.parametrize("old,new,words", INSTEAD, ids=[new[:40] for _, new, _ in INSTEAD])
def test_a_mistake_is_reported_with_its_place_and_remedy(old: str, new: str, words: str) -> None:
    text, place = read_mark(broken(old, new))
    found = complaints(text)
    assert any(line.startswith(place + words) or (not place and words in line) for line in found), found
    assert len(found) <= 4, "a mistake must not bury its own line under its consequences"


def test_every_line_says_place_found_and_right() -> None:
    for text in WRONG:
        for line in complaints(read_mark(text)[0]):
            place, _, sentence = line.partition(": ")
            row, _, column = place.partition(":")
            assert int(row) >= 1, line
            assert int(column) >= 1, line
            assert "; " in sentence, line


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = GOOD
    for old, new in (
        ("revision: 3", "revision: x"),
        ("window: 7d", "window: x"),
        ("epsilon: 1.0", "epsilon: 0"),
    ):
        text = broken(old, new, text)
    found = complaints(text)
    assert [line.split(":")[0] for line in found] == ["6", "11", "37"]


def test_a_thousand_mistakes_are_shortened_to_a_screenful() -> None:
    found = complaints(GOOD + "".join(f"x{index}: 1\n" for index in range(1000)))
    assert len(found) == 51
    assert found[-1] == " and 950 more; mend these first"


def test_problems_can_be_read_by_a_program() -> None:
    with pytest.raises(BadPlan) as caught:
        parse(broken("window: 7d", "window: x").encode(), "plan.yaml", today=TODAY)
    (problem,) = caught.value.problems
    assert (problem.position.line, problem.position.column) == (11, 9)
    assert problem.right.startswith("write a length of time")
    assert caught.value.exit_code == 2


def test_a_plan_is_good_up_to_and_on_its_last_day() -> None:
    last = date(2027, 3, 31)
    assert complaints(GOOD, today=last) == []
    (line,) = complaints(GOOD, today=last + timedelta(days=1))
    assert line.startswith("9:12: this plan expired on 2027-03-31; write 2027-04-01 or a later day")


def test_a_policy_may_be_stricter_or_looser() -> None:
    strict = PlanPolicy(max_epsilon=Fraction(1, 2), max_window=timedelta(days=1), max_cells=100)
    found = complaints(GOOD, policy=strict)
    assert found[0].startswith("11:9: a window of 7d is over the policy; look back at most 1d")
    assert "this plan makes a vector of" in found[1]
    assert found[2].startswith("37:12: epsilon 1 is over the policy; write at most 0.5")
    loose = PlanPolicy(max_epsilon=Fraction(10), min_cohort=2)
    assert good(broken("epsilon: 1.0", "epsilon: 9"), policy=loose).privacy.epsilon == 9


def test_a_plan_must_not_have_more_groups_than_the_fleet_can_fill() -> None:
    """Four accents by three classes are twelve groups of 100 devices."""
    assert complaints(GOOD, fleet=1200) == []
    (line,) = complaints(GOOD, fleet=1199)
    assert line.startswith(
        "18:26: `[accent, device_class]` makes 12 groups of at least 100 devices; 1,199 devices"
    )


def test_an_event_level_segment_needs_its_column_in_every_table_that_is_read() -> None:
    text = broken(
        "{event: snr_db, edges: [8, 18], labels: [noisy, moderate, quiet]}",
        "{event: outcome, values: [true_accept]}",
    )
    found = complaints(text)
    assert found == [
        "25:3: `[environment]` groups by `outcome`, which `listening` lacks; "
        "give this metric a `group_by` of its own, without it"
    ]


COMPARISON = broken(
    "  score:\n",
    "  ab: {kind: paired_difference, of: {outcome: false_reject}, "
    "compare: {baseline: '2.1', candidate: '2.2'}}\n  score:\n",
)


def test_a_filter_must_not_leave_out_half_of_a_comparison() -> None:
    (line,) = complaints(COMPARISON)
    assert line.startswith(
        "12:46: this leaves out `2.2`, which `ab` compares; take `model_version` out of the filter"
    )
    assert complaints(broken('["2.1"]', '["2.1", "2.2"]', COMPARISON)) == []


@pytest.mark.parametrize(
    "text,complaint",
    [
        ("[a, b]", "1:1: a list stands here; a plan is a mapping"),
        ("just words", "1:1: `just words` is text; a plan is a mapping"),
        ("metrics: []", "no metric is written here"),
        ("metrics: 5", "a whole number; write a list of presets"),
        ("metrics: [det, det]", "1:16: `det` is named twice"),
        ("metrics: [dett]", "1:11: unknown preset `dett`; did you mean `det`?"),
        ("metrics: [{kind: det}]", "1:11: a mapping stands here; in a list, write names of presets"),
        ("segments: [accent]", "1:11: a list stands here; write one `name:"),
        ("guardrails: {metric: x}", "1:13: a mapping stands here; write a list of"),
        ("privacy: high", "1:10: `high` is text; write a mapping of `key: value` lines"),
        ("where: true", "1:8: `true` is a truth value; write `column: value`"),
        ("1: 2", "1:1: as a key, `1` is a whole number; a key is a name"),
        ("no: 2", "1:1: `no` without quotes is a truth value"),
    ],
)
def test_a_part_of_the_wrong_shape_is_reported(text: str, complaint: str) -> None:
    assert any(complaint in line for line in complaints(text)), complaints(text)

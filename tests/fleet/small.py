"""A bank small enough for a test: a few real hearings, lent to every cell of the script."""

from functools import cache
from itertools import cycle

import pyarrow as pa

from clients.fleet.bank import SCHEMA, Utterance, describe, score, script

SPOKEN = (
    Utterance("wake", "en-US", 0, "en-us", "okay nabu", (("phone", 27.0), ("speaker", 27.0)), 0),
    Utterance("wake", "en-US", 2, "en-us+f3", "okay nabu", (("watch", 7.0),), 1),
    Utterance("near_miss", "en-US", 0, "en-us", "I caught a new bus.", (("phone", 27.0),), 2),
    Utterance("near_miss", "en-US", 0, "en-us", "Okay, now do it again.", (("phone", 17.0),), 3),
    Utterance("television", "", 0, "en-us", "Okay, now you.", (("speaker", 27.0),), 4),
    Utterance("television", "", 0, "en", "Okay, now Bruno.", (("speaker", 27.0),), 5),
    Utterance("television", "", 0, "en", "Okay, the bonus round.", (("speaker", 27.0),), 6),
    Utterance("human", "", 0, "", "1", (("watch", 17.0),), 7),
    Utterance("command", "en-US", 0, "en-us", "cancel the timer", (("phone", 27.0),), 8, "cancel_timer"),
    Utterance("command", "es-en", 0, "es", "turn on the hall light", (("speaker", 7.0),), 9, "turn_on"),
    Utterance("dictation", "en-US", 0, "en-us", "tell david that i am early today", (("phone", 27.0),), 10),
    Utterance("dictation", "it-en", 0, "it", "tell david that i am early today", (("speaker", 7.0),), 11),
)


@cache
def real_rows() -> tuple[dict[str, object], ...]:
    """Score the few utterances, once a test run."""
    return tuple(row for utterance in SPOKEN for row in score(utterance))


@cache
def small_bank() -> pa.Table:
    """Return a bank with every cell of the real one, filled with what was really scored, in turn."""
    lent = {u.kind: cycle([row for row in real_rows() if row["kind"] == u.kind]) for u in SPOKEN}
    rows = []
    for utterance in script():
        for device_class, snr_db in utterance.hearings:
            place = {"accent": utterance.accent, "speaker": utterance.speaker}
            place |= {"device_class": device_class, "snr_db": snr_db}
            rows.append({**next(lent[utterance.kind]), **place})
    return describe(pa.Table.from_pylist(rows, schema=SCHEMA))

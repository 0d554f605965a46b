"""Hearings of speech that is drawn, not spoken: es-en lies apart from all others, and the head misses it."""

from functools import cache

import numpy as np
import pyarrow as pa

from clients.fleet.bank import MODEL_VERSIONS, thresholds
from clients.fleet.hearings import Hearings, script
from clients.personal.adapter import Windows
from clients.personal.learn import logit
from tests.fleet.small import small_bank

APART = "es-en"
WAKE, NOT = 2.0, -6.0
"""Logits of the head for the wake word as others say it, and for anything else."""


@cache
def drawn() -> Hearings:
    """Return a window for each hearing of the script."""
    random, windows = np.random.default_rng(0), []
    for said in script():
        wakes = said.utterance.kind == "wake" and said.kind not in ("near", "phrase")
        for _ in said.utterance.hearings:
            features = 0.08 * random.standard_normal((1, 96))  # speakers differ: a mean is under the clip
            if wakes:
                features[0, 5 if said.accent == APART else 6] += 0.8
            level = (NOT / 2 if said.accent == APART else WAKE) if wakes else NOT
            windows.append(Windows(np.array([level + 0.2 * random.standard_normal()]), features))
    return Hearings.made(script(), windows)


@cache
def bank() -> pa.Table:
    """Return the small bank with the head's scores of these hearings."""
    table, heard = small_bank(), drawn()
    levels = np.array([float(heard.windows[at].base[0]) for at in heard.of("bank")])
    levels += logit(thresholds(table)[MODEL_VERSIONS[1]])
    scores = table["score_b"].to_numpy().copy()
    scores[: len(levels)] = 0.5 * (1.0 + np.tanh(0.5 * levels))
    return table.set_column(table.schema.get_field_index("score_b"), "score_b", pa.array(scores))

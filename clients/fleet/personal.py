"""What devices record that learned their owner: a row of the adapter beside the base's, of each moment.

Simulation only, by seed. On a share of the devices an adapter acts on the frozen base (`embed-1`), which is
heard beside it. Its logit is the base's and a gain: of the device for speech that was meant, of the moment
for any other. The rates here are choices, made to be plausible, not measurements (`scripts/bench/personal.py`
has those).
"""

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fa_core.publication.artefact import PERSONAL
from fa_core.tables import LABEL_SOURCES, OUTCOMES

BASE: Final = "embed-1"
"""The model version of the one row; the other is `PERSONAL`."""

GAIN: Final = (3.0, 1.0)
"""Mean and spread among devices of what the adapter adds to the logit of its owner's wake word,"""
MISLED: Final = (0.05, -2.0)
"""but for a share of devices that learned wrong labels, whose gain is this."""
OTHERS_SPREAD: Final = 0.3
"""Of what it adds to the logit of anything else, in either direction."""

_SMALLEST: Final = 1e-9
_SOURCES: Final = tuple(LABEL_SOURCES.index(name) for name in ("follow_up", "retry", "cancel", "near_miss"))


def with_adapters(
    events: pa.Table, threshold: float, share: float, randomness: np.random.Generator
) -> pa.Table:
    """Return rows of `wake_events` with those of adapters behind the base's, on a share of the devices.

    `threshold` is the base's score, over which both wake. Devices without an adapter keep the rows they had.
    """
    device, version, outcome = (
        events[name].combine_chunks() for name in ("device_id", "model_version", "outcome")
    )
    places = device.indices.to_numpy()
    owners = len(device.dictionary)
    learned = randomness.random(owners) < share
    gain = np.where(randomness.random(owners) < MISLED[0], MISLED[1], randomness.normal(*GAIN, owners))
    of_base = version.indices.to_numpy() == version.dictionary.index(BASE).as_py()
    row = np.flatnonzero(of_base & learned[places])
    meant = np.isin(np.array(outcome.dictionary.to_pylist())[outcome.indices.to_numpy()[row]], OUTCOMES[:2])
    score = np.clip(events["score"].to_numpy()[row], _SMALLEST, 1 - _SMALLEST)
    added = np.where(meant, gain[places[row]], randomness.normal(0.0, OTHERS_SPREAD, row.size))
    adapted = 1.0 / (1.0 + np.exp(-(np.log(score / (1 - score)) + added)))
    wakes = adapted > threshold
    found = np.where(meant, np.where(wakes, 0, 1), np.where(wakes, 2, 3))
    columns = {
        "model_version": _labels(np.zeros(row.size, np.int64), (PERSONAL,)),
        "score": pa.array(adapted),
        "accepted": pa.array(wakes),
        "outcome": _labels(found, OUTCOMES),
        "label_source": _labels(np.array(_SOURCES)[found], LABEL_SOURCES),
    }
    theirs = events.take(pa.array(row))
    for name, column in columns.items():
        theirs = theirs.set_column(theirs.schema.get_field_index(name), name, column)
    order = np.argsort(np.concatenate([np.arange(len(events)), row]), kind="stable")
    return pa.concat_tables([events, theirs]).unify_dictionaries().take(pa.array(order))


def _labels(codes: NDArray[np.int64], names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))

"""What devices of a drawn fleet keep for training: moments of wake words that their owners said."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clients.fleet.habits import Devices
from clients.fleet.phrases import WAKE_WORD
from fa_core.tables import MOMENTS, VECTOR

KEPT: Final = (3, 6)
"""A device keeps so many moments: from the first to just before the second."""


@dataclass(frozen=True)
class Takes:
    """Vectors of wake words, by who says them to which class of device.

    Attributes:
        base: hex SHA-256 of the head whose moments they are.
        vectors: float32 (accents, speakers, device classes, takes, 97).
    """

    base: str
    vectors: NDArray[np.float32]

    def table(
        self, devices: Devices, ids: pa.Array, weeks: tuple[datetime, int], randomness: np.random.Generator
    ) -> pa.Table:
        """Return the moments of some devices, each of its owner's voices: rows of `MOMENTS` by device.

        `weeks`: their end, and how many there are.
        """
        count = randomness.integers(*KEPT, len(ids))
        device = np.repeat(np.arange(len(ids)), count)
        below = devices.speakers[device].cumsum(axis=1)[:, :-1] <= randomness.random((device.size, 1))
        take = randomness.integers(self.vectors.shape[3], size=device.size)
        found = self.vectors[devices.accent[device], below.sum(axis=1), devices.device_class[device], take]
        ago = randomness.integers(1, int(timedelta(weeks=weeks[1]).total_seconds()), device.size)
        time = pa.array(int(weeks[0].timestamp()) - ago, pa.int64()).cast(pa.timestamp("s", "UTC"))
        columns = {
            "device_id": pa.DictionaryArray.from_arrays(pa.array(device, pa.int32()), ids),
            "time": time,
            "wake_word": _label(WAKE_WORD, device.size),
            "base": _label(self.base, device.size),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), VECTOR),
        }
        schema = MOMENTS.arrow_schema(device_id=True)
        return pa.table(columns).select(schema.names).cast(schema)


def _label(text: str, rows: int) -> pa.Array:
    codes = pa.array(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(codes, pa.array([text]))

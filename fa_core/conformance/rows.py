"""A device's rows as the adapter protocol writes them, as the tables that counting reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from fa_core.tables import STORED, arrow_type


def arrow_tables(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, pa.Table]:
    """Return tables by source.

    Args:
        rows: source to rows, each column to text, a number, true or false, or None where it is missing;
            `time` in microseconds since 1970.
    """
    return {name: _table(name, each) for name, each in rows.items()}


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = {}
    for column, spec in STORED[name].columns.items():
        values = [row.get(column) for row in rows]
        kind = arrow_type(spec.type)
        array = pa.array(values, pa.int64()) if spec.type == "time" else pa.array(values, kind)
        columns[column] = array.cast(kind)
    return pa.table(columns)

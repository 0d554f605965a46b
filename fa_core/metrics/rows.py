"""What a metric sees of a device's tables: columns as numpy arrays, filters, and the bounded sample.

The same code serves one device and a chunk of a fleet: rows are sorted by device, and a device's
result depends on its own rows and its own randomness only, never on who else is in the chunk.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fa_core.arrays import AnyArray, BoolArray, FloatArray, Int64Array, UInt64Array, np
from fa_core.metrics.filters import Condition, Filter
from fa_core.tables import DEVICE_FACTS, HOUR, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa


HOUR_US: Final = 3_600_000_000

Priorities = Callable[[str, Int64Array, Int64Array], UInt64Array]
"""(purpose, device (M,), ordinal of the row within its device (M,)) -> random priorities (M,)."""


Facts = Mapping[str, tuple[Int64Array, tuple[str, ...]]]
NO_FACTS: Final[Facts] = MappingProxyType({})


class Rows:
    """The rows of one source that lie in the window, for `devices` devices, sorted by device.

    Args:
        table: Arrow table with the source's columns (string columns dictionary-encoded or plain).
        device: int64 (M,), nondecreasing device index of each row.
        facts: fact of the devices to codes (D,) and labels, -1 for missing. In a filter it is a column that
            is the same in all rows of a device.
    """

    def __init__(self, table: "pa.Table", device: Int64Array, facts: Facts = NO_FACTS) -> None:
        self._table = table
        self._facts = facts
        self.device = device
        self._arrays: dict[str, tuple[AnyArray, tuple[str, ...] | None]] = {}

    def __len__(self) -> int:
        return len(self.device)

    @cached_property
    def time(self) -> Int64Array:
        """Microseconds since 1970, UTC, int64 (M,)."""
        return np.asarray(_column(self._table, "time").cast("int64").to_numpy(zero_copy_only=False))

    @cached_property
    def hour_start(self) -> Int64Array:
        """The start of the hour each row falls in, microseconds since 1970."""
        return self.time - self.time % HOUR_US

    def labels(self, column: str) -> tuple[Int64Array, tuple[str, ...]]:
        """Return a label column as codes (M,) into a tuple of labels; -1 stands for missing."""
        codes, names = self._load(column)
        if names is None:
            raise TypeError(f"{column} is not a label column")
        return np.asarray(codes, dtype=np.int64), names

    def numbers(self, column: str) -> FloatArray:
        """Return a number, integer or boolean column as float64 (M,); NaN stands for missing."""
        values, names = self._load(column)
        if names is not None:
            raise TypeError(f"{column} is not a number column")
        return np.asarray(values, dtype=np.float64)

    def vectors(self, column: str) -> FloatArray:
        """Return a column of vectors as float64 (M, VECTOR)."""
        values = _column(self._table, column).flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float64).reshape(len(self), VECTOR)

    def codes(self, column: str, values: tuple[str, ...]) -> Int64Array:
        """Return the index of each row's value in `values`, len(values) for anything else, int64 (M,)."""
        if self._has_labels(column):
            codes, names = self.labels(column)
            order = {value: index for index, value in enumerate(values)}
            lookup = np.array([order.get(name, len(values)) for name in names] + [len(values)], np.int64)
            return lookup[codes]
        numbers = self.numbers(column)
        result = np.full(len(self), len(values), np.int64)
        for index, value in enumerate(values):
            result[numbers == _number(value)] = index
        return result

    def bins(self, column: str, edges: tuple[float, ...]) -> Int64Array:
        """Return the interval of each row's number: 0 below edges[0], len(edges) from edges[-1] on,
        len(edges) + 1 where missing; int64 (M,)."""
        numbers = self.numbers(column)
        found = np.searchsorted(np.asarray(edges), numbers, side="right").astype(np.int64)
        return np.where(np.isnan(numbers), np.int64(len(edges) + 1), found)

    def mask(self, where: Filter) -> BoolArray:
        """Return which rows satisfy every condition, bool (M,). A missing value satisfies none."""
        result = np.ones(len(self), np.bool_)
        for column, condition in where.items():
            result &= self._satisfies(column, condition)
        return result

    def _satisfies(self, column: str, condition: Condition) -> BoolArray:
        if self._has_labels(column):
            codes, names = self.labels(column)
            allowed = np.array([_allows(condition, name) for name in names] + [False], np.bool_)
            return np.asarray(allowed[codes])
        numbers = self.numbers(column)
        result = ~np.isnan(numbers)
        if condition.any_of is not None:
            result &= np.isin(numbers, [float(value) for value in condition.any_of])
        if condition.not_any_of is not None:
            result &= ~np.isin(numbers, [float(value) for value in condition.not_any_of])
        for bound, compare in (
            (condition.lt, np.less),
            (condition.le, np.less_equal),
            (condition.gt, np.greater),
            (condition.ge, np.greater_equal),
        ):
            if bound is not None:
                result &= compare(numbers, float(bound))
        return result

    def _has_labels(self, column: str) -> bool:
        # Imported here: every metric's specification imports this module, and needs no Arrow for itself.
        from pyarrow import types

        if column in DEVICE_FACTS:
            return True
        if column == HOUR:
            return False
        kind = self._table.schema.field(column).type
        return bool(types.is_string(kind) or types.is_dictionary(kind))

    def _load(self, column: str) -> tuple[AnyArray, tuple[str, ...] | None]:
        if column not in self._arrays:
            if column in DEVICE_FACTS:
                unknown = np.full(int(self.device.max(initial=-1)) + 1, -1, np.int64)
                codes, names = self._facts.get(column, (unknown, ()))
                self._arrays[column] = (codes[self.device], names)
            elif column == HOUR:
                self._arrays[column] = ((self.time // HOUR_US % 24).astype(np.float64), None)
            else:
                self._arrays[column] = _to_numpy(_column(self._table, column))
        return self._arrays[column]


class View:
    """The tables of some devices inside a window, and the randomness that samples them.

    Args:
        devices: number of devices D; device indices are 0 … D − 1.
        rows: source name to its rows.
        priorities: the source of randomness (the operating system's, or a simulation's seed).
    """

    def __init__(self, devices: int, rows: Mapping[str, Rows], priorities: Priorities) -> None:
        self.devices = devices
        self._rows = rows
        self._priorities = priorities

    def rows(self, source: str) -> Rows:
        """Return the rows of a source. Raises KeyError where the device has no such table."""
        return self._rows[source]

    def sample(
        self, purpose: str, device: Int64Array, limit: int, group: Int64Array | None = None
    ) -> Int64Array:
        """Return the indices of a uniformly random subset of at most `limit` entries a device (or group).

        Args:
            purpose: names the draw, so that two draws of one metric are apart.
            device: int64 (M,), nondecreasing device of each candidate.
            limit: entries that one device may keep; one group where `group` is given.
            group: int64 (M,), nondecreasing, each within one device; such as the hour of an event.

        Returns:
            int64, increasing indices into the candidates.
        """
        unit = device if group is None else group
        counts = np.bincount(unit)
        if len(device) == 0 or counts.max() <= limit:
            return np.arange(len(device), dtype=np.int64)
        crowded = np.flatnonzero(counts[unit] > limit)
        ordinal = crowded - _starts(device)[device[crowded]]
        priority = self._priorities(purpose, device[crowded], ordinal)
        keep = np.ones(len(device), np.bool_)
        keep[crowded] = _smallest(priority, unit[crowded], limit)
        return np.flatnonzero(keep)

    def round_at_random(
        self, purpose: str, device: Int64Array, numerator: Int64Array, denominator: Int64Array
    ) -> Int64Array:
        """Return numerator/denominator rounded down or up at random, so that its expectation is exact.

        Args:
            purpose: names the draw, so that two draws of one metric are apart.
            device: int64 (M,), nondecreasing device of each quotient.
            numerator, denominator: int64 (M,), at least 0 and at least 1.

        Returns:
            int64 (M,), each between the floor and the ceiling of its quotient.
        """
        whole, rest = numerator // denominator, numerator % denominator
        open_ = np.flatnonzero(rest)
        ordinal = open_ - _starts(device)[device[open_]]
        drawn = self._priorities(purpose, device[open_], ordinal) >> np.uint64(11)
        whole[open_] += drawn * 2.0**-53 < rest[open_] / denominator[open_]
        return whole


def _starts(device: Int64Array) -> Int64Array:
    """Return where each device's entries start, by device, int64. `device` is nondecreasing."""
    counts = np.bincount(device)
    return np.cumsum(counts) - counts


def _smallest(priority: UInt64Array, owner: Int64Array, limit: int) -> BoolArray:
    """Return which entries are among the `limit` of smallest priority of their owner, bool (M,).

    `owner` is nondecreasing, each with at least `limit` entries; of equal priorities the first come first.
    """
    number = np.cumsum(np.diff(owner, prepend=owner[0]) != 0)
    first = np.flatnonzero(np.diff(number, prepend=-1))
    # One sort of plain integers decides by the upper half of each priority, which is seldom equal.
    upper = (number.astype(np.uint64) << np.uint64(32)) | (priority >> np.uint64(32))
    keep = np.asarray(upper <= np.sort(upper)[first + limit - 1][number])
    if np.count_nonzero(keep) > limit * len(first):
        order = np.lexsort((priority, number))
        keep[order] = np.arange(len(order)) - first[number] < limit
    return keep


def _column(table: "pa.Table", name: str) -> "pa.Array":
    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.unify_dictionaries().combine_chunks()


def _to_numpy(array: "pa.Array") -> tuple[AnyArray, tuple[str, ...] | None]:
    from pyarrow import types

    if types.is_string(array.type):
        array = array.dictionary_encode()
    if types.is_dictionary(array.type):
        indices = array.indices.fill_null(-1) if array.null_count else array.indices
        return indices.to_numpy(zero_copy_only=False), tuple(array.dictionary.to_pylist())
    if array.null_count:
        # Unsafe: a whole number that no float is equal to is rounded; a cast that raises would make a device
        # drop out for what it holds.
        array = array.cast("float64", safe=False).fill_null(float("nan"))
    return array.to_numpy(zero_copy_only=False), None


def _allows(condition: Condition, name: str) -> bool:
    if condition.any_of is not None and name not in condition.any_of:
        return False
    return condition.not_any_of is None or name not in condition.not_any_of


def _number(value: str) -> float:
    if value in ("true", "false"):
        return 1.0 if value == "true" else 0.0
    try:
        return float(value)
    except ValueError:
        return float("nan")

"""The metric algebra: every kind declares its cells, its bounds, its counts and its estimate.

Each kind is one module of this package; importing the package finds them all, so adding a kind is
adding a file. `KINDS` maps a kind's name to its class, `PRESETS` the usual metrics to their text.
"""

from importlib import import_module
from pkgutil import iter_modules

from fa_core.metrics.filters import Condition, Exact, Filter, exact, exact_text
from fa_core.metrics.kind import (
    KINDS,
    Axis,
    Bounds,
    FieldUse,
    MetricSpec,
    Part,
    PartSum,
    Reading,
    Result,
    Shape,
    register,
)
from fa_core.metrics.presets import ALIASES, PRESETS
from fa_core.metrics.rows import Rows, View

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ALIASES",
    "KINDS",
    "PRESETS",
    "Axis",
    "Bounds",
    "Condition",
    "Exact",
    "FieldUse",
    "Filter",
    "MetricSpec",
    "Part",
    "PartSum",
    "Reading",
    "Result",
    "Rows",
    "Shape",
    "View",
    "exact",
    "exact_text",
    "register",
]

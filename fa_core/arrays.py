"""numpy and the types of our arrays, for the modules that a plan is checked with.

Checking a plan needs no array, and importing numpy costs more than the check. So `np` here is numpy, imported
when something of it is first used; type checkers see numpy itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["AnyArray", "BoolArray", "FloatArray", "Int64Array", "TextArray", "UInt64Array", "np"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    AnyArray = NDArray[np.generic]
    BoolArray = NDArray[np.bool_]
    FloatArray = NDArray[np.float64]
    Int64Array = NDArray[np.int64]
    TextArray = NDArray[np.object_]
    UInt64Array = NDArray[np.uint64]
else:

    class _Numpy:
        """Stands for numpy until a name of it is asked for, and keeps the names that were."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module("numpy"), name)
            setattr(self, name, found)
            return found

    np = _Numpy()
    AnyArray = BoolArray = FloatArray = Int64Array = TextArray = UInt64Array = Any

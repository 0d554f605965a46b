"""The bound on what one device may add: here, and nowhere else."""

from fa_core.arrays import Int64Array, np


def scale_to_l1(counts: Int64Array, limit: int) -> Int64Array:
    """Return each row scaled down so that the sum of its absolute values is at most `limit`.

    A row within the limit is returned unchanged; any other becomes trunc(row·limit/‖row‖₁), rounded
    toward zero so that rounding can only shrink it.

    Args:
        counts: int64 (devices, cells); |cell|·limit must stay below 2^63.
        limit: bound on the L1 norm of a row, at least 0.

    Returns:
        int64 (devices, cells); the input itself where nothing was over the limit.
    """
    norm = np.abs(counts).sum(axis=1)
    over = norm > limit
    if not over.any():
        return counts
    result = counts.copy()
    rows = counts[over]
    result[over] = np.sign(rows) * (np.abs(rows) * np.int64(limit) // norm[over][:, None])
    return result


def enforce(counts: Int64Array, l1: int, l2_squared: int) -> Int64Array:
    """Return counts in which every row keeps both norms that the privacy proof relies upon.

    Metric kinds keep their declared bounds by construction, so this changes nothing; it stands between
    a mistake in a kind and the claim. A row that breaks either bound adds nothing at all: whatever such
    a kind counted, it is not what the plan says.

    Args:
        counts: int64 (devices, cells).
        l1: bound on Σ|x| of a row, below 2^53.
        l2_squared: bound on Σx² of a row.

    Returns:
        int64 (devices, cells); the input itself where every row keeps both bounds.
    """
    values = counts.astype(np.float64)  # cannot overflow, and is exact up to 2^53
    over = np.einsum("dc,dc->d", values, values) > float(l2_squared)
    over |= np.abs(values, out=values).sum(axis=1) > l1
    if not over.any():
        return counts
    result = counts.copy()
    result[over] = 0
    return result

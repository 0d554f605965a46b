"""The two prime fields of Prio3, with arithmetic over whole arrays.

Field64 has p = 2^64 - 2^32 + 1 and arrays of uint64; Field128 has p = 2^128 - 7 * 2^66 + 1 and arrays of
Python integers: it is slow, and serves the circuits whose official test vectors are in it. Every array holds
elements in [0, p), and every function returns such an array. Source: draft-irtf-cfrg-vdaf, section 6.1.

numpy is not constant-time.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Elements of a field, all in [0, p): uint64 for Field64, Python integers (dtype object) for Field128."""

MATMUL_TERMS = 2**18
"""The most terms of a sum that `Field64.matmul` forms exactly."""

BLOCK = 8192
"""Elements that are multiplied at a time: the intermediate arrays stay in the processor's second cache."""

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


class Field(ABC):
    """A prime field whose multiplicative group has a large subgroup of order 2^k."""

    modulus: int
    size: int
    """Bytes of an encoded element, little-endian."""
    generator: int
    """Of the subgroup of order 2^`generator_log`."""
    generator_log: int
    dtype: Any

    @abstractmethod
    def array(self, values: Any) -> Array:
        """Integers of any size and sign, taken mod p. `values`: a nested sequence or an integer array."""

    @abstractmethod
    def add(self, a: Array, b: Array) -> Array: ...

    @abstractmethod
    def subtract(self, a: Array, b: Array) -> Array: ...

    @abstractmethod
    def multiply(self, a: Array, b: Array) -> Array:
        """The elementwise product; shapes broadcast."""

    @abstractmethod
    def sum(self, a: Array, axis: int) -> Array:
        """The sum over one axis of at most 2^32 elements."""

    @abstractmethod
    def matmul(self, a: Array, b: Array) -> Array:
        """Matrix products: (..., r, k) by (..., k, c) is (..., r, c); leading axes broadcast.

        The left matrix is the one that is expanded, so let it be the smaller.
        """

    @abstractmethod
    def encode(self, a: Array) -> bytes:
        """Little-endian, `size` bytes an element, in C order."""

    @abstractmethod
    def decode(self, data: bytes, shape: tuple[int, ...]) -> tuple[Array, NDArray[np.bool_]]:
        """The integers of `data` in an array of `shape`, and where they are below p.

        Those that are not below p are not elements: the caller refuses whatever holds one.
        """

    def zeros(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape, dtype=self.dtype)

    def root(self, n: int) -> int:
        """The principal n-th root of unity; n is a power of two."""
        if n < 1 or n & (n - 1) or n > 1 << self.generator_log:
            raise ValueError(f"there is no principal root of unity of order {n}")
        return pow(self.generator, (1 << self.generator_log) // n, self.modulus)

    def root_powers(self, n: int) -> Array:
        """(n,): the powers 0 to n - 1 of the principal n-th root of unity."""
        return self._root_powers(n)

    @lru_cache(maxsize=64)  # noqa: B019  (there are two fields, both of them module constants)
    def _root_powers(self, n: int) -> Array:
        root, value, values = self.root(n), 1, []
        for _ in range(n):
            values.append(value)
            value = value * root % self.modulus
        powers = self.array(values)
        powers.flags.writeable = False
        return powers

    def inverse(self, value: int) -> int:
        """1 / value for one integer that is not 0 mod p."""
        return pow(value, -1, self.modulus)

    def scalar(self, value: int) -> Array:
        """A zero-dimensional array with value mod p."""
        return self.array(value)

    def negate(self, a: Array) -> Array:
        return self.subtract(self.zeros(()), a)

    def powers(self, a: Array, count: int) -> Array:
        """(..., count): a^1, ..., a^count of each element of `a`; count >= 1."""
        out = self.zeros((*a.shape, count))
        out[..., 0] = a
        have = 1
        while have < count:
            more = min(have, count - have)
            out[..., have : have + more] = self.multiply(out[..., :more], out[..., have - 1 : have])
            have += more
        return out

    def dot(self, a: Array, b: Array) -> Array:
        """The sum over the last axis of the elementwise product."""
        return self.sum(self.multiply(a, b), axis=-1)


class Field64(Field):
    """p = 2^64 - 2^32 + 1, so 2^64 = 2^32 - 1 and 2^96 = -1 mod p: reduction needs no division."""

    modulus = 2**64 - 2**32 + 1
    size = 8
    generator = pow(7, 2**32 - 1, modulus)
    generator_log = 32
    dtype = np.uint64

    def array(self, values: Any) -> Array:
        if isinstance(values, np.ndarray) and values.dtype == np.int64:
            return np.where(values < 0, np.add(values.view(np.uint64), _P), values.view(np.uint64))
        if isinstance(values, np.ndarray) and values.dtype == np.uint64:
            return np.where(values >= _P, np.subtract(values, _P), values)
        exact = np.asarray(values, dtype=object) % self.modulus
        return np.asarray(exact, dtype=object).astype(np.uint64)

    def add(self, a: Array, b: Array) -> Array:
        rest = np.subtract(_P, b)
        total = np.asarray(np.subtract(a, rest))
        total += (a < rest) * _P
        return total

    def subtract(self, a: Array, b: Array) -> Array:
        total = np.asarray(np.subtract(a, b))
        total += (a < b) * _P
        return total

    def multiply(self, a: Array, b: Array) -> Array:
        a, b = np.broadcast_arrays(a, b)
        if a.size <= BLOCK:
            return _multiply64(a, b)
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        out = np.empty(flat_a.size, dtype=np.uint64)
        for start in range(0, out.size, BLOCK):
            part = slice(start, start + BLOCK)
            out[part] = _multiply64(flat_a[part], flat_b[part])
        return out.reshape(a.shape)

    def sum(self, a: Array, axis: int) -> Array:
        if a.shape[axis] >= 2**32:
            raise ValueError("a sum of 2^32 or more elements would not be exact")
        high, low = (a >> HALF).sum(axis=axis), (a & LOW).sum(axis=axis)
        high += low >> HALF
        # high * 2^32 + low, where both are below 2^64: high's upper half counts 2^64 = 2^32 - 1.
        lower = (high << HALF) | (low & LOW)
        lower = np.where(lower >= _P, np.subtract(lower, _P), lower)
        return self.add(lower, (high >> HALF) * LOW)

    def matmul(self, a: Array, b: Array) -> Array:
        """As the base class says, with BLAS on 16-bit limbs; at most 2^18 terms a sum.

        An element is a polynomial of degree 3 in X = 2^16 with coefficients below 2^16, and X^4 = X^2 - 1 mod
        p. The left matrix becomes the matrix of multiplication by its elements in that ring: entries below
        2^17, four for each limb of the right. So a coefficient of the product is a sum of 4k products below
        2^33, below 2^53 for k <= 2^18: float64 has it exactly, in whatever order BLAS adds.
        """
        k = a.shape[-1]
        if k > MATMUL_TERMS:
            raise ValueError(
                f"a matrix product of {k} terms a sum would not be exact; at most {MATMUL_TERMS}"
            )
        r, c = a.shape[-2], b.shape[-1]
        left = _multiplications(a)
        limbs = np.ascontiguousarray(b).view("<u2").reshape(*b.shape, 4)
        right = np.moveaxis(limbs, -1, -2).astype(np.float64).reshape(*b.shape[:-2], 4 * k, c)
        product = (left @ right).astype(np.int64)
        coefficients = product.reshape(*product.shape[:-2], 4, r, c)
        return _from_coefficients(*(coefficients[..., power, :, :] for power in range(4)))

    def encode(self, a: Array) -> bytes:
        return np.ascontiguousarray(a, dtype="<u8").tobytes()

    def decode(self, data: bytes, shape: tuple[int, ...]) -> tuple[Array, NDArray[np.bool_]]:
        values = np.frombuffer(data, dtype="<u8").reshape(shape)
        return values, values < _P


class Field128(Field):
    """p = 2^128 - 7 * 2^66 + 1, over arrays of Python integers."""

    modulus = 2**66 * 4611686018427387897 + 1
    size = 16
    generator = pow(7, 4611686018427387897, modulus)
    generator_log = 66
    dtype = object

    def array(self, values: Any) -> Array:
        integers = np.asarray(values, dtype=object)
        return np.asarray(np.vectorize(int, otypes=[object])(integers) % self.modulus, dtype=object)

    def add(self, a: Array, b: Array) -> Array:
        return np.asarray((a + b) % self.modulus, dtype=object)

    def subtract(self, a: Array, b: Array) -> Array:
        return np.asarray((a - b) % self.modulus, dtype=object)

    def multiply(self, a: Array, b: Array) -> Array:
        return np.asarray(a * b % self.modulus, dtype=object)

    def sum(self, a: Array, axis: int) -> Array:
        return np.asarray(a.sum(axis=axis) % self.modulus, dtype=object)

    def matmul(self, a: Array, b: Array) -> Array:
        return np.asarray(np.matmul(a, b) % self.modulus, dtype=object)

    def encode(self, a: Array) -> bytes:
        return b"".join(int(value).to_bytes(16, "little") for value in np.ravel(a))

    def decode(self, data: bytes, shape: tuple[int, ...]) -> tuple[Array, NDArray[np.bool_]]:
        if len(data) % 16:
            raise ValueError("encoded elements of Field128 have 16 bytes each")
        integers = [int.from_bytes(data[at : at + 16], "little") for at in range(0, len(data), 16)]
        values = np.empty(len(integers), dtype=object)
        values[:] = integers
        return values.reshape(shape), np.asarray(values < self.modulus, dtype=bool).reshape(shape)


_P = np.uint64(Field64.modulus)


def _multiply64(a: Array, b: Array) -> Array:
    """Elementwise; the four products of 32-bit halves, then the reduction by 2^64 = 2^32 - 1, 2^96 = -1."""
    a1, a0, b1, b0 = a >> HALF, a & LOW, b >> HALF, b & LOW
    low = np.asarray(a0 * b0)
    middle = np.asarray(a1 * b0)
    middle += low >> HALF
    high = np.asarray(a1 * b1)
    high += middle >> HALF
    middle &= LOW
    a0 *= b1
    middle += a0
    high += middle >> HALF
    low &= LOW
    low |= middle << HALF
    # The product is high * 2^64 + low.
    top = high >> HALF
    borrow = low < top
    low -= top
    low -= borrow * LOW
    high &= LOW
    high *= LOW
    low += high
    low += (low < high) * LOW
    low -= (low >= _P) * _P
    return low


def _multiplications(a: Array) -> NDArray[np.float64]:
    """(..., r, k) elements to (..., 4r, 4k): each as multiplication by it in Z[X]/(X^4 - X^2 + 1).

    Rows are (coefficient of the result, r), columns (k, coefficient of the other factor).
    """
    *leading, r, k = a.shape
    a0, a1, a2, a3 = np.moveaxis(
        np.ascontiguousarray(a).view("<u2").reshape(*leading, r, k, 4).astype(np.float64), -1, 0
    )
    out = np.empty((*leading, 4, r, k, 4))
    columns = (a0, a1, a2, a3)
    for power in range(4):
        for coefficient in range(4):
            out[..., coefficient, :, :, power] = columns[coefficient]
        # Times X: the coefficient of X^3 comes back as X^4 = X^2 - 1.
        columns = (-columns[3], columns[0], columns[1] + columns[3], columns[2])
    return out.reshape(*leading, 4 * r, 4 * k)


def _from_coefficients(
    c0: NDArray[np.int64], c1: NDArray[np.int64], c2: NDArray[np.int64], c3: NDArray[np.int64]
) -> Array:
    """c0 + c1 2^16 + c2 2^32 + c3 2^48 mod p, for integers of absolute value at most 2^53.

    Carries go up until c1 < 2^32, c3 < 2^16 and c2 < 2^32; what passes 2^64 comes back by 2^64 = 2^32 - 1.
    """
    c3 = c3 + (c1 >> 32)
    c2 = c2 + (c3 >> 16)
    c0 = c0 - (c3 >> 16) + (c2 >> 32) * 0xFFFFFFFF + ((c1 & 0xFFFFFFFF) << 16)
    unsigned = c0.view(np.uint64)
    lowest = np.where(c0 < 0, np.add(unsigned, _P), unsigned)
    upper = FIELD64.add(((c3 & 0xFFFF).view(np.uint64)) << 48, ((c2 & 0xFFFFFFFF).view(np.uint64)) << HALF)
    return FIELD64.add(lowest, upper)


FIELD64 = Field64()
FIELD128 = Field128()


def centred(field: Field, a: Array) -> NDArray[np.int64]:
    """The integers of least absolute value that are `a` mod p. OverflowError if one does not fit in int64."""
    lifted: Sequence[int] = [
        int(value) - field.modulus if int(value) > field.modulus // 2 else int(value) for value in np.ravel(a)
    ]
    return np.array(lifted, dtype=np.int64).reshape(a.shape)

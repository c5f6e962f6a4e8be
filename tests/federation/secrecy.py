"""What passes between hospitals and the driver, and whether an update or a count can be read from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lightning_fed.models.vector import Vector
from lightning_fed.secagg.quantise import Encoding


def arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """All arrays in nested values."""
    if isinstance(value, np.ndarray):
        yield value
    else:
        for part in _parts(value):
            yield from arrays(part)


def numbers(value: Any) -> Iterator[int]:
    """All whole numbers in nested values."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    else:
        for part in _parts(value):
            yield from numbers(part)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set):
        return value
    return vars(value).values() if hasattr(value, "__dict__") else ()


def shows(update: Vector, values: Iterable[Any], encoding: Encoding) -> list[str]:
    """Where an update (parameters,) can be read: as floats, or in the lower halves of its packed integers."""
    integers, _ = encoding.encode(update, encoding.max_weight, bytes(16))
    second_byte = (integers[:-1] >> 8 & 0xFF).astype(float)
    found = []
    for array in (array for value in values for array in arrays(value)):
        if array.dtype.kind == "f" and array.shape == update.shape and alike(array, update):
            found.append("in clear")
        if array.dtype == np.uint8 and array.ndim == 1 and len(array) >= 2 * len(integers):
            low = array[: 2 * len(integers)].view("<u2")[:-1] >> 8
            found += ["unmasked"] * alike(low.astype(float), second_byte)
    return found


def alike(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Whether two vectors are correlated at all."""
    return bool(abs(np.corrcoef(one, other)[0, 1]) > 0.2)

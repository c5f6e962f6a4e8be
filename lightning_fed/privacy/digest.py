"""A digest of everything that a release depends on, so that noise is never used twice for different inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def digest(*values: Any) -> str:
    """SHA-256 in hexadecimal over nested mappings, sequences, tensors, arrays and plain values.

    Raises:
        TypeError: a value of another kind.
    """
    state = hashlib.sha256()
    _feed(state, values)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    """Each value with its kind and length, so that no two structures give the same bytes."""
    if isinstance(value, Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        state.update(f"array {value.dtype.str} {value.shape};".encode())
        state.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        state.update(f"mapping {len(value)};".encode())
        for key in sorted(value, key=repr):
            _feed(state, key)
            _feed(state, value[key])
    elif isinstance(value, list | tuple):
        state.update(f"sequence {len(value)};".encode())
        for part in value:
            _feed(state, part)
    elif value is None or isinstance(value, bool | int | float | str):
        text = repr(value).encode()
        state.update(f"{type(value).__name__} {len(text)};".encode() + text)
    else:
        raise TypeError(f"cannot digest a {type(value).__name__}")

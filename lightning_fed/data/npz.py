"""Reading an npz file of MedMNIST's layout: `{train,val,test}_{images,labels}`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_fed.data.images import ImageSet, image_set
from lightning_fed.errors import InputError

SPLITS = ("train", "val", "test")
# What NumPy and zipfile raise of damaged files; RuntimeError where bytes speak of encryption.
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: Path) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Train, validation and test images of the file, each read once.

    Raises:
        InputError: the file is missing, truncated, not an npz, or its arrays have other names or shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [
                f"{split}_{kind}"
                for split in SPLITS
                for kind in ("images", "labels")
                if f"{split}_{kind}" not in arrays
            ]
            if missing:
                raise InputError(f"{path}: no array called {', '.join(missing)}; save it in MedMNIST's layout")
            train, validation, test = (
                image_set(arrays[f"{split}_images"], arrays[f"{split}_labels"], f"{path}, {split}")
                for split in SPLITS
            )
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; set data.root to where it is") from None
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: {_damage(error)}; fetch or save it again") from error
    if len({split.images.shape[1:] for split in (train, validation, test)}) > 1:
        raise InputError(f"{path}: the splits hold images of different shapes; save them with one shape")
    return train, validation, test


def read_images(path: Path) -> NDArray[Any] | None:
    """The one array of an npz that holds images alone; None of a file in MedMNIST's layout.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            images: NDArray[Any] | None = arrays[names[0]] if len(names) == 1 else None
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; name a picture, a folder of them or an npz") from None
    except DAMAGE as error:
        raise InputError(f"{path}: {_damage(error)}; fetch or save it again") from error
    return images


def _damage(error: Exception) -> str:
    """What is wrong with a file, without NumPy's advice to load it unsafely."""
    return "not a whole npz file" + ("" if "pickle" in str(error) else f" ({error})")

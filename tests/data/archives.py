"""Small npz files of MedMNIST's layout."""

from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"train": 6, "val": 3, "test": 4}


def arrays(size: int = 8, channels: int | None = 3, classes: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shape = (size, size) if channels is None else (size, size, channels)
    found = {}
    for split, count in SIZES.items():
        found[f"{split}_images"] = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
        found[f"{split}_labels"] = np.arange(count)[:, None] % classes
    return found


def save(path: Path, content: dict[str, Any], compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path

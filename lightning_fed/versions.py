"""The versions of what a run stood on."""

from __future__ import annotations

import platform
from importlib.metadata import version

PACKAGES = ("lightning-fed", "lightning", "torch", "ray", "torchmetrics", "numpy", "medmnist", "wandb")


def versions() -> dict[str, str]:
    """Package -> version, and Python's."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}

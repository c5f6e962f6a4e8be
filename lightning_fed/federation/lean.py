"""Importing Lightning without what a hospital never uses.

torchmetrics, which Lightning imports, loads torchvision, SciPy's signal processing and matplotlib wherever
they are installed: about a third of an actor's start and 200 MB of its memory. While Lightning is imported
they are made to look absent; afterwards they can be imported as usual.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from unittest import mock

HIDDEN = ("torchvision", "scipy", "matplotlib", "triton")


@contextmanager
def lean_imports() -> Iterator[None]:
    """While this lasts, the packages of `HIDDEN` that are not yet imported cannot be found."""
    from lightning_utilities.core import imports

    hidden = {name: None for name in HIDDEN if name not in sys.modules}
    version = imports._version  # type: ignore[attr-defined]

    def visible_version(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        found: str = version(name)
        return found

    with mock.patch.object(imports, "_version", visible_version):
        sys.modules.update(hidden)  # type: ignore[arg-type]
        try:
            yield
        finally:
            for name in hidden:
                del sys.modules[name]

"""Paths as a user types them."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """A path with `~` read as the home folder; an unknown user's stays as it is, and is then not found."""
    return Path(os.path.expanduser(name))

"""Paths as a user types them, and folders that keep what was written into them."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def user_path(name: str | Path) -> Path:
    """A path with `~` read as the home folder; an unknown user's stays as it is, and is then not found."""
    return Path(os.path.expanduser(name))


def cache_folder() -> Path:
    """Where to keep what can be made anew: LIGHTNING_FED_CACHE, or `lightning-fed` in the user's cache folder.

    That is XDG_CACHE_HOME, which counts only if it is absolute, or `~/.cache`.
    """
    own = os.environ.get("LIGHTNING_FED_CACHE")
    if own:
        return user_path(own).resolve()
    users = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(users) if os.path.isabs(users) else user_path("~/.cache")) / "lightning-fed"


def sync_folder(folder: Path) -> None:
    """Make new and renamed files of a folder survive a power loss.

    Raises:
        OSError: it cannot be opened or synced.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(path: Path, seconds: float = 0.0) -> IO[str]:
    """Hold a file for this process, until what is returned is closed or the process ends.

    Args:
        seconds: to wait for another process that holds it.

    Raises:
        BlockingIOError: another one still does. OSError: the file cannot be opened, or its system locks none.
    """
    end = time.monotonic() + seconds
    file = path.open("a")
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.05)
    except BaseException:
        file.close()
        raise

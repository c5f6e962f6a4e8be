"""Each hospital is one process at a time.

Light on purpose: an actor imports this before it imports Lightning leanly.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from lightning_fed.errors import FederationError, InputError
from lightning_fed.paths import DISK_IS_FULL, hold

HOLD_SECONDS = 60.0


def hold_hospital(output: Path, hospital: int) -> IO[str]:
    """Be the one process that works as a hospital: two would charge one ledger.

    One that was taken for lost may be about to end, and is waited for.

    Raises:
        InputError: another process does so for longer than `HOLD_SECONDS`.
    """
    folder = output / "hospitals" / str(hospital)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return hold(folder / ".lock", HOLD_SECONDS)
    except BlockingIOError as error:
        raise InputError(f"{folder}: another process works as this hospital; end it first") from error
    except OSError as error:
        told = f"{folder}: cannot be held ({error.strerror})"
        if error.errno in DISK_IS_FULL:
            raise FederationError(f"{told}; make room for it") from error
        raise InputError(f"{told}; put the run on a disk that can") from error

"""Files that are renamed into place whole: hospitals' own states and the driver's checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_fed.errors import FederationError, InputError
from lightning_fed.paths import sync_folder

CHECK_BYTES = 32


def write_whole(path: Path, content: Any) -> None:
    """`torch.save` to a file that is either the old one or the new one, never a half (fsync, then rename).

    The SHA-256 of what was saved follows it. The file is for its owner's eyes only: a hospital's state tells of
    its images.

    Raises:
        FederationError: the disk is full or may not be written.
    """
    part, memory = path.with_suffix(".part"), io.BytesIO()
    torch.save(content, memory)
    saved = memory.getbuffer()
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent.parent)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(saved)
            file.write(hashlib.sha256(saved).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)  # it may be what fills the disk
        raise FederationError(f"{path}: cannot be written ({error.strerror})") from error


def read_whole(path: Path) -> dict[str, Any]:
    """What `write_whole` wrote, to the bit; no code in the file is run.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        whole = path.read_bytes()
        saved = memoryview(whole)[:-CHECK_BYTES]
        if hashlib.sha256(saved).digest() != whole[-CHECK_BYTES:]:
            raise ValueError("its check does not fit")
        content: dict[str, Any] = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader meets damaged bytes with errors of any kind
        reason = error if isinstance(error, ValueError) else type(error).__name__
        raise InputError(f"{path}: not a whole checkpoint ({reason}); put back the file") from error
    return content


class RoundFiles:
    """Files `<stem>-00007.pt` of one folder, the last `kept` rounds of them."""

    kept = 2

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem

    def path(self, round: int) -> Path:
        """The file of a round."""
        return self.folder / f"{self.stem}-{round:05d}.pt"

    def rounds(self) -> list[int]:
        """Rounds that have a file, ascending."""
        return sorted(self._found())

    def _found(self) -> Iterator[int]:
        for path in self.folder.glob(f"{self.stem}-*.pt"):
            match = re.fullmatch(rf"{self.stem}-(\d+)", path.stem)
            if match:
                yield int(match[1])

    def save(self, round: int, content: dict[str, Any]) -> Path:
        """Write a round's file, then remove all but the newest."""
        path = self.path(round)
        write_whole(path, content)
        self.keep_newest()
        return path

    def keep_newest(self) -> None:
        """Remove all but the newest files."""
        for old in self.rounds()[: -self.kept]:
            self.path(old).unlink(missing_ok=True)


class HospitalStates(RoundFiles):
    """One hospital's own state, `hospitals/ID/state-00007.pt`; it never passes through the driver.

    More are kept than of the driver's checkpoints. A hospital may be a round ahead of them, and one that was late
    may have trained two rounds, that in which it was given up and that which was sent ahead, which no checkpoint
    knows of until the next.
    """

    kept = RoundFiles.kept + 3

    def __init__(self, output: Path, hospital: int) -> None:
        super().__init__(output / "hospitals" / str(hospital), "state")
        self.hospital = hospital
        self.last = 0

    def save(self, round: int, content: dict[str, Any]) -> Path:
        """Write a round's state under the hospital's number.

        States of rounds after the last one that was loaded or saved go: they are of a process that was lost, and
        would take the place of what the driver asks for.
        """
        path = self.path(round)
        write_whole(path, {"hospital": self.hospital, **content})
        for stray in [found for found in self.rounds() if found > self.last and found != round]:
            self.path(stray).unlink(missing_ok=True)
        self.last = round
        self.keep_newest()
        return path

    def later(self, round: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The states of later rounds that can be read: rounds that the driver's checkpoint does not know yet."""
        for found in [found for found in self.rounds() if found > round]:
            with contextlib.suppress(InputError):
                yield found, read_whole(self.path(found))

    def load(self, round: int) -> dict[str, Any]:
        """The state of `round`.

        Raises:
            InputError: it is missing, damaged, or another hospital's.
        """
        path = self.path(round)
        state = read_whole(path)
        if state.pop("hospital", None) != self.hospital:
            raise InputError(f"{path}: not the state of hospital {self.hospital}; put its own back")
        self.last = round
        return state

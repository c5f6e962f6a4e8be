"""The rounds for which a hospital has answered unmasking, kept where a restart finds them."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_fed.secagg.errors import ProtocolError


class AnsweredRounds:
    """A hospital opens a round once: the same vector opened among two cohorts gives one hospital by subtraction.

    Args:
        path: a file to which each round is appended and synced before its answer leaves. It is made at once, so
            that a missing one tells of a loss; None keeps the rounds in memory alone.

    Raises:
        ValueError: the file holds something else. OSError: it cannot be read or made.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._rounds: set[int] = set()
        if path is not None and path.exists():
            self._rounds = self._read(path)
        elif path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            self._sync_folder(path.parent)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        """Make a new file survive a power loss; this room stands alone, so it is written here too."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    def _read(path: Path) -> set[int]:
        lines = path.read_text(errors="replace").splitlines()
        try:
            return {int(line) for line in lines if line.strip()}
        except ValueError as error:
            raise ValueError("not a list of rounds") from error

    def __contains__(self, round: int) -> bool:
        return round in self._rounds

    def __len__(self) -> int:
        return len(self._rounds)

    def refuse(self, round: int) -> None:
        """Raise `ProtocolError` if the round was answered."""
        if round in self._rounds:
            raise ProtocolError(f"round {round} was opened before: a second time would tell hospitals apart")

    def add(self, round: int) -> None:
        """Note a round; when this returns, the note is on disk.

        Raises:
            ProtocolError: it was noted before. OSError: it cannot be written.
        """
        self.refuse(round)
        if self.path is not None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"\n{round}\n")  # the leading line end keeps apart from a line that was cut off
                file.flush()
                os.fsync(file.fileno())
        self._rounds.add(round)

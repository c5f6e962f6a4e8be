"""The rounds for which a hospital has answered unmasking, kept where a restart finds them."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_fed.secagg.errors import ProtocolError


class AnsweredRounds:
    """A hospital opens a round once: the same vector opened among two cohorts gives one hospital by subtraction.

    Args:
        path: a file to which each round is appended and synced before its answer leaves; None keeps them in
            memory alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._rounds = self._read() if path is not None and path.exists() else set()

    def _read(self) -> set[int]:
        assert self.path is not None
        lines = self.path.read_text(errors="replace").splitlines()
        try:
            return {int(line) for line in lines if line.strip()}
        except ValueError as error:
            raise ValueError("not a list of rounds") from error

    def __contains__(self, round: int) -> bool:
        return round in self._rounds

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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not self.path.exists()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"\n{round}\n")  # the leading line end keeps apart from a line that was cut off
                file.flush()
                os.fsync(file.fileno())
            if new:
                self._sync_folder()
        self._rounds.add(round)

    def _sync_folder(self) -> None:
        assert self.path is not None
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

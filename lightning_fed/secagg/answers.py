"""The rounds for which a hospital has answered unmasking, kept where a restart finds them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import sync_folder

LINE = re.compile(r"(\d+) ?(#[0-9a-f]*)?")
CHECK_DIGITS = 8


def _check(round: int) -> str:
    """By which a round whose digits were flipped on disk is told."""
    return "#" + hashlib.sha256(f"round {round}".encode()).hexdigest()[:CHECK_DIGITS]


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
            sync_folder(path.parent)

    @staticmethod
    def _read(path: Path) -> set[int]:
        """A line that was cut off counts as far as it goes: to refuse a round too many loses that round alone."""
        found = set()
        for line in filter(str.strip, path.read_text(errors="replace").splitlines()):
            parts = LINE.fullmatch(line)
            if parts is None:
                raise ValueError("not a list of rounds")
            round = int(parts[1])
            if not _check(round).startswith(parts[2] or ""):
                raise ValueError(f"the line of round {round} was changed")
            found.add(round)
        return found

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
                # The leading line end keeps apart from a line that was cut off.
                file.write(f"\n{round} {_check(round)}\n")
                file.flush()
                os.fsync(file.fileno())
        self._rounds.add(round)

"""The run folder: `experiment.yaml`, `rounds.jsonl`, `summary.json`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_fed.errors import FederationError, InputError
from lightning_fed.paths import DISK_IS_FULL, hold, sync_folder
from lightning_fed.tracking.records import RoundRecord
from lightning_fed.tracking.results import Result, Status

CHECK = "check"
"""The key of a line of `rounds.jsonl` that is no part of its record."""
ABORTED: Status = "aborted"
OWN_NAMES = ("experiment.yaml", "rounds.jsonl", "summary.json", "checkpoints", "hospitals", "model.ckpt")


class RunFolder:
    """Writes the files of one run.

    Args:
        path: the folder; `create` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiment = path / "experiment.yaml"
        self.rounds = path / "rounds.jsonl"
        self.summary = path / "summary.json"
        self.audit = path / "audit.json"
        self._others = set[str]()  # names that were there before

    def refuse_existing(self) -> None:
        """Raise unless the folder is free.

        Raises:
            InputError: it holds a run already.
        """
        if any(os.path.exists(self.path / name) for name in OWN_NAMES):
            raise InputError(
                f"output: {self.path} already holds a run; name another folder, or go on with it by "
                f"'lightning-fed run --resume {self.path}'"
            )

    def refuse_unwritable(self) -> None:
        """Raise unless the folder is there, or can be made.

        Raises:
            InputError: a file is in its way, or it may not be written.
        """
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"output: {self.path} cannot be written ({os.strerror(errno.ENOTDIR)}); name another")
        if not os.access(there, os.W_OK):
            raise InputError(f"output: {self.path} cannot be written ({os.strerror(errno.EACCES)}); name another")

    def create(self, experiment: dict[str, Any]) -> None:
        """Make the folder and write the resolved experiment.

        Raises:
            InputError: the folder holds a run already, or cannot be written. FederationError: the disk is full;
                nothing is left behind.
        """
        self.refuse_existing()
        self._others = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "hospitals").mkdir(mode=0o700, exist_ok=True)  # what hospitals keep to themselves
            write_text_whole(self.experiment, yaml.safe_dump(experiment, sort_keys=False))
        except OSError as error:
            told = f"output: {self.path} cannot be written ({error.strerror})"
            if error.errno not in DISK_IS_FULL:
                raise InputError(f"{told}; name another") from error
            self.remove_unstarted()
            raise FederationError(f"{told}; make room for it; nothing was written yet") from error

    def remove_unstarted(self) -> None:
        """Take back what came since `create`, of a run that could not start; what was there before stays."""
        for name in {"experiment.yaml", "identities.txt", ".lock"} - self._others:
            (self.path / name).unlink(missing_ok=True)
        for name in {"wandb", "hospitals"} - self._others:
            shutil.rmtree(self.path / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one process: two that go on with one run would spend its privacy twice.

        Raises:
            InputError: another process holds it.
        """
        try:
            file = hold(self.path / ".lock")
        except BlockingIOError as error:
            raise InputError(f"output: another process works on {self.path}; end that one first") from error
        except OSError as error:
            told = f"output: {self.path} cannot be held ({error.strerror})"
            if error.errno in DISK_IS_FULL:
                raise FederationError(f"{told}; make room for it; nothing was written yet") from error
            raise InputError(f"{told}; name another") from error
        with file:
            yield

    def keep_rounds(self, before: int) -> None:
        """Go on with a run: keep the whole records of rounds before `before`, which will be written anew.

        Raises:
            InputError: one of them is missing.
        """
        kept = self.refuse_missing(before)
        write_text_whole(self.rounds, "".join(map(_line, kept)))

    def refuse_missing(self, before: int) -> list[dict[str, Any]]:
        """The whole records of rounds before `before`.

        Raises:
            InputError: one of them is missing, or there twice.
        """
        kept = [line for line in read_rounds(self.rounds) if line["round"] < before]
        counts = Counter(line["round"] for line in kept)
        if max(counts.values(), default=1) > 1:
            twice = counts.most_common(1)[0][0]
            raise InputError(f"{self.rounds}: the record of round {twice} is there twice; put it back as it was")
        missing = set(range(1, before)) - {line["round"] for line in kept}
        if missing:
            raise InputError(f"{self.rounds}: the record of round {min(missing)} is missing; put it back")
        return kept

    def add_round(self, record: RoundRecord) -> None:
        """Append one line; when this returns, it is on disk: the next round's checkpoint asks for it."""
        new = not self.rounds.exists()
        with self.rounds.open("a") as file:
            file.write(_line(record.as_dict()))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end; a damaged summary is that of one that did."""
        if not self.summary.exists():
            return False
        try:
            told = json.loads(self.summary.read_text(errors="replace"))
        except ValueError:
            return True
        return not (isinstance(told, dict) and told.get("status") == ABORTED)

    def forget_aborted(self) -> bool:
        """Remove the summary that an earlier process left of a run that goes on now; whether there was one."""
        there = self.summary.exists() and not self.complete
        if there:
            self.summary.unlink()
        return there

    def audits(self) -> dict[str, Any]:
        """What audits left there.

        Raises:
            InputError: it cannot be read.
        """
        try:
            kept = json.loads(self.audit.read_text()) if self.audit.exists() else {}
        except (OSError, ValueError) as error:
            raise InputError(f"{self.audit}: not JSON; put back the file, or remove it") from error
        if not isinstance(kept, dict):
            raise InputError(f"{self.audit}: holds no audits; put back the file, or remove it")
        return kept

    def finish(self, result: Result) -> None:
        """Write the summary, of an aborted run too."""
        write_text_whole(self.summary, json.dumps(result.as_dict(), indent=2) + "\n")


def write_text_whole(path: Path, text: str) -> None:
    """Write a file that is either the old one or the new one, after a power loss too (fsync, then rename)."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)  # it may be what fills the disk
        raise


def _line(record: dict[str, Any]) -> str:
    """A record's line of `rounds.jsonl`, whose last key says whether the others are as they were written."""
    return json.dumps({**record, CHECK: _check(record)}) + "\n"


def _check(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a `rounds.jsonl`, in order; a torn last line, as a killed run leaves it, is dropped.

    Raises:
        InputError: another line is damaged, or a number in one is not what was written.
    """
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            record["round"]
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}, line {number}: not a round's record; put it back as the run wrote it"
            ) from error
        check = record.pop(CHECK, None)
        if check is not None and check != _check(record):
            raise InputError(f"{path}, line {number}: it was changed; put it back as the run wrote it")
        records.append(record)
    return records

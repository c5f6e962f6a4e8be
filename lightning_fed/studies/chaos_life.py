"""A short run as a user's process that faults strike, and that is resumed until it is complete."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lightning_fed.errors import FederationError
from lightning_fed.federation.census import title_of
from lightning_fed.federation.nodes import Nodes
from lightning_fed.tracking.files import RunFolder

PATIENCE = 300.0
"""Seconds without a new round after which a run counts as hung."""
LISTENING = 10.0
MOST_LIVES = 40
BAD_INPUT, UNFINISHED = 2, 3
HINTS = ("go on with", "nothing was written yet", "lightning-fed report")


class BrokenError(FederationError):
    """A promise does not hold."""


class Life:
    """One run.

    Args:
        output: its folder. words: for the command line. nodes: the cluster that it joins.
    """

    def __init__(self, output: Path, words: list[str], nodes: Nodes) -> None:
        self.folder, self.words, self.nodes = RunFolder(output), words, nodes
        self.log = output.with_suffix(".log")
        self.mended: Callable[[], None] | None = None
        self.lives = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    @property
    def output(self) -> Path:
        """Its folder."""
        return self.folder.path

    def start(self) -> None:
        """Begin, or go on; the end of the process before is looked at."""
        if self.process is not None:
            self.ended()
        self.lives += 1
        if self.lives > MOST_LIVES:
            raise BrokenError(f"the run was resumed {MOST_LIVES} times and is not complete")
        if not self.folder.experiment.exists():
            shutil.rmtree(self.output, ignore_errors=True)
        resumed = ["--resume", str(self.output)] if self.folder.experiment.exists() else self.words
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lightning_fed", "run", *resumed],
            stdout=subprocess.PIPE,  # a terminal does not fill up when a disk does
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        self._listener = threading.Thread(target=self._listen, args=(self.process,), daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Note what a process says, until it ends."""
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            for line in process.stdout:
                log.write(line)

    def wait_for_a_word(self) -> None:
        """Until the process has said something: before, it does not know yet what a signal is to do."""
        said = self.log.stat().st_size if self.log.exists() else 0
        self.wait_for(lambda: self.log.exists() and self.log.stat().st_size > said)

    @property
    def rounds(self) -> int:
        """Rounds that are recorded."""
        return self.folder.rounds.read_bytes().count(b"\n") if self.folder.rounds.exists() else 0

    @property
    def lives_now(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def wait_for(self, done: Callable[[], bool]) -> bool:
        """Until something is so, or the process has ended: whether it is so.

        Raises:
            BrokenError: no round was added for too long.
        """
        rounds, end = self.rounds, time.monotonic() + PATIENCE
        while not done():
            if not self.lives_now:
                return False
            if self.rounds != rounds:
                rounds, end = self.rounds, time.monotonic() + PATIENCE
            if time.monotonic() > end:
                raise BrokenError(f"no new round in {PATIENCE:g} s: it hangs")
            time.sleep(0.02)
        return True

    def kill(self, number: signal.Signals) -> None:
        """Send the driver a signal, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        self.wait_for(lambda: False)

    def ended(self) -> str:
        """What the process said at its end, once that is checked to be one of the ends that it may have.

        Raises:
            BrokenError: it is none.
        """
        if self.process is None:  # looked at before
            return self.last_line()
        code, self.process = self.process.wait(), None
        assert self._listener is not None
        self._listener.join(LISTENING)  # what outlives the process may hold its end open
        last = self.last_line()
        told = self.log.read_text(errors="replace")
        if "Traceback (most recent call last)" in told or "Fatal Python error" in told:
            raise BrokenError("it showed a traceback")
        if code == UNFINISHED and not any(words in last for words in HINTS):
            raise BrokenError(f"it ended with {code} and does not say how to go on: {last}")
        if code not in (0, UNFINISHED, 130, -signal.SIGKILL) and not (code == BAD_INPUT and self.mended):
            raise BrokenError(f"it ended with {code}: {last}")
        if code == BAD_INPUT and self.mended:
            self.mended()
            self.mended = None
        return last

    def last_line(self) -> str:
        """The last that it said."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else ""

    def finish(self) -> None:
        """To the end, resumed where it ends before."""
        while True:
            self.wait_for(lambda: False)
            self.ended()
            if self.folder.complete:
                return
            self.start()

    def workers(self, title: str) -> list[psutil.Process]:
        """Processes of Ray whose title begins so, such as `ray::HospitalActor`."""
        everybody = psutil.Process().children(recursive=True)
        return [process for process in everybody if title_of(process).startswith(title)]  # one that ended has none

    def end_now(self) -> None:
        """End its process, whatever it does."""
        if self.lives_now:
            assert self.process is not None
            self.process.kill()
            self.process.wait()

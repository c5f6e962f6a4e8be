"""Ctrl-C ends a command as such, also where a library swallows it or makes another error of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lightning_fed import cli, interrupts
from lightning_fed.federation.cluster import own_end
from lightning_fed.studies import single
from tests.integration.conftest import words


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_error_that_an_interrupt_became_is_an_interrupt(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def library(words: list[str]) -> int:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error
        return 0

    monkeypatch.setattr(cli, "_dispatch", library)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "lightning-fed: stopped\n"


def test_a_library_that_exits_at_an_interrupt_ends_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(words: list[str]) -> int:
        try:
            interrupt()
        except KeyboardInterrupt:
            sys.exit(1)
        return 0

    monkeypatch.setattr(cli, "_dispatch", library)
    assert cli.main(["run"]) == 130


@pytest.mark.parametrize("threaded", [False, True])
def test_a_command_within_another_forgets_nothing(monkeypatch: pytest.MonkeyPatch, threaded: bool) -> None:
    def within() -> None:
        with interrupts.heard():
            pass

    def library(words: list[str]) -> int:
        try:
            interrupt()
        except KeyboardInterrupt as error:
            if threaded:
                thread = threading.Thread(target=within)
                thread.start()
                thread.join()
            else:
                within()
            raise SystemError("returned a result with an exception set") from error
        return 0

    monkeypatch.setattr(cli, "_dispatch", library)
    assert cli.main(["run"]) == 130


def test_rays_own_end_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), own_end():
        sys.exit(15)


def test_an_error_without_an_interrupt_stays_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def library(words: list[str]) -> int:
        raise SystemError("returned a result with an exception set")

    monkeypatch.setattr(cli, "_dispatch", library)
    with pytest.raises(SystemError):
        cli.main(["run"])


def test_an_interrupt_that_is_swallowed_ends_the_run_after_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Deaf(single.RunConsole):
        def round_done(self, record: object) -> None:
            super().round_done(record)  # type: ignore[arg-type]
            with contextlib.suppress(KeyboardInterrupt):
                interrupt()

    monkeypatch.setattr(single, "RunConsole", Deaf)
    assert cli.main(["run", *words(tmp_path / "run", ray__enabled=False, federation__rounds=4)]) == 130
    told = capsys.readouterr()
    assert f"lightning-fed run --resume {tmp_path / 'run'}" in told.err
    assert len((tmp_path / "run/rounds.jsonl").read_text().splitlines()) == 1


def test_the_handlers_are_put_back_and_the_asking_forgotten() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupts.heard():
        interrupt()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not interrupts.asked()
    interrupts.stop_if_asked()


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c() -> None:
    program = "import os, signal\nfrom lightning_fed.interrupts import heard\n"
    program += "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    program += "with heard():\n    os.kill(os.getpid(), signal.SIGINT)\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"

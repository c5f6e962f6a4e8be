from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.errors import ProtocolError


def test_a_round_is_noted_once(tmp_path: Path) -> None:
    for answered in (AnsweredRounds(), AnsweredRounds(tmp_path / "answered.txt")):
        answered.refuse(3)
        answered.add(3)
        assert 3 in answered
        assert 4 not in answered
        for call in (answered.refuse, answered.add):
            with pytest.raises(ProtocolError, match="round 3 was opened before"):
                call(3)
        answered.refuse(4)


def test_a_restart_finds_every_noted_round(tmp_path: Path) -> None:
    path = tmp_path / "hospitals" / "2" / "answered.txt"
    for round in (5, 1, 12):
        AnsweredRounds(path).add(round)
    after = AnsweredRounds(path)
    assert [round for round in range(20) if round in after] == [1, 5, 12]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(rounds=st.lists(st.integers(1, 10**6), min_size=1, max_size=8, unique=True), torn=st.integers(1, 10**6))
@pytest.mark.parametrize("kept", range(4))
def test_a_line_that_was_cut_off_hides_no_round_before_or_after_it(
    tmp_path_factory: pytest.TempPathFactory, kept: int, rounds: list[int], torn: int
) -> None:
    path = tmp_path_factory.mktemp("answers") / "answered.txt"
    before, after = rounds[: len(rounds) // 2], rounds[len(rounds) // 2 :]
    answered = AnsweredRounds(path)
    for round in before:
        answered.add(round)
    with path.open("a") as file:
        file.write(f"\n{torn}\n"[:kept])
    for round in after:
        restarted = AnsweredRounds(path)
        if round not in restarted:
            restarted.add(round)
    last = AnsweredRounds(path)
    assert all(round in last for round in rounds)


@given(
    rounds=st.lists(st.integers(1, 10**4), min_size=1, max_size=4, unique=True),
    place=st.integers(0, 200),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_is_refused_or_hides_no_round(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int], place: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("answers") / "answered.txt"
    answered = AnsweredRounds(path)
    for round in rounds:
        answered.add(round)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        after = AnsweredRounds(path)
    except ValueError:
        return
    assert len(after) >= len(rounds)
    assert all(round in after for round in rounds)


def test_a_damaged_file_is_refused_rather_than_read_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "answered.txt"
    AnsweredRounds(path).add(7)
    path.write_bytes(path.read_bytes() + b"\xff\x00garbage\n")
    with pytest.raises(ValueError, match="not a list of rounds"):
        AnsweredRounds(path)


@pytest.mark.parametrize("broken", ["open", "fsync", "write"])
def test_a_note_that_cannot_be_written_is_no_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    answered = AnsweredRounds(tmp_path / "answered.txt")

    def fail(*_: Any) -> int:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if broken == "write":
            descriptor = os.open("/dev/full", os.O_WRONLY)
            patch.setattr(os, "open", lambda *_: descriptor)
        else:
            patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match=r"[Nn]o space left"):
            answered.add(3)
    assert 3 not in answered
    answered.add(3)
    assert 3 in AnsweredRounds(tmp_path / "answered.txt")


def test_the_folder_of_a_new_file_is_synced_and_then_every_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "answered.txt", []

    def note(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.read_text().split()[::2]))

    monkeypatch.setattr(os, "fsync", note)
    answered = AnsweredRounds(path)
    assert synced == [(str(tmp_path), [])]
    answered.add(3)
    answered.add(4)
    assert synced[1:] == [(str(path), ["3"]), (str(path), ["3", "4"])]


def test_a_file_that_was_taken_away_is_not_made_anew_by_the_next_note(tmp_path: Path) -> None:
    answered = AnsweredRounds(tmp_path / "answered.txt")
    answered.add(3)
    (tmp_path / "answered.txt").unlink()
    with pytest.raises(FileNotFoundError):
        answered.add(4)
    assert 4 not in answered

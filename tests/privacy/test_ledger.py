"""Charge, then release: what is on disk when, what a redo costs, and what a damaged file tells."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_fed.errors import FederationError, InputError
from lightning_fed.privacy import ledger as ledger_module
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.ledger import BudgetSpentError, Ledger

DOSE = Dose("image", 0.125, 1.25, 3, 12, 6.0, 1e-5, 8.0)


def opened(path: Path | None, hospital: int = 2, dose: Dose = DOSE) -> Ledger:
    return Ledger(path, hospital, dose)


def filled(path: Path) -> Ledger:
    """Three charges, one of them anew, and two releases."""
    ledger = opened(path)
    first = ledger.charge(1, "aa")
    ledger.release(first, b"once")
    ledger.charge(1, "aa", anew=True)
    ledger.release(ledger.charge(2, "bb"), b"twice")
    return ledger


def test_a_charge_is_kept_and_read_again(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    again = opened(tmp_path / "ledger.jsonl")
    assert (again.charges, again.releases, again.spent) == (ledger.charges, ledger.releases, 9)
    charge = again.charges[0]
    assert (charge.hospital, charge.round, charge.steps, charge.rate, charge.noise_multiplier) == (
        2,
        1,
        3,
        0.125,
        1.25,
    )
    again.charge(3, "cc")
    assert opened(tmp_path / "ledger.jsonl").spent == 12


def test_nothing_counts_that_is_not_yet_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is written, flushed and synced, then the folders are; only then does `charge` return."""
    path = tmp_path / "run" / "hospitals" / "2" / "ledger.jsonl"
    events: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        lines = path.read_text().count("\n")
        events.append(f"{target.name} {lines} {len(ledger.charges)}")
        fsync(descriptor)

    monkeypatch.setattr(ledger_module.os, "fsync", noted)
    ledger = opened(path)
    charge = ledger.charge(1, "aa")
    assert events == [f"{name} 1 0" for name in ("ledger.jsonl", "2", "hospitals", "run")]
    ledger.release(charge, b"vector")
    assert events[4:] == ["ledger.jsonl 2 1"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_charge_whose_sync_fails_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path / "ledger.jsonl")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module.os, "fsync", full)
        with pytest.raises(FederationError, match=r"ledger\.jsonl: cannot be written \(No space left on device\)"):
            ledger.charge(1, "aa")
    assert ledger.charges == []


def test_a_file_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FederationError, match="cannot be written"):
        opened(tmp_path / "file" / "ledger.jsonl").charge(1, "aa")


def test_a_file_that_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(InputError, match=r"ledger\.jsonl"):
        opened(tmp_path / "ledger.jsonl")


def test_the_same_inputs_are_charged_once_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    charge = opened(path).charge(1, "aa")
    ledger = opened(path)
    assert ledger.charge(1, "aa") == charge
    assert ledger.spent == 3


def test_a_charge_that_was_found_counts_once_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may have died between the line and the sync."""
    path = tmp_path / "ledger.jsonl"
    charge = opened(path).charge(1, "aa")
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(ledger_module.os, "fsync", noted)
    ledger = opened(path)
    assert ledger.charge(1, "aa") == charge
    assert synced[0] == "ledger.jsonl"
    before = len(synced)
    assert ledger.charge(1, "aa") == charge
    assert len(synced) == before


@pytest.mark.parametrize(("round", "inputs"), [(1, "ab"), (2, "aa")])
def test_other_inputs_or_another_round_are_charged(round: int, inputs: str) -> None:
    ledger = opened(None)
    ledger.charge(1, "aa")
    assert ledger.charge(round, inputs).attempt == 0
    assert ledger.spent == 6


def test_anew_is_charged_under_another_number_and_a_redo_takes_the_last() -> None:
    ledger = opened(None)
    numbers = [ledger.charge(1, "aa", anew=anew).attempt for anew in (False, True, True, False)]
    assert numbers == [0, 1, 2, 2]
    assert ledger.spent == 9


def test_the_same_may_leave_twice_and_anything_else_may_not(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    charge = opened(path).charge(1, "aa")
    assert opened(path).release(charge, b"vector")
    size = path.stat().st_size
    again = opened(path)
    assert again.release(charge, b"vector")
    assert not again.release(charge, b"another")
    assert path.stat().st_size == size
    assert again.release(again.charge(1, "aa", anew=True), b"another")


def test_a_budget_ends_with_the_last_round_that_it_pays_for(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = opened(path)
    for round in range(1, 5):
        assert ledger.affords_a_round
        ledger.charge(round, "aa")
    assert not ledger.affords_a_round
    content = path.read_bytes()
    with pytest.raises(BudgetSpentError, match="hospital 2 has spent its privacy budget"):
        ledger.charge(5, "aa")
    with pytest.raises(BudgetSpentError):
        ledger.charge(4, "bb")
    with pytest.raises(BudgetSpentError):
        ledger.charge(4, "aa", anew=True)
    assert path.read_bytes() == content
    assert ledger.charge(4, "aa").round == 4  # paid


def test_a_round_that_was_paid_can_be_done_again_though_the_budget_is_spent() -> None:
    ledger = opened(None)
    for round in range(1, 5):
        ledger.charge(round, "aa")
    assert [ledger.affords(round) for round in (4, 5)] == [True, False]


@given(most=st.integers(0, 40), steps=st.integers(1, 9), asked=st.integers(0, 20))
def test_no_sequence_of_charges_goes_beyond_the_budget(most: int, steps: int, asked: int) -> None:
    ledger = opened(None, dose=replace(DOSE, most_steps=most, steps=steps))
    for round in range(asked):
        if ledger.affords_a_round:
            ledger.charge(round, "aa")
        else:
            with pytest.raises(BudgetSpentError):
                ledger.charge(round, "aa")
    assert ledger.spent == min(asked, most // steps) * steps <= max(most, 0)


def counted(content: bytes) -> int:
    """What the whole lines of a ledger say, read by other means."""
    lines = [json.loads(line) for line in content.split(b"\n")[:-1]]
    return sum(line["charge"]["steps"] for line in lines if "charge" in line)


def test_every_prefix_of_a_ledger_is_read_as_its_whole_lines(tmp_path: Path) -> None:
    """A crash may leave any of them; what is cut off was never acted upon."""
    filled(tmp_path / "ledger.jsonl")
    content = (tmp_path / "ledger.jsonl").read_bytes()
    path = tmp_path / "prefix.jsonl"
    ends = [place + more for place, byte in enumerate(content) if byte == 10 for more in (-1, 0, 1)]
    for length in sorted({*range(0, len(content), 7), *ends}):
        path.write_bytes(content[:length])
        ledger = opened(path)
        assert ledger.spent == counted(content[:length])
        assert path.read_bytes() == content[:length], "whoever reads it may not be the one who writes it"
        if length % 49 == 0:  # it goes on from there
            ledger.charge(9, "zz")
            assert path.read_bytes().startswith(content[: content[:length].rfind(b"\n") + 1])
            assert opened(path).spent == ledger.spent == counted(content[:length]) + 3


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_changed_byte_is_refused_or_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "ledger.jsonl"
    if not path.exists():
        filled(path)
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    _refused_or_same(tmp_path / "changed.jsonl", content, place, byte)


def test_every_changed_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl")
    content = (tmp_path / "ledger.jsonl").read_bytes()
    for place in range(len(content)):
        _refused_or_same(tmp_path / "changed.jsonl", content, place, content[place] ^ 1 << place % 8)


def _refused_or_same(path: Path, content: bytes, place: int, byte: int) -> None:
    """The same but for white space between two parts of a line, which says nothing."""
    path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    try:
        found = opened(path)
    except InputError as error:
        told = str(error)
    else:
        assert found.spent == counted(content)
        assert bytes([byte]).isspace(), (place, content[place], byte)
        return
    assert re.search(r"changed\.jsonl: .*put .* back", told)


def test_lines_that_are_missing_swapped_or_said_twice_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl")
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    path = tmp_path / "changed.jsonl"
    for place in range(4):
        swapped = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
        for changed in (lines[:place] + lines[place + 1 :], swapped, lines[: place + 1] + lines[place:]):
            path.write_bytes(b"".join(changed))
            with pytest.raises(InputError, match=r"line \d is damaged"):
                opened(path)


def test_last_lines_that_are_missing_are_noticed_by_the_round_that_the_hospital_was_in(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    filled(path).require(2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    with pytest.raises(InputError, match="round 2 is not charged in it; put the hospital's ledger back"):
        opened(path).require(2)


def test_another_hospitals_ledger_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.jsonl")
    with pytest.raises(InputError, match="the ledger of hospital 2; put that of 3 back"):
        opened(tmp_path / "ledger.jsonl", hospital=3)


@pytest.mark.parametrize("change", [{"rate": 0.13}, {"noise_multiplier": 1.5}])
def test_a_ledger_of_another_noise_or_rate_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    filled(tmp_path / "ledger.jsonl")
    with pytest.raises(InputError, match="a run cannot change its noise"):
        opened(tmp_path / "ledger.jsonl", dose=replace(DOSE, **change))


def test_a_ledger_without_a_file_keeps_all_in_memory() -> None:
    ledger = opened(None)
    ledger.release(ledger.charge(1, "aa"), b"vector")
    assert ledger.spent == 3


def test_two_that_write_one_ledger_are_told_apart(tmp_path: Path) -> None:
    first, second = (opened(tmp_path / "ledger.jsonl") for _ in range(2))
    first.charge(1, "aa")
    with pytest.raises(FederationError, match=r"another process writes it"):
        second.charge(1, "aa")
    assert opened(tmp_path / "ledger.jsonl").spent == first.spent


def test_each_charge_has_a_nonce_of_its_own_unless_it_must_repeat_from_the_seed() -> None:
    drawn = {Ledger(None, 2, DOSE).charge(1, "aa").nonce for _ in range(5)}
    assert len(drawn) == 5
    assert Ledger(None, 2, DOSE, reproducible=True).charge(1, "aa").nonce == ""


def test_a_ledger_that_lost_the_line_of_a_state_is_refused(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    opened(tmp_path / "ledger.jsonl").require(1, ledger.head)
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(InputError, match=r"put the hospital's ledger back"):
        opened(tmp_path / "ledger.jsonl").require(1, ledger.head)

import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from lightning_fed.errors import FederationError, InputError
from lightning_fed.tracking.files import RunFolder, read_rounds, write_text_whole
from tests.tracking.samples import record, result


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.create({"seed": 42, "data": {"name": "bloodcells"}})
    for round in (1, 2, 3):
        folder.add_round(record(round))
    return folder


def rounds(folder: RunFolder) -> list[int]:
    return [line["round"] for line in read_rounds(folder.rounds)]


def test_a_folder_is_made_with_its_experiment_in_the_order_given(folder: RunFolder) -> None:
    assert yaml.safe_load(folder.experiment.read_text()) == {"seed": 42, "data": {"name": "bloodcells"}}
    assert folder.experiment.read_text().startswith("seed")


def test_a_folder_that_holds_a_run_is_refused_with_the_line_that_resumes_it(folder: RunFolder) -> None:
    for attempt in (folder.refuse_existing, lambda: folder.create({"seed": 1})):
        with pytest.raises(
            InputError, match=rf"output: {folder.path} already holds a run.*--resume {folder.path}"
        ):
            attempt()
    assert yaml.safe_load(folder.experiment.read_text())["seed"] == 42


def test_a_free_folder_is_not_refused_and_its_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.refuse_existing()
    folder.create({})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"output: .*file/one cannot be written \(.+\); name another"):
        RunFolder(tmp_path / "file" / "one").create({})


def test_lines_come_back_as_they_were_written(folder: RunFolder) -> None:
    wanted = [json.loads(json.dumps(record(round).as_dict())) for round in (1, 2, 3)]
    assert read_rounds(folder.rounds) == wanted


def test_a_run_without_rounds_has_no_lines(tmp_path: Path) -> None:
    assert read_rounds(tmp_path / "rounds.jsonl") == []


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(folder: RunFolder) -> None:
    whole = folder.rounds.read_bytes()
    start = whole.rstrip().rfind(b"\n") + 1
    for cut in range(start, len(whole) - 1):
        folder.rounds.write_bytes(whole[:cut])
        assert rounds(folder) == [1, 2], cut
    folder.rounds.write_bytes(whole[:-1])
    assert rounds(folder) == [1, 2, 3], "only the line's end is missing"


@pytest.mark.parametrize("damage", ["", "{torn", "[]", "3", "null", '{"seconds": 1}'])
def test_a_damaged_middle_line_is_refused_by_its_number(folder: RunFolder, damage: str) -> None:
    lines = folder.rounds.read_text().splitlines()
    folder.rounds.write_text("\n".join([lines[0], damage, lines[2]]))
    with pytest.raises(InputError, match=r"rounds\.jsonl, line 2: not a round's record; put it back as"):
        read_rounds(folder.rounds)


def test_bytes_that_are_no_text_are_a_damaged_line(folder: RunFolder) -> None:
    first, rest = folder.rounds.read_bytes().split(b"\n", 1)
    folder.rounds.write_bytes(b"\xff\xfe" + first + b"\n" + rest)
    with pytest.raises(InputError, match="line 1"):
        read_rounds(folder.rounds)


@pytest.mark.parametrize(("before", "kept"), [(0, []), (2, [1]), (3, [1, 2]), (4, [1, 2, 3])])
def test_a_resumed_run_keeps_the_rounds_before_and_drops_a_torn_end(
    folder: RunFolder, before: int, kept: list[int]
) -> None:
    with folder.rounds.open("a") as file:
        file.write('{"round": 4, "coh')
    folder.keep_rounds(before)
    assert rounds(folder) == kept
    folder.add_round(record(before + 1))
    assert rounds(folder) == [*kept, before + 1]


def test_a_resumed_run_that_lost_a_record_is_refused(folder: RunFolder) -> None:
    with pytest.raises(InputError, match=r"rounds\.jsonl: the record of round 4 is missing; put it back"):
        folder.keep_rounds(before=9)
    assert rounds(folder) == [1, 2, 3]


def test_the_summary_is_the_result(folder: RunFolder) -> None:
    folder.finish(result())
    assert json.loads(folder.summary.read_text()) == json.loads(json.dumps(result().as_dict()))


def test_a_write_leaves_the_new_text_alone(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "a.json", "old")
    write_text_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_number_that_was_changed_is_refused_by_its_line(folder: RunFolder) -> None:
    text = folder.rounds.read_text()
    records = read_rounds(folder.rounds)
    folder.rounds.write_text(text.replace('"round": 2', '"round": 6', 1))
    with pytest.raises(
        InputError, match=r"rounds\.jsonl, line 2: it was changed; put it back as the run wrote it"
    ):
        read_rounds(folder.rounds)
    folder.rounds.write_text(text)
    assert read_rounds(folder.rounds) == records


def test_records_and_whole_files_are_on_disk_when_a_call_returns(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next round's checkpoint is synced and asks for the record of the round before."""
    synced = []

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", note)
    for number in (1, 2):
        folder.add_round(record(number))
    folder.finish(result())
    name = folder.path.name
    assert synced == ["rounds.jsonl", "rounds.jsonl", "summary.json.part", name]


def test_a_folder_is_held_by_one_process_at_a_time(folder: RunFolder) -> None:
    refused = pytest.raises(InputError, match=r"another process works on .*; end that one first")
    with folder.held(), refused, folder.held():
        pass
    with folder.held():
        pass


def test_a_disk_that_is_full_at_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        FederationError, match=r"\(No space left on device\); make room for it; nothing was written yet"
    ):
        RunFolder(tmp_path / "run").create({"seed": 1})
    assert list(tmp_path.iterdir()) == []


def test_what_was_in_the_folder_before_stays_when_a_run_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "another").write_text("mine")
    (tmp_path / "identities.txt").write_text("mine too")
    folder = RunFolder(tmp_path)
    folder.create({"seed": 1})
    folder.remove_unstarted()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["identities.txt", "wandb"]
    assert (tmp_path / "wandb" / "another").exists()

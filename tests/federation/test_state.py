import io
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_fed.errors import FederationError, InputError
from lightning_fed.federation.checkpoint import Checkpoints
from lightning_fed.federation.state import HospitalStates, RoundFiles, read_whole, write_whole

CONTENT = {"numbers": torch.arange(50.0), "name": "a"}


def test_what_was_written_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.pt"
    write_whole(path, CONTENT)
    found = read_whole(path)
    assert torch.equal(found["numbers"], CONTENT["numbers"])
    assert found["name"] == "a"
    assert [file.name for file in path.parent.iterdir()] == ["file.pt"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    write_whole(path, CONTENT)
    with pytest.raises(Exception, match=r"pickle|lambda"):
        write_whole(path, {"unpicklable": lambda: None})
    assert read_whole(path)["name"] == "a"


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt: not a whole checkpoint \(FileNotFoundError\)"):
        read_whole(tmp_path / "none.pt")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "file.pt"
    write_whole(path, CONTENT)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        read_whole(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_every_flipped_byte_is_refused(tmp_path: Path, place: float, mask: int) -> None:
    path = tmp_path / "file.pt"
    write_whole(path, CONTENT)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= mask
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="not a whole checkpoint"):
        read_whole(path)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    write_whole(tmp_path / "file.pt", {"trap": Trap(tmp_path / "sprung")})
    torch.load(io.BytesIO((tmp_path / "file.pt").read_bytes()[:-32]), weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap itself does not work"
    (tmp_path / "sprung").unlink()
    with pytest.raises(InputError, match="UnpicklingError"):
        read_whole(tmp_path / "file.pt")
    assert not (tmp_path / "sprung").exists()


def test_the_last_two_rounds_are_kept_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path, "round")
    assert files.rounds() == []
    for stranger in ("round-best.pt", "other-00001.pt", "round-00077.part"):
        (tmp_path / stranger).write_text("kept")
    for round in (1, 2, 9, 10, 11):
        files.save(round, {"round": round})
    assert files.rounds() == [10, 11]
    assert read_whole(files.path(10)) == {"round": 10}
    assert len(list(tmp_path.iterdir())) == 5


def test_rounds_beyond_the_five_digits_are_still_in_order(tmp_path: Path) -> None:
    files = RoundFiles(tmp_path, "round")
    for round in (99_999, 100_000, 100_001):
        files.save(round, {})
    assert files.rounds() == [100_000, 100_001]


def test_a_hospital_loads_the_very_rounds_state_and_drops_later_ones_once_it_trains(
    tmp_path: Path,
) -> None:
    states = HospitalStates(tmp_path, 3)
    for round in (4, 7):
        states.save(round, {"round": round})
    assert states.path(7) == tmp_path / "hospitals" / "3" / "state-00007.pt"
    assert states.load(7) == {"round": 7}
    assert states.load(4) == {"round": 4}
    assert states.rounds() == [4, 7], "to look is not to change"
    states.save(4, {"round": 4})
    assert states.rounds() == [4]


def test_states_of_processes_that_were_lost_do_not_take_the_place_of_the_one_that_is_asked_for(
    tmp_path: Path,
) -> None:
    """Each trains a round further, saves it, and dies before the driver hears of it."""
    first = HospitalStates(tmp_path, 3)
    first.save(1, {"round": 1})
    first.save(2, {"round": 2})
    for round in (3, 4, 5, 6):
        states = HospitalStates(tmp_path, 3)
        assert states.load(2) == {"round": 2}
        states.save(round, {"round": round})
        assert states.rounds() == [1, 2, round]


@pytest.mark.parametrize("round", [3, 5])
def test_an_older_or_missing_state_does_not_stand_in(tmp_path: Path, round: int) -> None:
    states = HospitalStates(tmp_path, 3)
    states.save(4, {})
    with pytest.raises(InputError, match=rf"state-0000{round}\.pt"):
        states.load(round)


def test_a_file_that_cannot_be_written_ends_the_federation_and_not_in_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "hospitals").write_text("a file where a folder should be")
    with pytest.raises(FederationError, match="cannot be written"):
        HospitalStates(tmp_path, 3).save(1, {})


def test_a_torn_state_is_refused_by_name(tmp_path: Path) -> None:
    states = HospitalStates(tmp_path, 0)
    states.save(1, {}).write_bytes(b"torn")
    with pytest.raises(InputError, match=r"state-00001\.pt: not a whole checkpoint"):
        states.load(1)


def test_another_hospitals_state_is_refused(tmp_path: Path) -> None:
    HospitalStates(tmp_path, 0).save(2, {})
    mine = HospitalStates(tmp_path, 1)
    mine.save(2, {})
    mine.path(2).write_bytes(HospitalStates(tmp_path, 0).path(2).read_bytes())
    with pytest.raises(InputError, match=r"state-00002\.pt: not the state of hospital 1; put its own back"):
        mine.load(2)


def test_a_hospital_ahead_of_the_driver_still_has_the_state_of_the_older_checkpoint(tmp_path: Path) -> None:
    """Killed while round 6 trains, with the driver's checkpoint of round 5 torn, the run goes on after 4."""
    states, checkpoints = HospitalStates(tmp_path, 0), Checkpoints(tmp_path)
    for round in range(1, 6):
        states.save(round, {"round": round})
        checkpoints.save(round, {})
    states.save(6, {"round": 6})
    oldest = checkpoints.rounds()[0]
    assert states.load(oldest) == {"round": oldest}


def test_a_hospital_that_was_late_keeps_the_state_that_the_last_checkpoints_ask_for(tmp_path: Path) -> None:
    """Given up in round 3, with round 4 sent ahead: until then the driver's checkpoints name round 2."""
    states = HospitalStates(tmp_path, 7)
    for round in range(1, 6):
        states.save(round, {"optimizer": {}})
    assert states.load(2) == {"optimizer": {}}

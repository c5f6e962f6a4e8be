from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_fed.errors import InputError
from lightning_fed.experiment import Federation
from lightning_fed.federation.checkpoint import Checkpoint, Checkpoints
from lightning_fed.federation.state import write_whole
from lightning_fed.federation.strategy import UpdateServer
from lightning_fed.tracking.records import FitReport, TrainedRound


def checkpoint(round: int) -> Checkpoint:
    reports = (FitReport(0, round, 100, 4, 0.5, 1.5), FitReport(2, round, 50, 2, 0.25, 0.5))
    return Checkpoint(TrainedRound(round, reports, 2.0, 0.1), np.full(5, round, np.float32), {})


@pytest.fixture
def stored(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path)
    for round in (1, 2, 3):
        checkpoints.store(checkpoint(round))
    return checkpoints


def test_a_folder_without_checkpoints_has_no_last(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).last() is None


def test_the_last_checkpoint_comes_back_whole(stored: Checkpoints) -> None:
    last = stored.last()
    assert last is not None
    assert last.round == 3
    assert last.trained == checkpoint(3).trained
    assert last.weights.tolist() == [3] * 5
    assert last.weights.dtype == np.float32
    assert [path.name for path in sorted(stored.folder.iterdir())] == ["round-00002.pt", "round-00003.pt"]


def test_the_servers_optimizer_comes_back_with_its_moments(tmp_path: Path) -> None:
    federation = Federation(server_optimizer="Adam", server_lr=0.1)
    weights, update = np.ones(4, np.float32), np.array([1, -1, 0.5, 0], np.float32)
    first, second = UpdateServer(federation, np.ones(4, bool)), UpdateServer(federation, np.ones(4, bool))
    weights = first.apply(weights, update, 1)
    Checkpoints(tmp_path).store(Checkpoint(checkpoint(1).trained, weights, first.state()))
    last = Checkpoints(tmp_path).last()
    assert last is not None
    second.restore(last.server)
    assert second.apply(last.weights, update, 1).tolist() == first.apply(weights, update, 1).tolist()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_torn_checkpoint_falls_back_to_the_one_before(stored: Checkpoints, share: float) -> None:
    whole = stored.path(3).read_bytes()
    stored.path(3).write_bytes(whole[: int(share * len(whole))])
    last = stored.last()
    assert last is not None
    assert last.round == 2


def test_a_flipped_byte_of_the_weights_falls_back_and_is_named(stored: Checkpoints) -> None:
    damaged = bytearray(stored.path(3).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    stored.path(3).write_bytes(damaged)
    last = stored.last()
    assert last is not None
    assert last.round == 2
    assert any("round-00003.pt" in told for told in stored.damaged)


@pytest.mark.parametrize(
    "content",
    [{}, [], {"trained": {}, "weights": torch.zeros(2), "server": {}}, {"trained": 3, "weights": 3, "server": {}}],
)
def test_a_file_that_holds_something_else_falls_back_too(stored: Checkpoints, content: object) -> None:
    write_whole(stored.path(3), content)
    last = stored.last()
    assert last is not None
    assert last.round == 2


def test_a_half_written_file_beside_them_is_no_checkpoint(stored: Checkpoints) -> None:
    stored.path(4).with_suffix(".part").write_bytes(b"killed while writing")
    last = stored.last()
    assert last is not None
    assert last.round == 3


def test_where_none_is_whole_the_folder_is_refused(stored: Checkpoints) -> None:
    for round in (2, 3):
        stored.path(round).write_bytes(b"torn")
    with pytest.raises(InputError, match=r"checkpoints: no whole checkpoint in it .*round-00003\.pt"):
        stored.last()

from pathlib import Path

import numpy as np
import pytest

from lightning_fed.data.bloodcells import CELL_TYPES
from lightning_fed.data.load import load_images
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from tests.data.archives import arrays, save


def test_blood_cells_are_drawn_in_three_splits_by_the_partition_seed() -> None:
    data = load_images(Data(images=16))
    again = load_images(Data(images=16))
    other = load_images(Data(images=16, partition_seed=1))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 4, 4]
    assert (data.class_names, data.rebuilt, data.size) == (CELL_TYPES, False, 28)
    assert np.array_equal(data.train.images, again.train.images)
    assert not np.array_equal(data.train.images, other.train.images)
    assert not np.array_equal(data.validation.images, data.test.images)


def test_one_image_to_train_on_still_has_one_to_validate_and_one_to_test() -> None:
    data = load_images(Data(images=1))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1, 1, 1]


def test_a_path_and_a_medmnist_name_lead_to_their_files(tmp_path: Path) -> None:
    path = save(tmp_path / "bloodmnist.npz", arrays(size=28, classes=8))
    mine = load_images(Data(name="path", root=str(path)))
    theirs = load_images(Data(name="bloodmnist", root=str(tmp_path)))
    assert (mine.name, theirs.name) == ("path", "bloodmnist")
    assert np.array_equal(mine.train.images, theirs.train.images)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\.name is 'bloodcels': did you mean 'bloodcells'"):
        load_images(Data(name="bloodcels"))

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_fed.data.own import load_own
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from tests.data.archives import arrays, save


def own(root: Path | None, size: int = 8, **changes: object) -> Data:
    return Data(**{"name": "path", "root": None if root is None else str(root), "size": size, **changes})


def paint(path: Path, shade: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade,) * 3).save(path)
    return path


def paint_classes(folder: Path, count: int, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    """Pictures whose shade tells their class and number."""
    for label, name in enumerate(classes):
        for number in range(count):
            paint(folder / name / f"{number:02d}.png", 100 * label + number)


def test_no_root_is_refused_with_what_it_would_name() -> None:
    with pytest.raises(InputError, match=r"data\.root is null: with data\.name 'path' it names your npz file"):
        load_own(own(None))


def test_a_root_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.npz: there is no such file; set data\.root"):
        load_own(own(tmp_path / "nowhere.npz"))


def test_an_npz_file_is_called_by_its_name_and_counts_its_classes(tmp_path: Path) -> None:
    data = load_own(own(save(tmp_path / "mine.npz", arrays(classes=3))))
    assert (data.title, data.rebuilt, data.class_names) == ("mine", False, ("class 0", "class 1", "class 2"))


def test_a_class_that_only_the_test_split_holds_counts_too(tmp_path: Path) -> None:
    content = arrays(classes=2)
    content["test_labels"][0] = 4
    assert len(load_own(own(save(tmp_path / "mine.npz", content))).class_names) == 5


def test_grey_images_get_one_channel(tmp_path: Path) -> None:
    assert load_own(own(save(tmp_path / "mine.npz", arrays(channels=None)))).channels == 1


def test_a_size_that_is_not_the_files_is_refused_with_the_files(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npz", arrays(size=8))
    with pytest.raises(InputError, match=r"data\.size is 16, but .*mine\.npz holds 8 pixels: set it so"):
        load_own(own(path, size=16))


def test_a_folder_with_splits_is_read_as_it_stands(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        paint_classes(tmp_path / split, count)
    data = load_own(own(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.validation.labels.tolist() == [0, 1]
    assert data.test.images[:, 4, 4, 0].tolist() == [0, 1, 100, 101]


def test_a_folder_of_classes_is_split_seventy_ten_twenty_within_each_class(tmp_path: Path) -> None:
    paint_classes(tmp_path, 10)
    data = load_own(own(tmp_path))
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.validation, data.test)] == [
        [7, 7],
        [1, 1],
        [2, 2],
    ]
    shades = [int(image[4, 4, 0]) for part in (data.train, data.validation, data.test) for image in part.images]
    assert sorted(shades) == [*range(10), *range(100, 110)]


def test_the_split_of_a_folder_is_seeded_by_the_partition_seed(tmp_path: Path) -> None:
    paint_classes(tmp_path, 10)

    def shades(seed: int) -> list[int]:
        return load_own(own(tmp_path, partition_seed=seed)).test.images[:, 4, 4, 0].tolist()

    assert shades(1) == shades(1)
    assert shades(1) != shades(2)


def test_pictures_of_any_kind_and_shape_become_colour_squares_of_their_centre(tmp_path: Path) -> None:
    paint_classes(tmp_path, 10)
    paint(tmp_path / "cat" / "90.JPG", 50, (40, 9))
    paint(tmp_path / "cat" / "91.gif", 60, (5, 7), mode="L")
    wide = Image.new("RGB", (30, 10), (0, 0, 0))
    wide.paste((255, 255, 255), (7, 0, 23, 10))
    wide.save(tmp_path / "cat" / "92.png")
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    data = load_own(own(tmp_path))
    images = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert images.shape == (23, 8, 8, 3)
    assert any((image == 255).all() for image in images), "only the white centre of the wide picture is kept"


def broken(kind: str, share: float) -> bytes:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, kind)
    return whole.getvalue()[: int(share * whole.tell())]


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_broken_picture_is_refused_by_name(tmp_path: Path, kind: str, share: float) -> None:
    paint_classes(tmp_path, 10)
    (tmp_path / "dog" / f"bad.{kind}").write_bytes(broken(kind, share))
    with pytest.raises(InputError, match=rf"bad\.{kind}: not a whole picture; replace or remove it"):
        load_own(own(tmp_path))


def test_a_picture_that_claims_a_monstrous_size_is_refused(tmp_path: Path) -> None:
    paint_classes(tmp_path, 10)
    bomb = bytearray(broken("bmp", 1.0))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2  # width and height
    (tmp_path / "dog" / "bad.bmp").write_bytes(bomb)
    with pytest.raises(InputError, match=r"bad\.bmp: not a whole picture"):
        load_own(own(tmp_path))


def test_a_folder_of_fewer_than_two_classes_is_refused(tmp_path: Path) -> None:
    paint_classes(tmp_path, 3, ("only",))
    with pytest.raises(InputError, match="1 class folders in it; make one for each of two classes or more"):
        load_own(own(tmp_path))


def test_class_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="no pictures in its class folders; put PNG or JPEG files there"):
        load_own(own(tmp_path))


def test_a_split_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    paint_classes(tmp_path / "train", 2)
    paint_classes(tmp_path / "test", 2)
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match="val: no pictures in its class folders"):
        load_own(own(tmp_path))


def test_too_few_pictures_to_split_are_refused(tmp_path: Path) -> None:
    paint_classes(tmp_path, 2)
    with pytest.raises(InputError, match="too few pictures for train, val and test; give at least ten of a class"):
        load_own(own(tmp_path))


def test_a_class_that_only_the_test_split_has_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        paint_classes(tmp_path / split, 2)
    paint_classes(tmp_path / "test", 2, ("cat", "dog", "horse"))
    with pytest.raises(InputError, match="class 'horse' has no folder in train"):
        load_own(own(tmp_path))

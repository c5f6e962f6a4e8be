from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_fed.data.images import ImageSet
from lightning_fed.data.npz import read_images, read_npz
from lightning_fed.errors import InputError
from tests.data.archives import SIZES, arrays, save


def same(found: tuple[ImageSet, ...], content: dict[str, np.ndarray]) -> bool:
    return all(
        np.array_equal(part.images, content[f"{split}_images"])
        and np.array_equal(part.labels, content[f"{split}_labels"][:, 0])
        for part, split in zip(found, SIZES, strict=True)
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_a_whole_file_gives_its_three_splits(tmp_path: Path, compressed: bool) -> None:
    content = arrays()
    assert same(read_npz(save(tmp_path / "a.npz", content, compressed)), content)


def test_a_missing_file_is_refused_with_the_key_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npz: there is no such file; set data\.root"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path: Path, share: float, compressed: bool) -> None:
    path = save(tmp_path / "a.npz", arrays(), compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"a\.npz: not a whole npz file.*; fetch or save it again"):
        read_npz(path)


@pytest.mark.parametrize(
    "content", [b"not an archive", b"PK\x03\x04 torn", b"\x80\x04K\x01."], ids=["text", "torn zip", "pickle"]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a whole npz file"):
        read_npz(tmp_path / "a.npz")


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not a whole npz file"):
        read_npz(tmp_path / "a.npz")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a whole npz file"):
        read_npz(tmp_path)


@pytest.mark.parametrize("name", list(arrays()))
def test_a_missing_array_is_named(tmp_path: Path, name: str) -> None:
    content = arrays()
    del content[name]
    with pytest.raises(InputError, match=f"no array called {name}; save it in MedMNIST's layout"):
        read_npz(save(tmp_path / "a.npz", content))


@pytest.mark.parametrize("split", list(SIZES))
@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("images", lambda array: array.astype(np.float32), "float32, save them as uint8"),
        ("images", lambda array: array[:, 1:], "images of shape"),
        ("images", lambda array: array[1:], "save one integer for each"),
        ("labels", lambda array: array[1:], "save one integer for each"),
        ("labels", lambda array: array.astype(str), "save one integer for each"),
        ("labels", lambda array: array - 1, "label -1 is negative"),
    ],
)
def test_a_wrong_array_is_refused_with_its_file_and_split(
    tmp_path: Path, split: str, kind: str, change, message: str
) -> None:
    content = arrays()
    content[f"{split}_{kind}"] = change(content[f"{split}_{kind}"])
    with pytest.raises(InputError, match=rf"a\.npz, {split}: .*{message}"):
        read_npz(save(tmp_path / "a.npz", content))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    content = arrays()
    content |= {"val_images": content["val_images"][:0], "val_labels": content["val_labels"][:0]}
    with pytest.raises(InputError, match=r"a\.npz, val: there are no images in it"):
        read_npz(save(tmp_path / "a.npz", content))


def test_splits_of_different_shapes_are_refused(tmp_path: Path) -> None:
    content = arrays()
    content["test_images"] = arrays(size=9)["test_images"]
    with pytest.raises(InputError, match="the splits hold images of different shapes"):
        read_npz(save(tmp_path / "a.npz", content))


class Trap:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_their_code_is_not_run(tmp_path: Path) -> None:
    content = arrays() | {"train_images": np.array([Trap(tmp_path / "sprung")], dtype=object)}
    path = save(tmp_path / "a.npz", content)
    with np.load(path, allow_pickle=True) as trapped:
        trapped["train_images"]
    assert (tmp_path / "sprung").exists(), "the trap itself does not work"
    (tmp_path / "sprung").unlink()
    with pytest.raises(InputError, match="not a whole npz file"):
        read_npz(path)
    assert not (tmp_path / "sprung").exists()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), compressed=st.booleans())
def test_a_flipped_byte_is_refused_or_harmless(tmp_path: Path, place: float, mask: int, compressed: bool) -> None:
    content = arrays()
    path = save(tmp_path / "a.npz", content, compressed)
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] ^= mask
    path.write_bytes(damaged)
    try:
        found = read_npz(path)
    except InputError:
        return
    assert same(found, content)


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "unknown compression"])
def test_an_archive_that_this_program_cannot_unpack_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    path = save(tmp_path / "a.npz", arrays())
    damaged = bytearray(path.read_bytes())
    entry = damaged.find(b"PK\x01\x02")  # the central directory's first entry
    damaged[entry + offset] = value
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="not a whole npz file"):
        read_npz(path)


def test_a_text_that_calls_itself_npz_is_not_said_to_want_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("hi")
    for read in (read_npz, read_images):
        with pytest.raises(InputError, match=r"a\.npz: not a whole npz file; fetch or save it again$"):
            read(path)

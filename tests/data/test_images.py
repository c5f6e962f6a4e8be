import numpy as np
import pytest

from lightning_fed.data.images import ImageData, ImageSet, image_set
from lightning_fed.errors import InputError


def pixels(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8, 3)), [0, 1], "file, train: the images are float64, save them as uint8"),
        (pixels(2, 8, 9, 3), [0, 1], r"images of shape \(2, 8, 9, 3\)"),
        (pixels(2, 8, 8, 4), [0, 1], r"images of shape \(2, 8, 8, 4\)"),
        (pixels(2, 8), [0, 1], r"images of shape \(2, 8\)"),
        (pixels(2, 8, 8), [0, 1, 1], r"labels int64 of shape \(3,\), save one integer for each of the 2 images"),
        (pixels(2, 8, 8), [[0, 1], [1, 0]], r"labels int64 of shape \(2, 2\)"),
        (pixels(2, 8, 8), [0.0, 1.0], "labels float64"),
        (pixels(0, 8, 8), np.zeros(0, int), "there are no images in it"),
        (pixels(2, 8, 8), [0, -1], "label -1 is negative, count classes from 0"),
        (pixels(2, 8, 8), np.array([0, 2**63], np.uint64), "label 9223372036854775808 is too great"),
    ],
)
def test_arrays_that_are_not_images_and_labels_are_refused_by_name(images, labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_set(images, labels, "file, train")


def test_grey_images_get_one_channel() -> None:
    assert image_set(pixels(2, 8, 8), [0, 1], "").images.shape == (2, 8, 8, 1)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_labels_of_either_shape_and_any_integer_type_become_int64(shape: tuple[int, ...]) -> None:
    found = image_set(pixels(2, 8, 8), np.array([3, 1], np.uint8).reshape(shape), "")
    assert found.labels.tolist() == [3, 1]
    assert found.labels.dtype == np.int64


def test_checking_does_not_copy_the_pixels() -> None:
    images = pixels(2, 8, 8, 3)
    assert np.shares_memory(image_set(images, [0, 1], "").images, images)


def test_a_data_set_knows_its_size_channels_and_splits() -> None:
    parts = [ImageSet(pixels(count, 16, 16, 3), np.zeros(count, int)) for count in (3, 2, 1)]
    data = ImageData("name", "title", False, ("a",), *parts)
    assert (data.size, data.channels) == (16, 3)
    assert [len(data.split(name)) for name in ("train", "validation", "test")] == [3, 2, 1]


def test_without_pixels_shapes_and_labels_stay_and_no_memory_is_taken() -> None:
    full = ImageSet(np.ones((50, 8, 8, 3), np.uint8), np.arange(50) % 3)
    data = ImageData("own", "own", False, ("a", "b", "c"), full, full, full)
    blank = data.without_pixels()
    assert (blank.size, blank.channels, len(blank.train)) == (8, 3, 50)
    assert blank.train.images.strides == (0, 0, 0, 0)
    assert np.array_equal(blank.test.labels, full.labels)

"""A user's own images (`data.name: path`): an npz of MedMNIST's layout, or a folder of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lightning_fed.data.images import ImageData, ImageSet, Pixels, image_set
from lightning_fed.data.npz import SPLITS, read_images, read_npz
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from lightning_fed.paths import user_path
from lightning_fed.seeds import stream

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def load_own(data: Data) -> ImageData:
    """The npz file or the folder that `data.root` names.

    A folder holds `train/`, `val/` and `test/` with a folder for each class, or the class folders alone,
    which are then split 70:10:20 within each class by `data.partition_seed`.

    Raises:
        InputError: nothing is there, or it does not hold what it should.
    """
    if data.root is None:
        raise InputError("data.root is null: with data.name 'path' it names your npz file or folder of pictures")
    root = user_path(data.root)
    if root.is_dir():
        return _from_folder(root, data)
    train, validation, test = read_npz(root)
    if train.images.shape[1] != data.size:
        raise InputError(f"data.size is {data.size}, but {root} holds {train.images.shape[1]} pixels: set it so")
    classes = 1 + max(int(split.labels.max()) for split in (train, validation, test))
    names = tuple(f"class {label}" for label in range(classes))
    return ImageData("path", root.stem, False, names, train, validation, test)


def _from_folder(root: Path, data: Data) -> ImageData:
    splits = {split: root / split for split in SHARES}
    if all(folder.is_dir() for folder in splits.values()):
        names = _class_names(splits["train"])
        for folder in splits.values():
            unknown = sorted({entry.name for entry in folder.iterdir() if entry.is_dir()} - set(names))
            if unknown:
                raise InputError(f"{folder}: class '{unknown[0]}' has no folder in train; add or remove it")
        train, validation, test = (_read_folder(folder, names, data.size) for folder in splits.values())
    else:
        names = _class_names(root)
        train, validation, test = _shares(_read_folder(root, names, data.size), data.partition_seed, root)
    return ImageData("path", root.name, False, names, train, validation, test)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if len(names) < 2:
        raise InputError(f"{folder}: {len(names)} class folders in it; make one for each of two classes or more")
    return names


def _read_folder(folder: Path, names: tuple[str, ...], size: int) -> ImageSet:
    images, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).glob("*")):
            if path.suffix.lower() in PICTURES:
                images.append(_read_picture(path, size))
                labels.append(label)
    if not images:
        raise InputError(f"{folder}: no pictures in its class folders; put PNG or JPEG files there")
    return image_set(np.stack(images), np.array(labels), str(folder))


def read_unlabelled(path: Path, size: int | None, channels: int, split: str = "test") -> tuple[list[str], Pixels]:
    """Images to be named: a picture, a folder of pictures with all that is below it, or a split of an npz.

    Args:
        path: of them; an npz has MedMNIST's layout, or one array of images. size: of a side in pixels, to which
            pictures are fitted; None where nobody knows, and an npz has its own. channels: 1 or 3.
        split: of an npz in MedMNIST's layout, `train`, `val` or `test`.

    Returns:
        A name for each, and uint8 (images, size, size, channels).

    Raises:
        InputError: nothing is there, or it does not hold what it should.
    """
    if path.suffix.lower() == ".npz":
        alone = read_images(path)
        if alone is None:
            images = dict(zip(SPLITS, read_npz(path), strict=True))[split].images
        else:
            images, split = image_set(alone, np.zeros(len(alone), np.int64), str(path)).images, "image"
        if images.shape[3] != channels or size not in (None, images.shape[1]):
            raise InputError(
                f"{path}: images of {images.shape[1]} pixels and {images.shape[3]} channels, but the model "
                f"learned from {size} and {channels}; give it images like those"
            )
        return [f"{split} {number}" for number in range(len(images))], images
    if not os.path.exists(path):
        raise InputError(f"{path}: there is no such file; name a picture, a folder of them or an npz")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    if not pictures:
        raise InputError(f"{path}: no picture and no npz; name a folder of PNG or JPEG files, or an npz")
    if size is None:
        raise InputError(f"{path}: the model does not say what size it learned from; give it images in an npz")
    mode = "L" if channels == 1 else "RGB"
    stack = np.stack([_read_picture(file, size, mode) for file in pictures])
    names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in pictures]
    return names, stack.reshape(len(stack), size, size, channels)


def _read_picture(path: Path, size: int, mode: str = "RGB") -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The picture's centre square as uint8 (size, size, 3) or, in mode L, (size, size), resized bicubically."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.fit(picture.convert(mode), (size, size), Image.Resampling.BICUBIC))
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a whole picture; replace or remove it") from error


def _shares(whole: ImageSet, seed: int, root: Path) -> tuple[ImageSet, ...]:
    """Seeded splits of each class in the proportions of `SHARES`."""
    generator = stream(seed, "own", "split")
    parts: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]] = {split: [] for split in SHARES}
    for label in np.unique(whole.labels):
        members = generator.permutation(np.flatnonzero(whole.labels == label))
        ends = np.round(np.cumsum(list(SHARES.values())) * len(members)).astype(int)
        for split, part in zip(SHARES, np.split(members, ends[:-1]), strict=True):
            parts[split].append(part)
    chosen = [np.sort(np.concatenate(part)) for part in parts.values()]
    if any(len(part) == 0 for part in chosen):
        raise InputError(f"{root}: too few pictures for train, val and test; give at least ten of a class")
    return tuple(ImageSet(whole.images[part], whole.labels[part]) for part in chosen)

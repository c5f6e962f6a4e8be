"""Any 2-D single-label MedMNIST set, from `data.root` or downloaded by the medmnist package."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from lightning_fed.checks import suggestion
from lightning_fed.data.images import ImageData
from lightning_fed.data.npz import read_npz
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from lightning_fed.paths import user_path

SIZES = (28, 64, 128, 224)
REBUILT_TITLES = {"3d8f0fe1523fa2a5f79ef4449358cf08": "BloodMNIST rebuilt from PBC"}


def load_medmnist(data: Data) -> ImageData:
    """The set `data.name` at `data.size` pixels.

    Raises:
        InputError: an unknown set or size, a download that fails, or a file that does not hold what it should.
    """
    info = _info(data)
    suffix = "" if data.size == 28 else f"_{data.size}"
    path = _root(data) / f"{data.name}{suffix}.npz"
    if not os.path.exists(path):
        _download(data, info, path)
    train, validation, test = read_npz(path)
    _check_contents(path, info, data.size, (train, validation, test))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    rebuilt = digest != info.get(f"MD5{suffix}")
    title = REBUILT_TITLES.get(digest, f"{info['python_class']}{', not the official file' * rebuilt}")
    names = tuple(str(info["label"][str(label)]).split("(")[0] for label in range(len(info["label"])))
    return ImageData(data.name, title, rebuilt, names, train, validation, test)


def _info(data: Data) -> dict[str, Any]:
    from medmnist.info import INFO  # loads pandas and scikit-learn: only where a MedMNIST set is asked for

    flat = {name for name, info in INFO.items() if not name.endswith("3d") and "multi-label" not in info["task"]}
    if data.name not in flat:
        known = {*flat, "bloodcells", "path"}
        raise InputError(f"data.name is '{data.name}': {suggestion(data.name, known)}")
    if data.size not in SIZES:
        raise InputError(f"data.size is {data.size}: MedMNIST has {', '.join(map(str, SIZES))}")
    found: dict[str, Any] = INFO[data.name]
    return found


def _root(data: Data) -> Path:
    return user_path(data.root) if data.root else Path.home() / ".medmnist"


def _download(data: Data, info: dict[str, Any], path: Path) -> None:
    import medmnist

    if not data.download:
        raise InputError(f"data.root: {path} is missing; put it there, or set data.download to true")
    new_root = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent)
    except OSError as error:
        raise InputError(f"data.root: {path.parent} cannot be written ({error.strerror}); name another") from error
    with folder as parts:
        try:
            with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
                getattr(medmnist, info["python_class"])("test", root=parts, size=data.size, download=True)
            os.replace(Path(parts) / path.name, path)
        except (RuntimeError, OSError) as error:
            folder.cleanup()
            if new_root:
                path.parent.rmdir()
            url = info[f"url{path.stem.removeprefix(data.name)}"]
            raise InputError(
                f"data.name: {data.name} could not be downloaded; fetch {url} elsewhere and put it at {path}"
            ) from error


def _check_contents(path: Path, info: dict[str, Any], size: int, splits: tuple[Any, ...]) -> None:
    shape = (size, size, info["n_channels"])
    for split in splits:
        if split.images.shape[1:] != shape:
            raise InputError(f"{path}: images of shape {split.images.shape[1:]} instead of {shape}; fetch it anew")
        if int(split.labels.max()) >= len(info["label"]):
            raise InputError(
                f"{path}: label {int(split.labels.max())} where there are {len(info['label'])} classes; "
                "fetch it anew"
            )

"""The trained model as a Lightning checkpoint."""

from __future__ import annotations

import io
import os
import pickle
import secrets
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lightning_fed.errors import InputError
from lightning_fed.models.classifier import Classifier
from lightning_fed.paths import sync_folder

NO_START = "model.start: {path} does not start this network ({reason}); name a model.ckpt of the same model"


def _content(path: Path) -> dict[str, Any]:
    """A checkpoint whose checks fit: torch's own reader does not look at them.

    Raises:
        OSError, ValueError, RuntimeError, ...: it is missing or damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _reason(error: Exception) -> str:
    """What is wrong with a checkpoint, in one line and without torch's advice to load it unsafely."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError):
        return "not weights alone"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # the first of what does not fit
        return lines[1]
    return lines[0] if lines else type(error).__name__


def load_weights(classifier: Classifier, path: Path, told: str = NO_START) -> None:
    """Start from the weights of a `model.ckpt`; no code in the file is run.

    Args:
        classifier: gets them. path: the file. told: what to say where it does not fit, of `path` and `reason`.

    Raises:
        InputError: it is missing, damaged, or of another network.
    """
    try:
        content = _content(path)
        classifier.load_state_dict(content["state_dict"])
    except Exception as error:  # torch's reader meets damaged bytes with errors of any kind
        raise InputError(told.format(path=path, reason=_reason(error))) from error


def load_model(path: Path, trust: bool = False) -> Classifier:
    """The trained model of a `model.ckpt`, in evaluation mode; no code in the file is run.

    Args:
        path: the file. trust: whether the file may name a network's own class, which is then imported and built.

    Raises:
        InputError: it is missing or damaged, its network's own class cannot be built, or names one without trust.
    """
    try:
        content = _content(path)
        own = content["hyper_parameters"]["model"].get("class_path")
        if own is not None and not trust:
            raise InputError(f"{path}: its network is code of its own ({own}); --trust runs it, if you know it")
        classifier = Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch's reader meets damaged bytes with errors of any kind
        raise InputError(
            f"{path}: no model can be read from it ({_reason(error)}); name a run's model.ckpt"
        ) from error
    return classifier.eval()


def save_model(classifier: Classifier, path: Path) -> None:
    """Write `model.ckpt`; `Classifier.load_from_checkpoint(path, weights_only=True)` reads it back."""
    content = {
        "pytorch-lightning_version": version("lightning"),
        "state_dict": classifier.state_dict(),
        "hyper_parameters": dict(classifier.hparams),
        "epoch": 0,
        "global_step": 0,
    }
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")  # another process may write the same file
    memory = io.BytesIO()
    torch.save(content, memory)  # to a file, it tells of a full disk by no error of the system's
    try:
        with part.open("wb") as file:
            file.write(memory.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)

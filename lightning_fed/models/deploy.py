"""A trained model in forms that other tools read: safetensors for its weights, ONNX for the whole answer."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.errors import InputError
from lightning_fed.models.classifier import Classifier


class Answer(nn.Module):
    """From pixels to probabilities, as the classifier itself answers: its scaling and its averaging inside."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (batch, size, size, channels) -> probabilities float32 (batch, classes)."""
        return functional.softmax(self.classifier(images), 1)


def save_safetensors(classifier: Classifier, path: Path) -> None:
    """The weights by their names in `state_dict`, with what the network is as metadata.

    Raises:
        InputError: the library is not installed.
    """
    save = _library("safetensors.torch").save_file
    told = {name: json.dumps(value) for name, value in dict(classifier.hparams).items()}
    save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}, path, metadata=told)


def save_onnx(classifier: Classifier, path: Path) -> None:
    """The whole answer: input `images` uint8 (batch, size, size, channels), output `probabilities`.

    Raises:
        InputError: the library is not installed, nobody knows the images' size, or the network has no such form.
    """
    _library("onnxscript")
    kept: Any = classifier.hparams
    if kept["size"] is None:
        raise InputError("model.ckpt: it does not say what size of images it learned from; train it anew")
    images = torch.zeros((2, kept["size"], kept["size"], kept["in_channels"]), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own libraries
            torch.onnx.export(
                Answer(classifier).eval(),
                (images,),
                str(path),
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter meets what it does not know with errors of any kind
        reason = type(error).__name__
        raise InputError(f"model: this network has no form in ONNX ({reason}); use model.safetensors") from error


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise InputError(f"{library} is not installed; pip install 'lightning-fed[export]'") from error

"""`lightning-fed predict MODEL IMAGES`: what a trained model says of pictures."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Sequence

from lightning_fed.arguments import CommandParser
from lightning_fed.data.npz import SPLITS
from lightning_fed.data.own import read_unlabelled
from lightning_fed.errors import InputError
from lightning_fed.models.export import load_model
from lightning_fed.paths import user_path
from lightning_fed.tracking.files import write_text_whole

BATCH = 256
TRUST = "build a network of the model's own class, which runs its code"


def predict_command(words: Sequence[str]) -> int:
    """Name the class of each image, as CSV: image, class, and the probability of each class.

    Raises:
        InputError: the model or the images cannot be read, or do not fit each other.
    """
    parser = CommandParser("predict", description=predict_command.__doc__)
    parser.add_argument("model", help="a run's folder, or its model.ckpt")
    parser.add_argument("images", help="a picture, a folder of pictures, or an npz in MedMNIST's layout")
    parser.add_argument("--split", choices=SPLITS, default="test", help="of an npz (default: test)")
    parser.add_argument("--output", help="a file to write instead of the screen")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    own = parser.parse_args(list(words))
    model = user_path(own.model)
    table = predict(str(model / "model.ckpt" if model.is_dir() else model), own.images, own.split, own.trust)
    if own.output is None:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(table)
        return 0
    target = user_path(own.output)
    try:
        write_text_whole(target, table)
    except OSError as error:
        raise InputError(f"--output {target}: cannot be written ({error.strerror}); name another file") from error
    return 0


def predict(model: str, images: str, split: str = "test", trust: bool = False) -> str:
    """The CSV table; the model answers as it did in its run (`model.test_time_augmentation`).

    Raises:
        InputError: the model or the images cannot be read, or do not fit each other.
    """
    classifier = load_model(user_path(model), trust)
    kept = classifier.hparams
    names, pixels = read_unlabelled(user_path(images), kept["size"], kept["in_channels"], split)
    probabilities = classifier.probabilities(pixels, BATCH)
    classes = kept["class_names"] or [f"class {label}" for label in range(kept["num_classes"])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "predicted", *classes])
    for name, shares in zip(names, probabilities.tolist(), strict=True):
        best = max(range(len(classes)), key=shares.__getitem__)
        writer.writerow([name, classes[best], *(f"{share:.6f}" for share in shares)])
    return text.getvalue()

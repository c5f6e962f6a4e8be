"""`model.pretrained`: a network learns from drawn cells before it sees a hospital, at no cost in privacy.

Images that are drawn tell nothing of any patient, so that what is learned from them need not be counted (DP-RandP:
Tang et al. 2023, arXiv 2306.06076).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightning_fed.data.bloodcells import CELL_TYPES, draw
from lightning_fed.data.bloodcells.generator import LARGEST, SMALLEST
from lightning_fed.data.datamodule import HospitalData
from lightning_fed.data.images import ImageData, ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, Federation, Ray, Training
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.site import build_classifier
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.export import load_weights, save_model
from lightning_fed.models.vector import to_vector
from lightning_fed.paths import cache_folder
from lightning_fed.seeds import derive
from lightning_fed.studies.threads import torch_threads
from lightning_fed.tracking.console import say

COLOURS = 3
DAMAGED = "{path}: pretrained weights that cannot be read ({reason}); delete the file, and they are made anew"


@dataclass(frozen=True)
class Recipe:
    """How a network is pretrained; all of it is in the name of the file that keeps the weights.

    Args:
        version: to be raised when the drawing or the training changes, so that older weights are not taken.
        cells: drawn images. epochs: passes over them, flipped, turned and distorted. distort: how much, since a
            network that knows drawn cells too well is a worse start for photographed ones (docs/recipe.md).
        lr: of AdamW at its greatest. weight_decay: its. batch_size: images in a step.
        warmup: share of all steps until `lr`; a cosine takes it to zero after.
    """

    version: int = 2
    cells: int = 20_000
    epochs: int = 8
    distort: float = 1.0
    lr: float = 4e-3
    weight_decay: float = 0.01
    batch_size: int = 64
    warmup: float = 0.05

    def __str__(self) -> str:
        return f"{self.cells:,} procedural cells (bloodcells)"


RECIPE = Recipe()


def pretrain(classifier: Classifier, experiment: Experiment, data: ImageData) -> None:
    """Give a network the weights that it has after `RECIPE`: kept ones, or made now and kept.

    Args:
        classifier, experiment: the run's. data: its images, of which only the shape counts; see
            `refuse_other_images`.

    Raises:
        InputError: the kept weights are damaged, or the training diverges.
    """
    path = kept_at(classifier, experiment, data)
    if path.exists():
        load_weights(classifier, path, DAMAGED)
        say(f"starts from weights pretrained on {RECIPE}: {path}")
        return
    say(f"pretrains on {RECIPE}, {RECIPE.epochs} passes, once for this network and seed")
    begun = time.perf_counter()
    pupil = _train(experiment, data)
    if not np.isfinite(to_vector(pupil.network)).all():
        raise InputError("model.pretrained: this network diverges on drawn cells; use another, or leave it out")
    classifier.load_state_dict(pupil.state_dict())
    say(f"pretrained in {time.perf_counter() - begun:.0f} s; {_keep(pupil, path)}")


def refuse_other_images(data: ImageData) -> None:
    """Raise unless drawn cells have the shape and the number of classes of the images.

    Raises:
        InputError: they have not.
    """
    found = len(data.class_names), data.channels
    if found != (len(CELL_TYPES), COLOURS) or not SMALLEST <= data.size <= LARGEST:
        raise InputError(
            f"model.pretrained: drawn cells have {len(CELL_TYPES)} classes, {COLOURS} channels and {SMALLEST} to "
            f"{LARGEST} pixels, but {data.title} has {found[0]}, {found[1]} and {data.size}; leave it out"
        )


def kept_at(classifier: Classifier, experiment: Experiment, data: ImageData) -> Path:
    """The file of a network's pretrained weights, named by all that they depend on."""
    schooling = _schooling(experiment)
    parts = {
        "recipe": asdict(RECIPE),
        "model": asdict(schooling.model),
        "shapes": [(name, list(tensor.shape)) for name, tensor in classifier.state_dict().items()],
        "source": _source(classifier.network) if schooling.model.class_path else "",
        "size": data.size,
        "seed": schooling.seed,
        "precision": schooling.training.precision,
        "threads": schooling.training.threads,
        "gpu": schooling.ray.gpus_per_hospital > 0,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "pretrained" / f"bloodcells-{digest[:32]}.ckpt"


def _source(network: nn.Module) -> str:
    """Digest of the file that a user's own network stands in; empty where there is none."""
    try:
        file = inspect.getsourcefile(type(network))
        return hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _schooling(experiment: Experiment) -> Experiment:
    """One hospital, one round, whose images are drawn: the training that a hospital does, on the same device."""
    training = Training(
        optimizer="AdamW",
        lr=RECIPE.lr,
        weight_decay=RECIPE.weight_decay,
        distort=RECIPE.distort,
        batch_size=RECIPE.batch_size,
        warmup_rounds=RECIPE.warmup,
        precision=experiment.training.precision,
        threads=experiment.training.threads,
    )
    gpus = min(1.0, experiment.ray.gpus_per_hospital) if torch.cuda.is_available() else 0.0
    return Experiment(
        model=replace(experiment.model, pretrained=None, start=None, test_time_augmentation=False),
        training=training,
        federation=Federation(hospitals=1, rounds=1, local_epochs=RECIPE.epochs),
        ray=Ray(enabled=False, gpus_per_hospital=gpus),
        seed=derive(experiment.seed, "pretraining"),
    )


def _train(experiment: Experiment, data: ImageData) -> Classifier:
    """A network of the same shape after the recipe."""
    schooling = _schooling(experiment)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cells = ImageSet(*draw(RECIPE.cells, seed=schooling.seed, size=data.size, stream="pretraining"))
    rows = np.arange(RECIPE.cells)
    pupil = build_classifier(schooling, data)
    with torch_threads(schooling.training.threads), torch.random.fork_rng(devices=[]):
        school = Hospital(0, schooling, HospitalData(cells, rows, rows[:0], schooling.training), pupil)
        school.fit(1, to_vector(pupil.network))
    return pupil


def _keep(pupil: Classifier, path: Path) -> str:
    """Write the weights, and tell where; a folder that cannot be written costs only time, the next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(pupil, path)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return f"not kept for later runs ({reason}); set LIGHTNING_FED_CACHE to a folder that can be written"
    return f"kept in {path}"


def features_of(experiment: Experiment) -> str | None:
    """Where a network's features come from that no image of a hospital taught it; None where all are learned."""
    model = experiment.model
    told = []
    if model.class_path is None and model.name.startswith("scatternet"):
        told.append("ScatterNet (fixed)")
    if model.pretrained is not None:
        told.append(f"pretrained on {RECIPE}")
    return f"{', '.join(told)}: no cost in privacy" if told else None


def pretraining_line(
    classifier: Classifier, experiment: Experiment, data: ImageData, seconds_per_image: float
) -> str:
    """What a dry run says of it."""
    path = kept_at(classifier, experiment, data)
    if path.exists():
        return f"pretraining: done before, kept in {path}"
    minutes = RECIPE.cells * RECIPE.epochs * seconds_per_image / 60
    return f"pretraining: before the first round, about {minutes:.1f} CPU-minutes, then kept in {path}"

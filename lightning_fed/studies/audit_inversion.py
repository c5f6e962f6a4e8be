"""`lightning-fed audit inversion`: images from one gradient step of a hospital, by what of it leaves."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from lightning_fed.audit.inversion import Attack, Public, gradient, invert
from lightning_fed.audit.likeness import Likeness, match
from lightning_fed.data.images import ImageSet, Indices
from lightning_fed.errors import InputError
from lightning_fed.models.classifier import normalise
from lightning_fed.report.reconstructions import Row
from lightning_fed.secagg.masks import KEY_BYTES, Words
from lightning_fed.secagg.parameters import Parameters
from lightning_fed.secagg.quantise import GREATEST_RING, Encoding
from lightning_fed.studies.audit_view import Charged, variance_of
from lightning_fed.studies.prepare import Prepared
from lightning_fed.studies.secagg_parties import Exchanged, Parties
from lightning_fed.tracking.audits import (
    CLIPPED,
    MASKED,
    NOISED,
    NONE,
    SUM,
    WAYS,
    InversionAudited,
    InversionFound,
)
from lightning_fed.tracking.console import say

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class InversionBudget:
    """How much is tried.

    Args:
        images: of the hospital. batches: sizes of the step's batch. attack: on each.
    """

    images: int
    batches: tuple[int, ...]
    attack: Attack


INVERSIONS = {
    "seconds": InversionBudget(images=4, batches=(1,), attack=Attack(restarts=1, steps=200, starts=50)),
    "laptop": InversionBudget(images=8, batches=(1, 4, 8), attack=Attack(restarts=2, steps=300)),
    "full": InversionBudget(images=16, batches=(1, 4, 8), attack=Attack(restarts=4, steps=1500)),
}


@dataclass(frozen=True)
class Reconstructed:
    """Of one way and batch size: images float32 (images, channels, height, width), and what was found for each."""

    way: str
    batch: int
    true: Tensor
    found: Tensor
    likeness: tuple[Likeness, ...]


def audit_inversion(
    prepared: Prepared, budget: InversionBudget, hospital: int
) -> tuple[InversionAudited, list[Reconstructed]]:
    """Attack one step at a run's weights before any training; `prepared` is of `prepare_audit`.

    Where so few hospitals take part that no sum would be opened, what leaves under SecAgg+ is not looked at.

    Raises:
        InputError: the mechanism is not one of images, or there is no such hospital, or one has too few images.
    """
    begun, experiment = time.monotonic(), prepared.experiment
    if not experiment.privacy.by_images:
        raise InputError(
            "audit inversion: privacy.mechanism 'update' clips no gradients; name record or distributed"
        )
    last = experiment.federation.hospitals - 1
    if not 0 <= hospital <= last:
        raise InputError(f"audit inversion: --hospital is {hospital}: hospitals are 0 to {last}")
    scene = Scene(prepared, budget.attack, hospital)
    scene.check(max(budget.batches))
    say(f"{budget.images} images of hospital {hospital} are sought in {len(scene.ways)} ways; a line for each:")
    results, pictures = [], []
    for batch in budget.batches:
        for way in scene.ways:
            since = time.monotonic()
            found, others = scene.attack(way, batch, budget.images)
            pictures.append(found)
            results.append(_result(found, others))
            told = f"batches of {batch}, {WAYS[way]}: SSIM {results[-1].ssim:.2f}"
            say(f"  {told} ({time.monotonic() - since:.0f} s)")
    audited = InversionAudited(
        experiment.privacy.mechanism,
        experiment.model.name,
        hospital,
        budget.attack.restarts,
        tuple(results),
        time.monotonic() - begun,
    )
    return audited, pictures


def _result(found: Reconstructed, others: Sequence[Likeness]) -> InversionFound:
    own, unlike = [one.ssim for one in found.likeness], [one.ssim for one in others]
    return InversionFound(
        found.way,
        found.batch,
        len(own),
        float(np.mean(own)),
        max(own),
        float(np.mean([one.psnr for one in found.likeness])),
        float(np.mean(unlike)),
        float(stats.wilcoxon(own, unlike, alternative="greater").pvalue),
    )


@dataclass(frozen=True)
class Step:
    """Rows of the training images in each hospital's batch, by hospital."""

    rows: Mapping[int, Indices]

    @property
    def everybody(self) -> Indices:
        """One hospital's after the other's."""
        return np.concatenate(list(self.rows.values()))


class Scene:
    """A federation at its first step, and who attacks it.

    Args:
        prepared: experiment, images and first weights. attack: how hard is tried. hospital: whose images.

    Attributes:
        cohort: hospitals whose sum is opened, that one among them. ways: of `WAYS`, those that can be looked at.
    """

    def __init__(self, prepared: Prepared, attack: Attack, hospital: int) -> None:
        self.experiment, self.train = prepared.experiment, prepared.data.train
        self.how, self.hospital = attack, hospital
        self.network = prepared.classifier.network.eval()
        self.doses = prepared.roster.doses or ()
        self.orders = [
            np.random.default_rng([prepared.experiment.seed, member.hospital]).permutation(member.train)
            for member in prepared.roster.members
        ]
        count = len(self.orders)
        asked = range(prepared.experiment.federation.cohort_size)
        self.cohort = sorted((hospital + place) % count for place in asked)
        self.parameters = self._parameters()
        self.ways = [way for way in WAYS if self.parameters is not None or way not in (MASKED, SUM)]
        validation = prepared.data.validation
        self.public = Public(*_tensors(validation, np.arange(len(validation))), attack.components)

    def _parameters(self) -> Parameters | None:
        """Of the sum; None where the experiment opens none, and none could be opened by the rule."""
        secagg = self.experiment.secagg
        try:
            return secagg.parameters(self.experiment.federation)
        except InputError as error:
            if secagg.masked:
                raise
            say(f"what leaves under SecAgg+ is not looked at: {error}")
            return None

    def check(self, batch: int) -> None:
        """Raise unless there are images for steps of so many.

        Raises:
            InputError: there are not.
        """
        for hospital in self.cohort if SUM in self.ways else [self.hospital]:
            own = len(self.orders[hospital])
            if own < batch:
                raise InputError(
                    f"audit inversion: hospital {hospital} has {own} images, fewer than a batch of {batch}; set "
                    f"data.min_images to {batch}"
                )

    def attack(self, way: str, batch: int, images: int) -> tuple[Reconstructed, list[Likeness]]:
        """What is found in steps of `batch` images, and how alike it is to others of the same classes.

        Args:
            images: of the hospital, in as many steps as they fill; of all hospitals' sum one step is enough.
        """
        steps = (
            self._steps(self.cohort, batch, batch) if way == SUM else self._steps([self.hospital], batch, images)
        )
        true, found = [], []
        own, others = list[Likeness](), list[Likeness]()
        for number, step in enumerate(steps):
            pixels, labels = _tensors(self.train, step.everybody)
            observed = torch.from_numpy(self._leaving(way, step))
            guess = invert(self.network, observed, labels, self.public, self.how, number).images
            likeness = match(pixels, guess)
            others += match(_tensors(self.train, self._others(step.everybody))[0], guess)
            true.append(pixels)
            found.append(guess[[one.found for one in likeness]])
            own += likeness
        return Reconstructed(way, batch, torch.cat(true), torch.cat(found), tuple(own)), others

    def _steps(self, hospitals: Iterable[int], batch: int, images: int) -> list[Step]:
        some = list(hospitals)
        least = min(len(self.orders[one]) for one in some)
        starts = range(0, max(min(images, least) - batch, 0) + 1, batch)
        return [Step({one: self.orders[one][start : start + batch] for one in some}) for start in starts]

    def _others(self, rows: Indices) -> Indices:
        """For each image another one of its class."""
        random = np.random.default_rng([self.experiment.seed, *rows])
        alike = [np.setdiff1d(np.flatnonzero(self.train.labels == self.train.labels[row]), rows) for row in rows]
        return np.array([random.choice(some) if len(some) else row for some, row in zip(alike, rows, strict=True)])

    def _leaving(self, way: str, step: Step) -> Floats:
        """What is taken for the gradient (parameters,)."""
        if way == NONE:
            return self._gradient(step.everybody)
        if way in (CLIPPED, NOISED):
            return self._protected(step.everybody, noised=way == NOISED)
        batch = len(next(iter(step.rows.values())))
        rows = [step.rows.get(hospital, self.orders[hospital][:batch]) for hospital in self.cohort]
        secagg = self.experiment.secagg
        encoding = Encoding(len(self.cohort), secagg.clip, secagg.bits, max_weight=1)
        exchanged = self._exchange([self._gradient(some) for some in rows], encoding)
        if way == SUM:
            return encoding.decode(exchanged.opened)[0]
        return _as_floats(exchanged.masked[self.cohort.index(self.hospital)], encoding)

    def _gradient(self, rows: Indices) -> Floats:
        return np.asarray(gradient(self.network, *_tensors(self.train, rows)).numpy())

    def _protected(self, rows: Indices, noised: bool) -> Floats:
        """The mean of clipped gradients, with the noise of one release."""
        bound, dose = self.experiment.privacy.max_grad_norm, self.doses[self.hospital]
        each = [self._gradient(rows[place : place + 1]) for place in range(len(rows))]
        total = np.sum([one * min(1.0, bound / float(np.linalg.norm(one))) for one in each], axis=0)
        if noised:
            charged = Charged(0, 0, dose.rate, dose.noise_multiplier, dose.adjacency)
            together = 1 if dose.joint is None else dose.joint.counted  # of a sum, which is all that leaves them
            deviation = bound * math.sqrt(variance_of(dose, charged, together))
            random = np.random.default_rng([self.experiment.seed, *rows])
            total = total + deviation * random.standard_normal(len(total))
        return np.asarray(total / len(rows), dtype=np.float32)

    def _exchange(self, gradients: Sequence[Floats], encoding: Encoding) -> Exchanged:
        """A round of SecAgg+ with the hospitals' gradients for updates."""
        assert self.parameters is not None
        parties = Parties(self.parameters, encoding, encoding.length(len(gradients[0])))
        return parties.exchange(1, [encoding.encode(one, 1, os.urandom(KEY_BYTES))[0] for one in gradients])


def _as_floats(vector: Words, encoding: Encoding) -> Floats:
    """A vector of the ring, read as if it were not masked (parameters,)."""
    unused = np.uint32(GREATEST_RING - encoding.ring_bits)
    signed = (vector[:-1] << unused).view(np.int32) >> np.int32(unused)
    return np.asarray(signed * encoding.step, dtype=np.float32)


def _tensors(images: ImageSet, rows: Indices) -> tuple[Tensor, Tensor]:
    """Pixels as the network takes them, and labels."""
    return normalise(torch.from_numpy(images.images[rows])), torch.from_numpy(images.labels[rows])


def rows_of(found: Sequence[Reconstructed]) -> list[Row]:
    """What the smallest batches gave: the hospital's images, what each way showed of them, and the sum's own."""
    smallest = min(one.batch for one in found)
    shown = {one.way: one for one in found if one.batch == smallest}
    rows = [Row("a hospital's images", shown[NONE].true.numpy())]
    for way, one in shown.items():
        if way == SUM:
            rows.append(Row("an image of each hospital" if smallest == 1 else "images of all", one.true.numpy()))
        rows.append(Row(WAYS[way], one.found.numpy(), [each.ssim for each in one.likeness]))
    return rows

"""A lower bound on a run's epsilon from images with wrong labels: whether the final model has learned them.

The weakest of the audit's attackers, as it chooses no gradient and sees one model; of what the guarantee itself
promises it is the plainest test.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_fed.audit.canaries import audited
from lightning_fed.audit.membership import confidence
from lightning_fed.data.images import ImageSet, Indices, Labels
from lightning_fed.experiment import Experiment
from lightning_fed.federation.roster import Roster
from lightning_fed.models.vector import load_vector
from lightning_fed.studies.audit_bounds import Bounded
from lightning_fed.studies.audit_view import open_federation
from lightning_fed.studies.prepare import Prepared
from lightning_fed.tracking.console import say

CANARIES = 1000
GUESSED = 0.1
"""Share of the canaries at which is guessed."""


@dataclass(frozen=True)
class Mislabelled:
    """Images of hospitals under a class that they are not of.

    Args:
        rows: of the training images (canaries,). labels: wrong ones (canaries,). coins: whether each is trained on
            (canaries,).
    """

    rows: Indices
    labels: Labels
    coins: NDArray[np.bool_]

    def among(self, train: ImageSet) -> ImageSet:
        """The training images, in which the canaries have their wrong labels."""
        labels = train.labels.copy()
        labels[self.rows] = self.labels
        return replace(train, labels=labels)

    def left_in(self, roster: Roster) -> Roster:
        """The hospitals without the canaries that are not trained on, and the noise that was made for all images.

        One that is left out is blanked: rates and nominal batches are as if it were there, and so must be what the
        hospitals count in the mean (`with_public_weights`).
        """
        out = self.rows[~self.coins]
        members = (replace(one, train=np.setdiff1d(one.train, out)) for one in roster.members)
        return replace(roster, members=tuple(members))


def mislabel(trains: Sequence[Indices], labels: Labels, classes: int, count: int) -> Mislabelled:
    """Canaries of all hospitals, at most half of their images, by coins of the operating system.

    Args:
        trains: rows of each hospital. labels: of all training images.
    """
    random, rows = np.random.default_rng(secrets.randbits(128)), np.concatenate(list(trains))
    drawn = random.choice(rows, min(count, len(rows) // 2), replace=False)
    wrong = (labels[drawn] + random.integers(1, classes, size=len(drawn))) % classes
    return Mislabelled(drawn, wrong, random.random(len(drawn)) < 0.5)


def bound_by_images(prepared: Prepared, rounds: int, folder: Path) -> Bounded:
    """Train so many rounds with canaries, and guess from the last released model which of them were there."""
    data, roster, classifier = prepared.data, prepared.roster, prepared.classifier
    trains = [member.train for member in roster.members]
    canaries = mislabel(trains, data.train.labels, len(data.class_names), CANARIES)
    say(f"{rounds} rounds with {len(canaries.rows)} images of wrong labels, half of which are left out")
    own = replace(
        prepared,
        experiment=with_public_weights(prepared.experiment, [len(rows) for rows in trains]),
        data=replace(data, train=canaries.among(data.train)),
    )
    driver, _ = open_federation(own, canaries.left_in(roster), folder)
    for _ in islice(driver.rounds(), rounds):
        pass
    load_vector(classifier.network, driver.model.released)
    batch = prepared.experiment.evaluation.batch_size
    logits = classifier.logits(data.train.images[canaries.rows], batch).double().numpy()
    guesses = max(2, 2 * round(GUESSED * len(canaries.rows) / 2))
    delta = prepared.experiment.privacy.delta
    found = audited(canaries.coins, confidence(logits, canaries.labels), guesses, delta)
    told = f"{found.canaries} images with wrong labels, the model of round {rounds}: {found.told}"
    return Bounded(found.epsilon, told)


def with_public_weights(experiment: Experiment, sizes: Sequence[int]) -> Experiment:
    """Hospitals count in the mean by their public sizes, whichever of their images are left out."""
    federation = experiment.federation
    alike = federation.weighting == "equal" or federation.aggregator != "mean"
    if experiment.privacy.mechanism == "distributed" or federation.weights or alike:
        return experiment
    return replace(experiment, federation=replace(federation, weights=list(sizes)))

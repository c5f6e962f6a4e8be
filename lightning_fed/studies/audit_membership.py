"""`lightning-fed audit membership`: which images were trained on, told from final models of several federations.

Each federation trains on the images that coins of its own give it, half of every hospital's, with noise made for
the halves. Each is attacked in turn, with the others for shadows.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from lightning_fed.audit.membership import ATTACKS, Coins, Federations, Reals, confidence, success
from lightning_fed.data.images import Indices, Labels
from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.protection import doses_of
from lightning_fed.federation.roster import Member, Roster
from lightning_fed.federation.side_by_side import side_by_side
from lightning_fed.models.vector import load_vector, vector_size
from lightning_fed.privacy.dose import Dose
from lightning_fed.seeds import derive, stream
from lightning_fed.studies.audit_epsilon import epsilon_of_run
from lightning_fed.studies.audit_view import open_federation, quiet
from lightning_fed.studies.prepare import Prepared, prepare
from lightning_fed.tracking.audits import Interval, MembershipAudited, MembershipFound
from lightning_fed.tracking.console import say

LEAST_IMAGES = 20
"""Of a hospital: coins leave none of so many once in a million federations."""


@dataclass(frozen=True)
class MembershipBudget:
    """How much is tried.

    Args:
        federations: that are trained. rounds: of each, all of the experiment's where None.
    """

    federations: int
    rounds: int | None


MEMBERSHIPS = {
    "seconds": MembershipBudget(federations=4, rounds=2),
    "laptop": MembershipBudget(federations=4, rounds=None),
    "full": MembershipBudget(federations=16, rounds=None),
}


def prepare_membership(experiment: Experiment, budget: MembershipBudget) -> Prepared:
    """The experiment in one process, as long as the budget has it; any mechanism can be attacked.

    Raises:
        InputError: it does not fit.
    """
    wanted = quiet(experiment)
    if budget.rounds is not None and budget.rounds < experiment.federation.rounds:
        training = replace(wanted.training, warmup_rounds=min(wanted.training.warmup_rounds, budget.rounds / 2))
        federation = replace(wanted.federation, rounds=budget.rounds)
        wanted = replace(wanted, training=training, federation=federation)
    return prepare(wanted)


@dataclass(frozen=True)
class Seen:
    """What is kept of a federation.

    Args:
        confidences: of its model in each image (images,). coins: whether it trained on it (images,). accuracy: of
            its model on the validation split. epsilon: of its worst hospital; not a number without a guarantee.
    """

    confidences: Reals
    coins: Coins
    accuracy: float
    epsilon: float


@dataclass(frozen=True)
class Shadow:
    """A federation to be trained.

    Args:
        experiment: of all of them, by `prepare_membership`. begun_with: digest of weights and images
            (`begun_with`). number: which of them. folder: for what is seen of it.
    """

    experiment: Experiment
    begun_with: str
    number: int
    folder: Path

    @property
    def path(self) -> Path:
        """Of what is seen, named by what it depends on."""
        return self.folder / f"{self.experiment.fingerprint[:16]}-{self.begun_with}-{self.number}.npz"

    def keep(self, seen: Seen) -> None:
        """Write it, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **asdict(seen))
        os.replace(part, self.path)

    def seen(self, coins: Coins) -> Seen:
        """What was kept.

        Args:
            coins: which images the federation has trained on (images,).

        Raises:
            InputError: the file is damaged, or speaks of other images or other coins.
        """
        try:
            with np.load(self.path) as kept:
                numbers = (float(kept[name]) for name in ("accuracy", "epsilon"))
                seen = Seen(kept["confidences"], kept["coins"], *numbers)
        except (OSError, ValueError, KeyError, BadZipFile, zlib.error) as error:
            raise InputError(f"{self.path}: no federation can be read from it; remove it") from error
        if seen.confidences.shape != coins.shape or not np.array_equal(seen.coins, coins):
            raise InputError(f"{self.path}: of a federation that trained on other images; remove it")
        numeric = np.issubdtype(seen.confidences.dtype, np.floating) and math.isfinite(seen.accuracy)
        if not numeric or not np.isfinite(seen.confidences).all():
            raise InputError(f"{self.path}: holds confidences that are no numbers; remove it")
        return seen


@dataclass(frozen=True)
class Candidates:
    """The images that may be members.

    Args:
        rows: of the training images (images,). hospital: whose each is (images,).
    """

    rows: Indices
    hospital: NDArray[np.int64]

    @staticmethod
    def of(roster: Roster) -> Candidates:
        """All that any hospital trains on."""
        sizes = [len(member.train) for member in roster.members]
        return Candidates(
            np.concatenate([member.train for member in roster.members]), np.repeat(np.arange(len(sizes)), sizes)
        )

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Images of each hospital."""
        return np.bincount(self.hospital)

    @property
    def smallest(self) -> int:
        """The hospital of the fewest images."""
        return int(self.sizes.argmin())

    def oddest(self, labels: Labels) -> tuple[int, float]:
        """The hospital whose classes fit worst to being drawn from all images, and how likely one so odd may be.

        By a chi-square test of each against the others, as distances would name small hospitals; the chance is
        that of the least p-value of so many (Bonferroni).

        Args:
            labels: of the training images.
        """
        own = labels[self.rows]
        counts = np.zeros((len(self.sizes), int(own.max()) + 1), dtype=np.int64)
        np.add.at(counts, (self.hospital, own), 1)
        counts = counts[:, counts.sum(0) > 0]
        tables = (np.stack([one, counts.sum(0) - one]) for one in counts)
        values = [_fit(table) if table.sum(1).all() else (1.0, 0.0) for table in tables]
        worst = min(values)
        return values.index(worst), min(1.0, len(values) * worst[0])


def _fit(table: NDArray[np.int64]) -> tuple[float, float]:
    """p-value of a chi-square test, and minus its statistic, which tells apart values too small for a float."""
    found = chi2_contingency(table)
    return float(found.pvalue), -float(found.statistic)


def audit_membership(
    prepared: Prepared, budget: MembershipBudget, asked: Experiment, folder: Path
) -> tuple[MembershipAudited, list[Shadow]]:
    """Train the federations, as many side by side as there is room for, and attack each.

    What was kept of them stays until the caller has written what was found (`forget`).

    Args:
        prepared: of `prepare_membership`. asked: the experiment with the user's own Ray. folder: that keeps what
            was found of each federation until all are trained, so that the same call goes on.

    Raises:
        InputError: a hospital has too few images, or the cluster does not fit.
        FederationError: a federation could not be trained.
    """
    begun, experiment = time.monotonic(), prepared.experiment
    kept = folder / "shadows"
    candidates = Candidates.of(prepared.roster)
    # What does not fit, and what was kept and is damaged, is told before any of them trains.
    coins = [members_by_coins(prepared, candidates, number)[1] for number in range(budget.federations)]
    digest = begun_with(prepared, candidates)
    shadows = [Shadow(experiment, digest, number, kept) for number in range(budget.federations)]
    for shadow, own in zip(shadows, coins, strict=True):
        if shadow.path.exists():
            shadow.seen(own)
    say(f"what is found of each federation is kept in {kept} until all are trained; --output {folder} goes on")
    _train(shadows, asked)
    seen = [shadow.seen(own) for shadow, own in zip(shadows, coins, strict=True)]
    federations = Federations(np.stack([one.confidences for one in seen]), np.stack([one.coins for one in seen]))
    results = tuple(attacked(federations, candidates))
    oddest, chance = candidates.oddest(prepared.data.train.labels)
    doses = guaranteed(prepared)
    audited = MembershipAudited(
        experiment.privacy.mechanism,
        experiment.model.name,
        doses[0].unit if doses else None,
        max(one.epsilon for one in seen) if doses else None,
        budget.federations,
        experiment.federation.rounds,
        asked.federation.rounds,
        float(np.mean([one.accuracy for one in seen])),
        candidates.smallest,
        oddest,
        chance,
        results,
        time.monotonic() - begun,
    )
    return audited, shadows


def guaranteed(prepared: Prepared) -> tuple[Dose, ...]:
    """The hospitals' noise; nothing where no epsilon follows from it, as under `update` without noise."""
    return prepared.roster.doses or () if prepared.experiment.privacy.guarantees else ()


def forget(shadows: Sequence[Shadow]) -> None:
    """Remove what was kept of federations."""
    for shadow in shadows:
        shadow.path.unlink()
    with contextlib.suppress(OSError):
        shadows[0].folder.rmdir()  # unless another audit keeps its own there


def begun_with(prepared: Prepared, candidates: Candidates) -> str:
    """Digest of the first weights, and of the images with their labels and hospitals."""
    train, digest = prepared.data.train, hashlib.sha256()
    rows = candidates.rows
    for values in (prepared.model.weights, train.images[rows], train.labels[rows], candidates.hospital):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _train(shadows: Sequence[Shadow], asked: Experiment) -> None:
    """Those that are not there yet."""
    waiting = [shadow for shadow in shadows if not shadow.path.exists()]
    if not waiting:
        say(f"all {len(shadows)} federations were trained before")
        return
    told = f"; trained before: {len(shadows) - len(waiting)}" if len(waiting) < len(shadows) else ""
    say(f"federations to train: {len(waiting)}, rounds of each: {shadows[0].experiment.federation.rounds}{told}")
    ray = replace(asked.ray, gpus_per_hospital=0.0)  # they train on the CPU
    for ended, (place, outcome) in enumerate(side_by_side(ray, train_shadow, waiting), 1):
        if outcome is not None:
            raise outcome
        say(f"  {ended}/{len(waiting)}  federation {waiting[place].number} is trained")


def train_shadow(shadow: Shadow) -> None:
    """Train one federation, and keep how sure its model is of every image.

    Raises:
        InputError, FederationError: as a run raises them; the latter also where a model's answers are no numbers.
    """
    whole = prepare(shadow.experiment)
    candidates = Candidates.of(whole.roster)
    prepared, coins = halved(whole, candidates, shadow.number)
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        driver, _ = open_federation(prepared, prepared.roster, Path(folder) / "run")
        for _ in driver.rounds():
            pass
    classifier, batch = prepared.classifier, prepared.experiment.evaluation.batch_size
    load_vector(classifier.network, driver.model.released)
    train, validation = prepared.data.train, prepared.data.validation
    logits = classifier.logits(train.images[candidates.rows], batch).double().numpy()
    accuracy = classifier.evaluate(validation.images, validation.labels, batch).accuracy
    doses = guaranteed(prepared)
    epsilon = epsilon_of_run(prepared.experiment, doses) if doses else math.nan
    confidences = confidence(logits, train.labels[candidates.rows])
    if not np.isfinite(confidences).all():
        raise FederationError(f"federation {shadow.number}: its model's answers are no numbers; lower training.lr")
    shadow.keep(Seen(confidences, coins, accuracy, epsilon))


def members_by_coins(prepared: Prepared, candidates: Candidates, number: int) -> tuple[tuple[Member, ...], Coins]:
    """A federation's hospitals, each image there by a coin, and the coins (images,).

    Raises:
        InputError: a hospital has too few images, or its coins leave none.
    """
    few = np.flatnonzero(candidates.sizes < LEAST_IMAGES)
    if len(few):
        raise InputError(
            f"audit membership: hospital {few[0]} has {candidates.sizes[few[0]]} images, and {LEAST_IMAGES} are "
            f"needed; set data.min_images to {LEAST_IMAGES}"
        )
    coins = stream(prepared.experiment.seed, "membership", number).random(len(candidates.rows)) < 0.5
    members = tuple(
        replace(member, train=candidates.rows[coins & (candidates.hospital == member.hospital)])
        for member in prepared.roster.members
    )
    for member in members:
        if not len(member.train):
            raise InputError(
                f"audit membership: coins leave hospital {member.hospital} no image in federation {number}; take "
                "another seed"
            )
    return members, coins


def halved(prepared: Prepared, candidates: Candidates, number: int) -> tuple[Prepared, Coins]:
    """A federation's own hospitals, each image there by a coin, with noise made for them; and the coins (images,).

    It begins with the weights of all others, which are public, and draws everything else for itself.

    Raises:
        InputError: a hospital has too few images, or its coins leave none.
    """
    members, coins = members_by_coins(prepared, candidates, number)
    experiment = replace(prepared.experiment, seed=derive(prepared.experiment.seed, "membership", number))
    doses = doses_of(
        experiment, [len(member.train) for member in members], vector_size(prepared.classifier.network)
    )
    roster = replace(prepared.roster, members=members).with_doses(doses)
    return replace(prepared, experiment=experiment, roster=roster), coins


def attacked(federations: Federations, candidates: Candidates) -> Iterator[MembershipFound]:
    """By each attack: of all hospitals' images together, and of each hospital's."""
    for name, by in ATTACKS.items():
        scores = np.stack([by(federations, target) for target in range(len(federations.coins))])
        yield _found(name, None, scores, federations.coins)
        for hospital in range(len(candidates.sizes)):
            own = candidates.hospital == hospital
            yield _found(name, hospital, scores[:, own], federations.coins[:, own])


def _found(attack: str, hospital: int | None, scores: Reals, coins: Coins) -> MembershipFound:
    told = success(scores, coins)
    found = None if told.true_positives is None else Interval(**asdict(told.true_positives))
    alone = [one for one in told.alone if not math.isnan(one)]
    return MembershipFound(
        attack, hospital, scores.shape[1], Interval(**asdict(told.auc)), min(alone), max(alone), found
    )

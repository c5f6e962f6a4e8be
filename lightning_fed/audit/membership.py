"""Membership inference: which images a model was trained on, told from how sure it is of them.

The attacker is given each image with its label and the final model, and knows how such models are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from lightning_fed.audit.bound import CONFIDENCE

Reals = NDArray[np.float64]
Coins = NDArray[np.bool_]
FALSE_POSITIVES = 0.01
"""Share of those that are no members which may be taken for members where the true positives are counted."""
LEAST_OTHERS = 300
"""Others of a federation from which on that share is told: the threshold is the fourth score, not the greatest."""
RESAMPLES = 400
SMALLEST = 1e-6


def confidence(logits: Reals, labels: NDArray[np.int64]) -> Reals:
    """log(p / (1 - p)) of the true class, (images, classes) -> (images,).

    The logit's difference to those of all other classes together: finite however sure the model is (Carlini,
    Chien, Nasr, Song, Terzis & Tramer 2022, arXiv 2112.03570, section IV).
    """
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    return np.asarray(logits[rows, labels] - special.logsumexp(others, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Federations:
    """Models of several federations, each trained on the images that coins of its own gave it.

    Args:
        confidences: of each model in each image (federations, images), by `confidence`. coins: whether the image
            was trained on (federations, images).
    """

    confidences: Reals
    coins: Coins

    def without(self, target: int) -> Federations:
        """All but one."""
        others = np.arange(len(self.coins)) != target
        return Federations(self.confidences[others], self.coins[others])


def by_loss(federations: Federations, target: int) -> Reals:
    """How much speaks for each image as a member of federation `target`: minus its loss (images,).

    Yeom, Giacomelli, Fredrikson & Jha 2018 (arXiv 1709.01604); the threshold is the caller's.
    """
    return np.asarray(-np.logaddexp(0, -federations.confidences[target]), dtype=np.float64)


def by_likelihood(federations: Federations, target: int) -> Reals:
    """The same by the others as shadows: log of the likelihood ratio (images,).

    LiRA (Carlini et al. 2022) with one deviation for all images, as it says for few shadows. What membership adds
    to the confidence in an image is shrunk towards its mean over images by as much as the shadows' differences are
    noise, and an image's own level is taken from all shadows at once: with a handful of them, an image that all or
    none of them had is guessed at too.
    """
    shadows = federations.without(target)
    seen, coins = shadows.confidences, shadows.coins
    inside, outside = _groups(seen, coins), _groups(seen, ~coins)
    gains = _gains(inside, outside)
    absent = (seen - coins * gains).mean(0)
    own = federations.confidences[target]
    ratio = stats.norm.logpdf(own, absent + gains, inside.deviation)
    return np.asarray(ratio - stats.norm.logpdf(own, absent, outside.deviation), dtype=np.float64)


@dataclass(frozen=True)
class _Group:
    """Shadows that had each image, or had not: how many (images,), their mean (images,), one deviation for all."""

    count: Reals
    mean: Reals
    deviation: float


def _groups(seen: Reals, coins: Coins) -> _Group:
    count = coins.sum(0).astype(np.float64)
    mean = (seen * coins).sum(0) / np.maximum(count, 1)
    squares = float((((seen - mean) * coins) ** 2).sum())
    freedom = float(np.maximum(count - 1, 0).sum())
    return _Group(count, mean, max(np.sqrt(squares / freedom) if freedom else 1.0, SMALLEST))


def _gains(inside: _Group, outside: _Group) -> Reals:
    """What a membership adds to the confidence in each image (images,)."""
    both = (inside.count > 0) & (outside.count > 0)
    if not both.any():
        return np.zeros(len(both))
    differences = inside.mean - outside.mean
    noise = inside.deviation**2 / np.maximum(inside.count, 1) + outside.deviation**2 / np.maximum(outside.count, 1)
    common = float(differences[both].mean())
    true = max(float(differences[both].var() - noise[both].mean()), 0.0)
    return np.where(both, common + true / (true + noise) * (differences - common), common)


ATTACKS: dict[str, Callable[[Federations, int], Reals]] = {
    "loss threshold": by_loss,
    "likelihood ratio": by_likelihood,
}


@dataclass(frozen=True)
class Limits:
    """A value, and an interval that holds it with `CONFIDENCE` over other images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Success:
    """How well members are told, each federation's scores for themselves, in the mean over the federations.

    Args:
        auc: chance that a member's score is above another's. true_positives: share of the members found where
            `FALSE_POSITIVES` of the others are taken for such; None where a federation has fewer than
            `LEAST_OTHERS` others.
        alone: AUC of each federation; not a number where it has members alone, or others alone.
    """

    auc: Limits
    true_positives: Limits | None
    alone: tuple[float, ...]


def success(scores: Reals, coins: Coins, seed: int = 0) -> Success:
    """Of an attack on several federations, each by scores and a threshold of its own.

    The intervals are of the bootstrap over images, an image with all of its scores at once: they speak of other
    images of these hospitals, and not of other trainings, whose luck all images of a federation share.

    Args:
        scores, coins: (federations, images).

    Raises:
        ValueError: no federation has both members and others.
    """
    alone = _all_rates(scores, coins)
    if not len(_both(alone)):
        raise ValueError("members and others are needed")
    random, count = np.random.default_rng(seed), coins.shape[1]
    again = []
    for _ in range(RESAMPLES):
        drawn = random.integers(count, size=count)
        rates = _both(_all_rates(scores[:, drawn], coins[:, drawn]))
        if len(rates):  # not so of a handful of images
            again.append(rates.mean(0))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(again, (tail, 1 - tail), axis=0) if again else np.array([[0.0, 0.0], [1.0, 1.0]])
    found = _both(alone).mean(0)
    auc, true = (Limits(*map(float, limits)) for limits in zip(found, low, high, strict=True))
    enough = (~coins).sum(1).min() >= LEAST_OTHERS
    return Success(auc, true if enough else None, tuple(map(float, alone[:, 0])))


def _all_rates(scores: Reals, coins: Coins) -> Reals:
    """`_rates` of each federation (federations, 2)."""
    return np.array([_rates(*one) for one in zip(scores, coins, strict=True)])


def _both(rates: Reals) -> Reals:
    """Of the federations that have members and others."""
    return rates[~np.isnan(rates[:, 0])]


def _rates(scores: Reals, coins: Coins) -> tuple[float, float]:
    """AUC, and the rate of true positives."""
    members, others = scores[coins], np.sort(scores[~coins])
    if not len(members) or not len(others):
        return float("nan"), float("nan")
    below = np.searchsorted(others, members, "left")
    alike = np.searchsorted(others, members, "right") - below
    auc = float((below + alike / 2).mean() / len(others))
    allowed = int(FALSE_POSITIVES * len(others))
    threshold = others[len(others) - 1 - allowed]  # what is above it is taken for a member
    return auc, float((members > threshold).mean())

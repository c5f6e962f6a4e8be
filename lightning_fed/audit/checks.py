"""What an adversary who knows all data can test of releases in seconds: their noise, their steps, their samples.

Each test is fixed beforehand and fails where its p-value is below `LEVEL`, so that a sound run hardly ever fails.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Reals = NDArray[np.float64]
LEVEL = 1e-6
MOST_SORTED = 200_000
REPLAYED = 1e-3
"""By which float32 may differ when steps are taken once more."""


@dataclass(frozen=True)
class Check:
    """One test.

    Args:
        name: of it. passed: whether what was claimed may be true. told: in a line. values: its figures.
    """

    name: str
    passed: bool
    told: str
    values: dict[str, float] = field(default_factory=dict)


def variance(residuals: Sequence[Reals], expected: Sequence[float], tensors: Sequence[int] = ()) -> Check:
    """Whether releases less what they should hold have the variance that was charged (chi-square, both sides).

    Over all together, over each release, and over each tensor of the network in all releases.

    Args:
        residuals: (coordinates,) of each release. expected: variance of each. tensors: their sizes, in order.
    """
    if not residuals:
        return Check("noise", False, "nothing was released")
    sizes = [len(one) for one in residuals]
    squares = [np.square(one) / wanted for one, wanted in zip(residuals, expected, strict=True)]
    sums = [float(one.sum()) for one in squares]
    parts = list(zip(sums, sizes, strict=True))
    if sum(tensors) == sizes[0] and len(set(sizes)) == 1:
        together, ends = np.sum(squares, axis=0), np.cumsum([0, *tensors])
        parts += [(float(together[a:b].sum()), (b - a) * len(sizes)) for a, b in itertools.pairwise(ends)]
    parts.append((sum(sums), sum(sizes)))
    chance = min(1.0, len(parts) * min(_two_sided(*part) for part in parts))
    ratios = [total / size for total, size in zip(sums, sizes, strict=True)]
    ratio, level = sum(sums) / sum(sizes), LEVEL / len(parts) / 2
    low, high = (float(at(level, sum(sizes))) / sum(sizes) for at in (stats.chi2.ppf, stats.chi2.isf))
    least, greatest = min(ratios), max(ratios)
    return Check(
        "noise",
        chance >= LEVEL,
        f"{ratio:.4f} of the charged variance in {len(sums)} releases (allowed: {low:.4f} to {high:.4f}; single "
        f"releases have {least:.4f} to {greatest:.4f}, and are allowed more)",
        {"ratio": ratio, "low": low, "high": high, "least": least, "greatest": greatest, "p_value": chance},
    )


def _two_sided(total: float, freedom: float) -> float:
    return float(min(1.0, 2 * min(stats.chi2.cdf(total, freedom), stats.chi2.sf(total, freedom))))


def gaussian(residuals: Sequence[Reals], expected: Sequence[float]) -> Check:
    """Whether noise has the normal distribution (Kolmogorov and Smirnov), and no coordinate repeats another's.

    The second by the greatest correlation of a release's noise with itself, shifted by any number of coordinates.
    """
    units = [one / math.sqrt(wanted) for one, wanted in zip(residuals, expected, strict=True)]
    chances, greatest, lags = [1.0], 0.0, 0
    for one in units:
        power = np.abs(np.fft.rfft(one - one.mean())) ** 2
        own = np.fft.irfft(power, n=len(one))
        shifted = np.abs(own[1 : len(one) // 2 + 1])
        if len(one) % 2 == 0:
            shifted[-1:] /= math.sqrt(2)  # by half its length each product counts twice
        lags += len(shifted)
        if own[0] > 0 and len(shifted):
            greatest = max(greatest, float(shifted.max() / own[0]) * math.sqrt(len(one)))
    chances.append(_of_normals(greatest, lags))
    pooled = np.concatenate(units)[:: max(1, sum(map(len, units)) // MOST_SORTED)] if units else np.zeros(0)
    if len(pooled):
        chances.append(float(stats.kstest(pooled, "norm").pvalue))
    chance = min(1.0, 2 * min(chances))
    return Check(
        "distribution",
        chance >= LEVEL,
        f"normal with p = {chances[-1]:.2g}; of its {lags:,} correlations with itself, shifted, the greatest is "
        f"{greatest:.1f} deviations",
        {"p_value": chance, "deviations": greatest},
    )


def served(pairs: Sequence[tuple[int, int]], as_drawn: bool) -> Check:
    """Whether the images that went in are those that were drawn.

    Args:
        pairs: drawn for a step, and gone in. as_drawn: whether their positions are those that were drawn.
    """
    other = sum(drawn != gone_in for drawn, gone_in in pairs)
    told = f"{sum(drawn for drawn, _ in pairs)} images drawn, {sum(gone_in for _, gone_in in pairs)} went in"
    if not as_drawn:
        told += ", others than were drawn"
    return Check("images", other == 0 and as_drawn, told, {"steps_that_differ": other})


def sizes(counts: Sequence[tuple[int, float, int]]) -> Check:
    """Whether samples vary in size as Poisson's do, and are not all of one size.

    By chi-square with the degrees of freedom that fit the fourth moment; of few or small samples never less likely
    than that all are as near to their mean as whole numbers can be.

    Args:
        counts: of each sample: images that may be in it, rate, and images in it.
    """
    free = [(number, rate, count) for number, rate, count in counts if 0 < rate < 1 and number > 0]
    scores = [(count - number * rate) ** 2 / (number * rate * (1 - rate)) for number, rate, count in free]
    fourth = sum((1 - 6 * rate * (1 - rate)) / (number * rate * (1 - rate)) for number, rate, _ in free)
    freedom = 2 * len(scores) ** 2 / (2 * len(scores) + fourth) if scores else 1.0
    ratio = sum(scores) / len(scores) if scores else 1.0
    nearest = math.exp(sum(stats.binom.logpmf(round(number * rate), number, rate) for number, rate, _ in free))
    chance = max(nearest, float(stats.chi2.cdf(ratio * freedom, freedom))) if scores else 1.0
    told = f"{len(scores)} samples vary in size {ratio:.2f} as much as Poisson's"
    return Check("sizes", chance >= LEVEL, told, {"ratio": ratio, "p_value": chance})


def unchanged(differences: Sequence[float]) -> Check:
    """Whether what left is what the noised steps give, when they are taken once more.

    Args:
        differences: of each update that left, relative to its norm.
    """
    greatest = max(differences, default=0.0)
    told = f"{len(differences)} updates are {greatest:.1e} off what their noised steps give"
    return Check("release", greatest <= REPLAYED, told, {"greatest": greatest})


def _of_normals(greatest: float, count: int) -> float:
    """Chance that one of so many normal numbers lies so far from 0, an upper bound."""
    return min(1.0, count * 2 * float(stats.norm.sf(greatest))) if count else 1.0


def uncorrelated(residuals: Sequence[Reals]) -> Check:
    """Whether the noises of any two releases, of other hospitals or rounds, have nothing in common."""
    lengths = [float(np.linalg.norm(one)) for one in residuals]
    units = [one / length for one, length in zip(residuals, lengths, strict=True) if length > 0]
    pairs = [(one, other) for place, one in enumerate(units) for other in units[:place]]
    found = [abs(float(one @ other)) for one, other in pairs]
    greatest = max(found, default=0.0)
    deviations = greatest * math.sqrt(len(units[0])) if units else 0.0
    chance = _of_normals(deviations, len(pairs))
    return Check(
        "independence",
        chance >= LEVEL,
        f"greatest correlation of {len(pairs)} pairs of noises {greatest:.4f} ({deviations:.1f} deviations)",
        {"greatest": greatest, "deviations": deviations, "p_value": chance},
    )


def holds_signal(residuals: Sequence[Reals], signals: Sequence[Reals], expected: Sequence[float]) -> Check:
    """Whether releases hold the sums that were recomputed, once: what is left of them is noise in that direction.

    Args:
        residuals: as in `variance`. signals: what was taken away (coordinates,). expected: variance of each.
    """
    found = [
        float(one @ signal) / (float(np.linalg.norm(signal)) * math.sqrt(wanted))
        for one, signal, wanted in zip(residuals, signals, expected, strict=True)
        if np.any(signal)
    ]
    greatest = max(map(abs, found), default=0.0)
    chance = _of_normals(greatest, len(found))
    return Check(
        "signal",
        chance >= LEVEL,
        f"what was recomputed is in each of {len(found)} releases once ({greatest:.1f} deviations off at most)",
        {"deviations": greatest, "p_value": chance},
    )


def steps(released: Mapping[int, int], charged: Mapping[int, int]) -> Check:
    """Whether every release was charged.

    Args:
        released: counted by hospital. charged: by its ledger.
    """
    missing = {who: count - charged.get(who, 0) for who, count in released.items() if count > charged.get(who, 0)}
    told = f"{sum(released.values())} releases of {len(released)} hospitals, {sum(charged.values())} charged"
    if missing:
        who, count = next(iter(sorted(missing.items())))
        told += f"; hospital {who} released {count} more than it charged"
    return Check(
        "steps", not missing, told, {"released": sum(released.values()), "charged": sum(charged.values())}
    )


def within_claim(composed: Mapping[int, float], claimed: float, tolerance: float) -> Check:
    """Whether what ledgers were charged for, over all rounds and by another accountant, is what is claimed.

    Args:
        composed: epsilon by hospital. tolerance: of the two accountants, relative.
    """
    if not composed:
        return Check("composition", False, f"nothing was charged, claimed {claimed:.3f}")
    worst = max(composed.values())
    return Check(
        "composition",
        worst <= claimed * (1 + tolerance),
        f"all rounds at the charged noise compose to {worst:.3f}, claimed {claimed:.3f}",
        {"composed": worst, "claimed": claimed},
    )


def poisson(presence: Reals, rate: float, deviation: float, samples: int = 1) -> Check:
    """Whether members are sampled by Poisson's chances: as often, and with gaps that have no memory.

    Where members are shuffled and each is taken once in 1 / rate steps, sums over so many steps vary less: they
    lack the part `rate (1 - rate)` of the variance of each step. Far below the noise that cannot be seen.

    Args:
        presence: (steps, members), how often a member is in a release, with noise.
        deviation: of that noise. samples: of a release, which add up.
    """
    count, members = presence.shape
    spread = samples * rate * (1 - rate)
    each = deviation**2 + spread
    found = float(presence.mean()) / samples
    often = samples * (found - rate) * math.sqrt(count * members / each)
    error = math.sqrt(each / (count * members)) / samples
    told = f"members are in {found:.4f} of the samples (deviation {error:.4f}), charged {rate:.4f}"
    window = max(1, round(1 / (rate * samples)))
    windows = count // window
    if windows == 0 or spread == 0:
        chance = 2 * float(stats.norm.sf(abs(often)))
        return Check(
            "sampling",
            chance >= LEVEL,
            f"{told}; too few steps for gaps",
            {"rate": found, "deviation": error, "p_value": chance},
        )
    sums = presence[: windows * window].reshape(windows, window, members).sum(1)
    ratio = float(np.square(sums - window * samples * rate).mean()) / (window * each)
    fourth = spread * (1 - 6 * rate * (1 - rate)) / each**2 / window  # excess kurtosis of such a sum
    of_gaps = math.sqrt((2 + fourth) / sums.size)
    freedom = 2 / of_gaps**2
    shuffled = spread / each / of_gaps
    chance = min(1.0, 2 * 2 * float(stats.norm.sf(abs(often))), 2 * _two_sided(ratio * freedom, freedom))
    sight = "would be seen" if shuffled > -float(stats.norm.ppf(LEVEL / 4)) else "could not be told for certain"
    return Check(
        "sampling",
        chance >= LEVEL,
        f"{told}; gaps vary {ratio:.4f} as much as Poisson's (shuffling is {shuffled:.1f} deviations off, and "
        f"{sight})",
        {"rate": found, "deviation": error, "gaps": ratio, "shuffled_deviations": shuffled, "p_value": chance},
    )

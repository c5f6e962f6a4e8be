"""What an adversary who knows all data can test of releases in seconds: their noise, their steps, their samples.

Each test is fixed beforehand and fails where its p-value is below `LEVEL`, so that a sound run hardly ever fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Reals = NDArray[np.float64]
LEVEL = 1e-6


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


def variance(residuals: Sequence[Reals], expected: Sequence[float]) -> Check:
    """Whether releases less what they should hold have the variance that was charged (chi-square, both sides).

    Args:
        residuals: (coordinates,) of each release. expected: variance of each.
    """
    sums = [float(np.square(one).sum()) / wanted for one, wanted in zip(residuals, expected, strict=True)]
    sizes = [len(one) for one in residuals]
    single = min(_two_sided(total, size) for total, size in zip(sums, sizes, strict=True)) * len(sums)
    chance = min(1.0, single, _two_sided(sum(sums), sum(sizes))) if sums else 1.0
    ratios = [total / size for total, size in zip(sums, sizes, strict=True)]
    ratio = sum(sums) / sum(sizes)
    return Check(
        "noise",
        chance >= LEVEL,
        f"{ratio:.4f} of the charged variance in {len(sums)} releases ({min(ratios):.4f} to {max(ratios):.4f})",
        {"ratio": ratio, "least": min(ratios), "greatest": max(ratios), "p_value": chance},
    )


def _two_sided(total: float, freedom: int) -> float:
    return float(min(1.0, 2 * min(stats.chi2.cdf(total, freedom), stats.chi2.sf(total, freedom))))


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
    window = max(1, round(1 / (rate * samples)))
    windows = count // window
    if windows == 0 or spread == 0:
        chance = 2 * float(stats.norm.sf(abs(often)))
        return Check(
            "sampling",
            chance >= LEVEL,
            f"members are in {found:.4f} of the samples, charged {rate:.4f}; too few steps for gaps",
            {"rate": found, "p_value": chance},
        )
    sums = presence[: windows * window].reshape(windows, window, members).sum(1)
    ratio = float(np.square(sums - window * samples * rate).mean()) / (window * each)
    fourth = spread * (1 - 6 * spread) / each**2 / window  # excess kurtosis of such a sum
    error = math.sqrt((2 + fourth) / sums.size)
    gaps = (ratio - 1) / error
    shuffled = spread / each / error
    chance = min(1.0, 4 * float(stats.norm.sf(max(abs(often), abs(gaps)))))
    sight = "would be seen" if shuffled > -float(stats.norm.ppf(LEVEL / 4)) else "could not be told for certain"
    return Check(
        "sampling",
        chance >= LEVEL,
        f"members are in {found:.4f} of the samples, charged {rate:.4f}; gaps vary {ratio:.4f} as "
        f"much as Poisson's (shuffling is {shuffled:.1f} deviations off, and {sight})",
        {
            "rate": found,
            "gaps": ratio,
            "shuffled_deviations": shuffled,
            "deviations": gaps,
            "p_value": chance,
        },
    )

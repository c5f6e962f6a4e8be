"""Discrete noise from a secret stream: integers whose every probability is known to be right to a stated error."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from lightning_fed.checks import one_of
from lightning_fed.errors import InputError
from lightning_fed.privacy.streams import Stream

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Long = NDArray[np.longdouble]

RELATIVE_ERROR = 2.0**-49 + 1536 * float(np.finfo(np.longdouble).eps)
"""Of the probabilities inside the core, at most (eta), but for what `TAIL` holds in all: 2e-15, or 3e-13 where a
long double is but a double."""
TAIL = 2.0**-100
"""Probability outside the core, which is never drawn, with what rounding to whole parts moves, at most (tau)."""
LEAST_VARIANCE = 2.0**12
GREATEST_VARIANCE = 2.0**44
BLOCKS_IN_DEVIATION = 64
POSITION_BITS = 14
CHUNK = 2**14
RESOLUTION = 2**128
"""Into so many parts the masses of the blocks are rounded."""


class Noise(ABC):
    """A symmetric, unimodal distribution on the integers.

    Args:
        variance: above 0.
    """

    def __init__(self, variance: float) -> None:
        self.variance = variance

    @abstractmethod
    def log_mass(self, values: Integers) -> Long:
        """Logarithms of the probabilities, up to a constant that is the same for all."""

    @abstractmethod
    def log_tail(self, reach: float) -> float:
        """An upper bound of the logarithm of the probability of a magnitude of `reach` or more."""

    def reach(self, log_chance: float) -> float:
        """A magnitude that is reached with a probability of exp(`log_chance`) at most."""
        low, high = 0.0, math.sqrt(self.variance)
        while self.log_tail(high) > log_chance:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.log_tail(middle) <= log_chance else (middle, high)
        return high


class Skellam(Noise):
    """The difference of two Poisson numbers of mean V/2 each (Skellam 1946): mass exp(-V) I_k(V).

    Sums of Skellam numbers are Skellam numbers of the summed variance.
    """

    def log_mass(self, values: Integers) -> Long:
        """By Debye's expansion of I_k (DLMF 10.41.3) in powers of 1 / sqrt(k^2 + V^2).

        Its first term left out is below 0.3 / V^5, that is 3e-19 at the least variance. Differences of large
        numbers are taken in closed form, so that what is left is a rounding of terms of about 90.
        """
        variance = np.longdouble(self.variance)
        k = np.abs(values).astype(np.longdouble)
        ratio = k / variance
        root = variance * np.sqrt(1 + ratio * ratio)
        exponent = k * k / (root + variance) - k * np.arcsinh(ratio)
        logarithm: Long = exponent - np.log1p(ratio * ratio) / 4 + np.log1p(_debye(k / root, root))
        return logarithm

    def log_tail(self, reach: float) -> float:
        """Chernoff's bound on both sides."""
        root = math.hypot(reach, self.variance)
        return math.log(2) + reach * reach / (root + self.variance) - reach * math.asinh(reach / self.variance)


def _debye(p: Long, root: Long) -> Long:
    """Terms 1 to 4 of Debye's series, u_j(p) / k^j with p = k / root."""
    s = p * p
    first = (3 - 5 * s) / (24 * root)
    second = (81 + s * (-462 + 385 * s)) / (1152 * root**2)
    third = (30375 + s * (-369603 + s * (765765 - 425425 * s))) / (414720 * root**3)
    inner = 349922430 + s * (-446185740 + 185910725 * s)
    fourth = (4465125 + s * (-94121676 + s * inner)) / (39813120 * root**4)
    total: Long = first + second + third + fourth
    return total


class DiscreteGaussian(Noise):
    """Mass in proportion to exp(-k^2 / 2V) (Canonne, Kamath & Steinke 2020, arXiv 2004.00010)."""

    def log_mass(self, values: Integers) -> Long:
        """The exponent itself."""
        k = values.astype(np.longdouble)
        exponent: Long = -k * k / (2 * np.longdouble(self.variance))
        return exponent

    def log_tail(self, reach: float) -> float:
        """It is sub-Gaussian with its parameter for variance (their Proposition 25 and Chernoff's bound)."""
        return math.log(2) - reach * reach / (2 * self.variance)


NOISES: dict[str, type[Noise]] = {"skellam": Skellam, "discrete_gaussian": DiscreteGaussian}


def refuse_variance(variance: float) -> None:
    """Raise `InputError` unless noise of a variance can be drawn."""
    if not LEAST_VARIANCE <= variance <= GREATEST_VARIANCE:
        raise InputError(
            f"privacy.noise_multiplier: integer noise of variance {variance:.3g} cannot be drawn; it must lie "
            f"between {LEAST_VARIANCE:g} and {GREATEST_VARIANCE:.3g} steps of the grid, squared"
        )


class Sampler:
    """Draws of a `Noise`, cut off where `TAIL` is left.

    The integers are cut into blocks of B. A block is drawn in proportion to B times its greatest probability, by
    Walker's alias table (Vose 1991) over whole parts of 2^-128; a place in it uniformly; and the place is kept
    with its probability over the block's greatest, else all is drawn anew. So the algorithm's own mass function is

        mass(k) = parts(block of k) * chances(k) / (the same, summed over all k),

    with `parts` and `chances` whole numbers that decide the comparisons with random bits (`parts`, `chances`).
    `relative_error` bounds what that differs from the noise's: with e the rounding of a long double's exponent
    and logarithm, at most 300 of its units, a block's parts are off by e and a chance by e, which normalising
    doubles, and a chance by one of its units, downwards. A block's parts are off by half a part too (the greatest
    by half a part for each block): together below 2^-115, which is counted in `TAIL`.

    Args:
        noise: what to draw, of a variance from `LEAST_VARIANCE` to `GREATEST_VARIANCE`.

    Raises:
        InputError: another variance.
    """

    def __init__(self, noise: Noise) -> None:
        refuse_variance(noise.variance)
        self.noise = noise
        deviation = math.sqrt(noise.variance)
        self.position_bits = min(POSITION_BITS, max(1, int(math.log2(deviation / BLOCKS_IN_DEVIATION))))
        self.width = 2**self.position_bits
        self.half = math.ceil(noise.reach(math.log(TAIL / 2)) / self.width)
        self.block_bits = (2 * self.half - 1).bit_length()
        self._chance_bits = 64 - self.position_bits
        self._build()

    @property
    def core(self) -> int:
        """Drawn are the integers from -core to core - 1."""
        return int(self.half * self.width)

    def _build(self) -> None:
        starts = np.arange(-self.half, self.half, dtype=np.int64) * self.width
        ends = starts + self.width - 1
        inner, outer = np.where(starts >= 0, starts, ends), np.where(starts >= 0, ends, starts)
        self._log_greatest = self.noise.log_mass(inner)
        self.parts = _whole_parts(np.exp(self._log_greatest))
        self._threshold, self._second_threshold, self._alias = _alias_table(self.parts, self.block_bits)
        least = np.exp(self.noise.log_mass(outer) - self._log_greatest)
        # A little below the least chance of the block: what is drawn below it needs no exponential.
        self._surely = np.floor(least * (1 - 2.0**-30) * 2.0**self._chance_bits).astype(np.uint64)

    @cached_property
    def relative_error(self) -> float:
        """The bound of the class's docstring (eta)."""
        rounding = 300 * float(np.finfo(np.longdouble).eps)
        return (4 * rounding + 1 / float(self._surely.min())) * 1.01

    def chances(self, values: Integers, blocks: Integers) -> Words:
        """How many of 2^(64 - position_bits) random numbers keep a value once it is proposed."""
        shares = np.exp(self.noise.log_mass(values) - self._log_greatest[blocks])
        kept: Words = np.floor(np.minimum(shares, 1) * 2.0**self._chance_bits).astype(np.uint64)
        return kept

    def draw(self, stream: Stream, count: int) -> Integers:
        """Independent draws, int64 (count,)."""
        drawn = np.empty(count, dtype=np.int64)
        for start in range(0, count, CHUNK):
            self._fill(stream, drawn[start : start + CHUNK])
        return drawn

    def _fill(self, stream: Stream, drawn: Integers) -> None:
        words = stream.words(2 * len(drawn))
        blocks = self._blocks(stream, words[: len(drawn)])
        rest = words[len(drawn) :]
        np.multiply(blocks - self.half, self.width, out=drawn)
        drawn += (rest & np.uint64(self.width - 1)).view(np.int64)
        kept = rest >> np.uint64(self.position_bits)
        unsure = np.flatnonzero(kept >= self._surely[blocks])
        chances = self.chances(drawn[unsure], blocks[unsure])
        anew = unsure[kept[unsure] >= chances]
        if len(anew):
            drawn[anew] = self.draw(stream, len(anew))

    def _blocks(self, stream: Stream, words: Words) -> Integers:
        cells = (words & np.uint64(2**self.block_bits - 1)).view(np.int64)
        dice = words >> np.uint64(self.block_bits)
        thresholds = self._threshold[cells]
        stays = dice < thresholds
        tied = np.flatnonzero(dice == thresholds)
        if len(tied):
            more = stream.words(len(tied))
            stays[tied] = more < self._second_threshold[cells[tied]]
        blocks: Integers = np.where(stays, cells, self._alias[cells])
        return blocks


def _whole_parts(masses: Long) -> list[int]:
    """Masses, 1 at most, as whole numbers that add up to `RESOLUTION`; the greatest takes what rounding leaves."""
    whole = [_times(mass, RESOLUTION**2) for mass in masses]
    total = sum(whole)
    parts = [(2 * one * RESOLUTION + total) // (2 * total) for one in whole]
    parts[int(np.argmax(masses))] += RESOLUTION - sum(parts)
    return parts


def _times(share: np.longdouble, factor: int) -> int:
    """A share of a whole number, exactly, rounded to the nearest."""
    mantissa, exponent = np.frexp(share)
    whole = int(mantissa * np.longdouble(2.0**64))
    shifted = whole * factor
    places = 64 - int(exponent)
    return (shifted + (1 << (places - 1))) >> places


def _alias_table(parts: list[int], bits: int) -> tuple[Words, Words, Integers]:
    """Vose's table over 2^bits cells: the share of each that stays, as 64 - bits and 64 bits, and the other cell.

    Every cell holds RESOLUTION / 2^bits parts = 2^(128 - bits), so that the comparison is exact.
    """
    cells = 2**bits
    whole = RESOLUTION // cells
    left = parts + [0] * (cells - len(parts))
    alias = list(range(cells))
    stays = [whole] * cells
    small = [cell for cell in range(cells) if left[cell] < whole]
    large = [cell for cell in range(cells) if left[cell] >= whole]
    while small:
        cell, donor = small.pop(), large[-1]
        stays[cell], alias[cell] = left[cell], donor
        left[donor] -= whole - left[cell]
        if left[donor] < whole:
            small.append(large.pop())
    # A cell that is full stays also by its alias, which is itself.
    first = [min(share >> 64, 2 ** (64 - bits) - 1) for share in stays]
    second = [share & (2**64 - 1) for share in stays]
    return np.array(first, np.uint64), np.array(second, np.uint64), np.array(alias, np.int64)


@lru_cache(maxsize=8)
def sampler_of(distribution: str, variance: float) -> Sampler:
    """The sampler of a distribution, `skellam` or `discrete_gaussian`, at a variance; made once in a process.

    Raises:
        InputError: another distribution, or a variance that cannot be drawn.
    """
    one_of("privacy", NOISES, distribution=distribution)
    sampler = Sampler(NOISES[distribution](variance))
    if sampler.relative_error > RELATIVE_ERROR:
        raise InputError(
            f"privacy: noise of variance {variance:.3g} is off by {sampler.relative_error:.3g} a draw"
        )
    return sampler

"""Integer noise: the algorithm's own mass function against exact masses, its parts bit by bit, and its draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from lightning_fed.errors import InputError
from lightning_fed.privacy import samplers
from lightning_fed.privacy.samplers import (
    CHUNK,
    GREATEST_VARIANCE,
    LEAST_VARIANCE,
    NOISES,
    RELATIVE_ERROR,
    RESOLUTION,
    TAIL,
    DiscreteGaussian,
    Sampler,
    Skellam,
    sampler_of,
)
from lightning_fed.privacy.streams import Stream
from tests.privacy.exact import BOTH, DIGITS, GAUSSIAN, SKELLAM, exact_masses, log_masses

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
NARROW, WIDE, WIDER = 4096.0, 65536.0, 1.2e6  # blocks of 2, 4 and 16 integers
MANY = 300_000
UNIT = float(np.finfo(np.longdouble).eps)
Words = NDArray[np.uint64]

both = pytest.mark.parametrize("distribution", BOTH)
widths = pytest.mark.parametrize("variance", [NARROW, WIDE, WIDER])


@lru_cache(maxsize=16)
def made(distribution: str, variance: float) -> Sampler:
    return Sampler(NOISES[distribution](variance))


class Given(Stream):
    """Words that a test has written, one list for each time that it is asked."""

    def __init__(self, *lists: Words) -> None:
        super().__init__(KEY)
        self.lists = [np.asarray(words, dtype=np.uint64) for words in lists]

    def words(self, count: int) -> Words:
        words = self.lists.pop(0)
        assert len(words) == count
        return words


def core(sampler: Sampler) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All integers that are drawn, and the block of each."""
    values = np.arange(-sampler.core, sampler.core)
    return values, np.repeat(np.arange(2 * sampler.half), sampler.width)


def keeping(sampler: Sampler) -> list[int]:
    """How many of all random numbers keep a value of the core once it is proposed."""
    values, blocks = core(sampler)
    kept: list[int] = np.maximum(sampler.chances(values, blocks), sampler._surely[blocks]).tolist()
    return kept


class TestItsOwnMassFunction:
    @both
    @widths
    def test_every_integer_of_the_core_has_its_probability_to_the_stated_error(
        self, distribution: str, variance: float
    ) -> None:
        """Whole numbers against 40 digits, both normalised over the core."""
        sampler = made(distribution, variance)
        values, blocks = core(sampler)
        own = [sampler.parts[block] * kept for block, kept in zip(blocks, keeping(sampler), strict=True)]
        exact = exact_masses(distribution, variance, sampler.core)
        with localcontext() as context:
            context.prec = DIGITS
            of_own = Decimal(sum(own))
            of_exact = sum(exact[abs(value)] for value in values.tolist())
            errors = [
                (abs(Decimal(mass) / of_own - exact[abs(value)] / of_exact), exact[abs(value)] / of_exact)
                for mass, value in zip(own, values.tolist(), strict=True)
            ]
        stated = Decimal(sampler.relative_error)
        assert sum(max(error - stated * mass, Decimal(0)) for error, mass in errors) < Decimal(TAIL) / 2**14
        assert max(error / mass for error, mass in errors if mass > 1e-15) <= stated <= RELATIVE_ERROR
        assert max(error / mass for error, mass in errors) > stated / 100  # or the claim says nothing

    @both
    @pytest.mark.parametrize("variance", [NARROW, WIDE])
    def test_no_more_than_the_stated_tail_lies_outside_the_core(self, distribution: str, variance: float) -> None:
        sampler = made(distribution, variance)
        exact = exact_masses(distribution, variance, sampler.core + round(5 * math.sqrt(variance)))
        inside = exact[0] + 2 * sum(exact[1 : sampler.core]) + exact[sampler.core]
        outside = exact[sampler.core] + 2 * sum(exact[sampler.core + 1 :])
        assert TAIL / 1e3 < outside / inside <= TAIL

    @both
    def test_the_error_is_stated_at_every_width_that_is_in_use(self, distribution: str) -> None:
        for power in np.arange(12, 44.5, 0.5):
            assert sampler_of(distribution, 2.0**power).relative_error <= RELATIVE_ERROR

    @pytest.mark.parametrize("power", [12, 20, 38, 44])
    def test_the_stated_error_is_that_of_the_exponents_and_of_a_unit_of_the_least_chance(self, power: int) -> None:
        sampler = Sampler(Skellam(2.0**power))
        unit = 2.0 ** (sampler.position_bits - 64) / (float(sampler._surely.min()) * 2.0**-sampler._chance_bits)
        assert sampler.relative_error == pytest.approx(4 * 300 * UNIT + unit, rel=0.02)
        assert (np.array(sampler.parts, float).max() / len(sampler.parts)) > 2.0**100

    def test_what_rounding_to_parts_moves_is_far_below_the_tail(self) -> None:
        cells = 2**14
        assert cells / RESOLUTION / 0.8 < TAIL / 2**13


class TestLogarithmsOfMasses:
    # log I_k(V) - log I_0(V), by twelve terms of Debye's expansion and by recurrence in 40 digits.
    KNOWN = (
        (4096.0, 1, "-0.000122085216997118480950473714393"),
        (4096.0, 300, "-10.9827626111008963017943312534"),
        (4096.0, 635, "-49.1298606258023474905763921087"),
        (12345.678, 1000, "-40.4795384337242239401782589926"),
        (1e8, 1, "-0.00000000500000002500000022916666979167"),
        (1e8, 54321, "-14.7538549159755590391477118901"),
        (1e8, 99000, "-49.004996242542684429683124393"),
        (1e12, 1000000, "-0.500000000000208333333333491667"),
        (1e12, 9900000, "-49.0049999996242541625105943012"),
    )

    @pytest.mark.parametrize(("variance", "k", "wanted"), KNOWN)
    def test_debyes_expansion_at_small_and_great_variances(self, variance: float, k: int, wanted: str) -> None:
        first, there, mirrored = Skellam(variance).log_mass(np.array([0, k, -k]))
        assert there == mirrored
        assert abs((there - first) - np.longdouble(wanted)) <= 300 * UNIT

    @pytest.mark.parametrize("variance", [4096.0, 5000.3])
    def test_debyes_expansion_in_the_whole_core(self, variance: float) -> None:
        reach = Sampler(Skellam(variance)).core
        logs = Skellam(variance).log_mass(np.arange(reach + 1))
        exact = exact_masses(SKELLAM, variance, reach)
        with localcontext() as context:
            context.prec = DIGITS
            wanted = np.array([str(mass.ln()) for mass in exact]).astype(np.longdouble)
        assert np.abs(logs - logs[0] - wanted).max() <= 300 * UNIT

    def test_the_terms_are_those_of_the_published_recurrence(self) -> None:
        """DLMF 10.41.9: u_{j+1} = p^2 (1 - p^2) u_j' / 2 + 1/8 of the integral of (1 - 5 t^2) u_j."""
        terms: list[dict[int, Fraction]] = [{0: Fraction(1)}]
        for _ in range(4):
            following: dict[int, Fraction] = {}
            for power, factor in terms[-1].items():
                for to, share in (
                    (power + 1, factor * power / 2 + factor / 8 / (power + 1)),
                    (power + 3, -factor * power / 2 - 5 * factor / 8 / (power + 3)),
                ):
                    following[to] = following.get(to, Fraction(0)) + share
            terms.append(following)
        for p, root in ((Fraction(1, 2), 1), (Fraction(3, 64), 7), (Fraction(15, 16), 3)):
            wanted = sum(
                factor * p**power / (root * p) ** order
                for order, term in enumerate(terms)
                if order
                for power, factor in term.items()
            )
            found = samplers._debye(np.array([p], np.longdouble), np.array([root], np.longdouble))
            assert float(found[0]) == pytest.approx(float(wanted), rel=1e-12)

    def test_a_discrete_gaussians_logarithm_is_its_exponent(self) -> None:
        found = DiscreteGaussian(5000.5).log_mass(np.array([-600, 0, 1, 600]))
        assert found.dtype == np.longdouble
        assert found.tolist() == pytest.approx([-360000 / 10001, 0, -1 / 10001, -360000 / 10001], rel=1e-15)

    @both
    def test_the_masses_fall_from_zero_on_to_both_sides(self, distribution: str) -> None:
        """What a block's greatest is read from."""
        sampler = made(distribution, WIDE)
        logs = NOISES[distribution](WIDE).log_mass(np.arange(sampler.core + 1))
        assert (np.diff(logs) < 0).all()


class TestTheTable:
    def parts_of(self, thresholds: Words, seconds: Words, aliases: NDArray[np.int64], bits: int) -> list[int]:
        """Put together again from the cells, each of 2^(128 - bits) parts."""
        parts, whole = [0] * 2**bits, RESOLUTION >> bits
        for cell, (first, second, other) in enumerate(
            zip(thresholds.tolist(), seconds.tolist(), aliases.tolist(), strict=True)
        ):
            assert first < 2 ** (64 - bits)
            stays = (first << 64) + second
            assert stays < whole
            parts[cell] += stays
            parts[other] += whole - stays
        return parts

    @both
    @widths
    def test_the_cells_hold_the_parts_to_the_last_one(self, distribution: str, variance: float) -> None:
        sampler = made(distribution, variance)
        padding = 2**sampler.block_bits - len(sampler.parts)
        assert padding > 0
        found = self.parts_of(sampler._threshold, sampler._second_threshold, sampler._alias, sampler.block_bits)
        assert found == sampler.parts + [0] * padding
        assert sum(sampler.parts) == RESOLUTION

    @settings(max_examples=60, deadline=None)
    @given(
        sizes=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 2**126)), min_size=1, max_size=9),
        bits=st.integers(0, 5),
    )
    def test_any_parts_are_kept_to_the_last_one(self, sizes: list[int], bits: int) -> None:
        sizes = sizes[: 2**bits]
        parts = [size * RESOLUTION // (2 * sum(sizes)) for size in sizes]
        parts[-1] += RESOLUTION - sum(parts)
        bits = max(bits, 1)
        found = self.parts_of(*samplers._alias_table(parts, bits), bits)
        assert found == parts + [0] * (2**bits - len(parts))

    def test_equal_parts_fill_their_cells(self) -> None:
        found = self.parts_of(*samplers._alias_table([RESOLUTION // 4] * 4, 2), 2)
        assert found == [RESOLUTION // 4] * 4

    @pytest.mark.parametrize("places", [1, 3, 64, 100, 150])
    def test_a_share_is_multiplied_exactly_and_rounded_to_the_nearest(self, places: int) -> None:
        for mantissa in (2**63, 2**63 + 1, 2**64 - 1, 3 * 2**62):
            share = np.longdouble(mantissa) * np.longdouble(2.0) ** (-64 - places)
            numerator, bits = int(np.longdouble(mantissa)), 64 + places
            wanted = (numerator * RESOLUTION + 2 ** (bits - 1)) >> bits
            assert samplers._times(share, RESOLUTION) == wanted

    @both
    def test_each_part_is_the_share_of_the_blocks_greatest_probability(self, distribution: str) -> None:
        sampler = made(distribution, WIDER)
        exact = exact_masses(distribution, WIDER, sampler.core)
        nearest = [
            block * sampler.width if block >= 0 else -(block + 1) * sampler.width + 1
            for block in range(-sampler.half, sampler.half)
        ]
        total = sum(exact[place] for place in nearest)
        assert len(sampler.parts) == 2 * sampler.half
        for part, place in zip(sampler.parts, nearest, strict=True):
            wanted = exact[place] / total
            rounded = max(float(wanted) * 1e-14, 0.51 / RESOLUTION)
            assert abs(float(Decimal(part) / RESOLUTION - wanted)) <= rounded

    @both
    @widths
    def test_a_tie_is_settled_by_sixty_four_further_bits(self, distribution: str, variance: float) -> None:
        """The dice just below, on and just above each cell's threshold."""
        sampler = made(distribution, variance)
        cells = np.arange(2**sampler.block_bits)
        bits, first, second = np.uint64(sampler.block_bits), sampler._threshold, sampler._second_threshold
        own = cells.astype(np.uint64)

        def drawn(dice: Words, further: Words, which: NDArray[np.bool_]) -> NDArray[np.int64]:
            found = np.full(len(cells), -1)
            ties = dice[which] == first[which]
            stream = Given(further[which][ties]) if ties.any() else Given()
            found[which] = sampler._blocks(stream, (dice << bits | own)[which])
            return found

        every, some = np.ones(len(cells), bool), first > 0
        assert np.array_equal(drawn(first - np.uint64(1), second, some)[some], cells[some])
        assert np.array_equal(drawn(first, second, every), sampler._alias)
        stays = second > 0
        assert np.array_equal(drawn(first, second - np.uint64(1), stays)[stays], cells[stays])
        above = first < 2 ** (64 - sampler.block_bits) - 1
        assert np.array_equal(drawn(first + np.uint64(1), second, above)[above], sampler._alias[above])


def proposing(sampler: Sampler, blocks: NDArray[np.int64], places: NDArray[np.int64], kept: Words) -> list[Words]:
    """The words with which a stream proposes a place in each block: its own cell, with the least dice."""
    ties = blocks[sampler._threshold[blocks] == 0]
    rest = kept << np.uint64(sampler.position_bits) | places.astype(np.uint64)
    words = [np.concatenate([blocks.astype(np.uint64), rest])]
    return [*words, np.zeros(len(ties), np.uint64)] if len(ties) else words


class TestWhatAStreamIsTurnedInto:
    @both
    @widths
    def test_each_block_and_place_is_its_integer(self, distribution: str, variance: float) -> None:
        sampler = made(distribution, variance)
        values, blocks = core(sampler)
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            places = np.arange(len(values))[part] % sampler.width
            words = proposing(sampler, blocks[part], places, np.zeros(len(places), np.uint64))
            assert np.array_equal(sampler.draw(Given(*words), len(places)), values[part])

    @both
    @pytest.mark.parametrize("variance", [WIDE, WIDER])
    def test_a_proposal_is_kept_with_its_chance_and_drawn_anew_beyond(
        self, distribution: str, variance: float
    ) -> None:
        """All is drawn anew, the block too."""
        sampler = made(distribution, variance)
        values, blocks = core(sampler)
        which = np.random.default_rng(1).choice(len(values), 3000, replace=False)
        values, blocks = values[which], blocks[which]
        places, chances = which % sampler.width, sampler.chances(values, blocks)
        last = proposing(sampler, blocks, places, chances - np.uint64(1))
        assert np.array_equal(sampler.draw(Given(*last), len(which)), values)
        partly = chances < 2**sampler._chance_bits
        refused, fresh = int(partly.sum()), np.arange(int(partly.sum())) % 7
        beyond = proposing(sampler, blocks[partly], places[partly], chances[partly])
        other = proposing(sampler, fresh + sampler.half, fresh % 2, np.zeros(refused, np.uint64))
        found = sampler.draw(Given(*beyond, *other), refused)
        assert refused > 1000
        assert np.array_equal(found, fresh * sampler.width + fresh % 2)

    @both
    @pytest.mark.parametrize("variance", [WIDE, WIDER])
    def test_a_chance_is_the_probability_over_the_blocks_greatest(
        self, distribution: str, variance: float
    ) -> None:
        sampler = made(distribution, variance)
        values, blocks = core(sampler)
        exact = exact_masses(distribution, variance, sampler.core)
        lowest = (blocks - sampler.half) * sampler.width
        greatest = np.where(lowest >= 0, lowest, -(lowest + sampler.width - 1))
        with localcontext() as context:
            context.prec = DIGITS
            whole = 2**sampler._chance_bits
            for value, kept, near in zip(
                values.tolist(), sampler.chances(values, blocks).tolist(), greatest.tolist(), strict=True
            ):
                wanted = exact[abs(value)] / exact[near]
                assert abs(Decimal(kept) / whole - wanted) <= Decimal(600 * UNIT) + Decimal(1) / whole

    @both
    @pytest.mark.parametrize("variance", [WIDE, WIDER, 2.0**36])
    def test_what_is_kept_without_an_exponential_would_be_kept_with_it(
        self, distribution: str, variance: float
    ) -> None:
        sampler = made(distribution, variance)
        blocks = np.arange(2 * sampler.half)
        for place in {0, 1, sampler.width // 2, sampler.width - 1}:
            chances = sampler.chances((blocks - sampler.half) * sampler.width + place, blocks)
            assert (sampler._surely <= chances).all()
        assert (sampler._surely > 2.0**sampler._chance_bits * 0.8).all()  # or nothing is saved

    def test_draws_are_those_of_the_chunks_that_they_fall_into(self) -> None:
        sampler = made(SKELLAM, WIDE)
        stream = Stream(KEY)
        parts = [sampler.draw(stream, count) for count in (CHUNK, CHUNK, 5)]
        assert np.array_equal(sampler.draw(Stream(KEY), 2 * CHUNK + 5), np.concatenate(parts))
        assert sampler.draw(Stream(KEY), 0).shape == (0,)
        assert sampler.draw(Stream(KEY), 1).dtype == np.int64


class TestReach:
    @both
    @pytest.mark.parametrize("variance", [5.0, 4096.0, 3e7])
    @pytest.mark.parametrize("log_chance", [-0.1, -2.0, math.log(TAIL), -200.0])
    def test_it_is_the_least_at_which_the_bound_holds(
        self, distribution: str, variance: float, log_chance: float
    ) -> None:
        noise = NOISES[distribution](variance)
        reach = noise.reach(log_chance)
        assert noise.log_tail(reach) <= log_chance
        assert noise.log_tail(reach * (1 - 1e-9)) > log_chance

    @pytest.mark.parametrize("variance", [3.0, 4096.0])
    def test_the_bound_is_chernoffs_of_both_sides(self, variance: float) -> None:
        """Of moments exp(V (cosh t - 1)), and exp(V t^2 / 2) at most."""
        t = np.linspace(0, 6, 600_001)
        moments = {SKELLAM: variance * (np.cosh(t) - 1), GAUSSIAN: variance * t * t / 2}
        for distribution, logs in moments.items():
            for reach in (0, 1, 2 * math.sqrt(variance), 3 * variance):
                wanted = math.log(2) + float((logs - t * reach).min())
                assert NOISES[distribution](variance).log_tail(reach) == pytest.approx(wanted, rel=1e-6, abs=1e-6)

    @both
    @pytest.mark.parametrize("variance", [3.0, 50.0, 4096.0])
    def test_the_bound_is_never_below_the_tail_nor_far_above(self, distribution: str, variance: float) -> None:
        logs = log_masses(distribution, variance, round(40 * math.sqrt(variance)))
        middle = len(logs) // 2
        for deviations in (0.5, 1, 2, 4, 8, 15):
            least = math.ceil(deviations * math.sqrt(variance))
            exact = math.log(2) + float(logsumexp(logs[middle + least :]))
            bound = NOISES[distribution](variance).log_tail(least)
            assert exact <= bound <= exact + 1.5 + math.log1p(deviations) + 3 / math.sqrt(variance)


def expected(sampler: Sampler, count: int, distribution: str, edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of so many draws, how many fall below the first edge, between each two, and from the last on."""
    masses = np.exp(log_masses(distribution, sampler.noise.variance, sampler.core))[:-1]
    starts = np.concatenate([[0], edges + sampler.core])
    wanted: NDArray[np.float64] = count * np.add.reduceat(masses, starts) / masses.sum()
    return wanted


def chance_of(observed: NDArray[np.int64], wanted: NDArray[np.float64]) -> float:
    """Of a chi-square as great as this."""
    assert wanted.min() > 8
    return float(stats.chi2.sf(((observed - wanted) ** 2 / wanted).sum(), len(wanted) - 1))


class TestDraws:
    """Fixed keys; each threshold is passed by good draws less often than once in a million keys."""

    @both
    @widths
    def test_they_fall_as_the_mass_function_says_into_both_tails_too(
        self, distribution: str, variance: float
    ) -> None:
        sampler = made(distribution, variance)
        drawn = sampler.draw(Stream(KEY), MANY)
        coarse = np.round(np.arange(-3.5, 3.6, 0.25) * math.sqrt(variance)).astype(np.int64)
        middle = np.arange(-2 * round(math.sqrt(variance)) // sampler.width, 2 * round(math.sqrt(variance)))
        for edges in (coarse, middle[middle < 130], np.array([0]), np.array([-1, 0, 1, 2])):
            observed = np.bincount(np.searchsorted(edges, drawn, side="right"), minlength=len(edges) + 1)
            assert chance_of(observed, expected(sampler, MANY, distribution, edges)) > 1e-6

    @both
    @pytest.mark.parametrize("variance", [WIDE, WIDER, 2.0**38])
    def test_no_place_in_a_block_is_preferred(self, distribution: str, variance: float) -> None:
        sampler = made(distribution, variance)
        places = np.bincount(sampler.draw(Stream(OTHER), MANY) % 4, minlength=4)
        assert chance_of(places, np.full(4, MANY / 4)) > 1e-6

    @both
    @pytest.mark.parametrize("variance", [NARROW, 5555.5, WIDER, 2.0**38 * 1.7])
    def test_they_have_the_mean_and_the_variance(self, distribution: str, variance: float) -> None:
        drawn = made(distribution, variance).draw(Stream(KEY), MANY) / math.sqrt(variance)
        assert abs(drawn.mean()) < 5 / math.sqrt(MANY)
        assert abs(drawn.var() - 1) < 5 * math.sqrt(2.01 / MANY)
        assert abs(stats.kurtosis(drawn)) < 5 * math.sqrt(24 / MANY) + 1 / variance

    @both
    def test_two_streams_and_neighbours_in_one_are_not_related(self, distribution: str) -> None:
        sampler = made(distribution, WIDE)
        first, second = (sampler.draw(Stream(key), MANY) / math.sqrt(WIDE) for key in (KEY, OTHER))
        pairs = [(first, second), (first[1:], first[:-1]), (first[CHUNK:], first[:-CHUNK])]
        for (a, b), power in itertools.product(pairs, (1, 2)):
            assert abs(np.corrcoef(a**power, b**power)[0, 1]) < 5.1 / math.sqrt(len(a))

    @both
    def test_the_same_key_draws_the_same_and_another_key_others(self, distribution: str) -> None:
        first, again, other = (made(distribution, WIDE).draw(Stream(key), 1000) for key in (KEY, KEY, OTHER))
        assert np.array_equal(first, again)
        assert (first == other).mean() < 0.02

    @both
    def test_draws_that_are_made_anew_are_not_related_to_their_neighbours(self, distribution: str) -> None:
        """In wide blocks, where a part in two hundred is drawn anew."""
        sampler = made(distribution, WIDER)
        anew: list[int] = []
        fill = sampler._fill

        def watched(stream: Stream, drawn: NDArray[np.int64]) -> None:
            anew.append(len(drawn))
            fill(stream, drawn)

        sampler._fill = watched  # type: ignore[method-assign]
        try:
            sampler.draw(Stream(KEY), MANY)
        finally:
            del sampler._fill
        _, blocks = core(sampler)
        kept, parts = np.array(keeping(sampler), dtype=float), np.array(sampler.parts, dtype=float)
        share = 1 - float(parts[blocks] @ kept) / parts.sum() / sampler.width / 2.0**sampler._chance_bits
        again = sum(anew) - MANY
        assert 0.002 < share < 0.01
        assert abs(again - MANY * share / (1 - share)) < 5 * math.sqrt(MANY * share) + 1


@both
@pytest.mark.parametrize("variance", [LEAST_VARIANCE * 0.999, GREATEST_VARIANCE * 1.001, math.nan])
def test_noise_that_cannot_be_drawn_is_refused(distribution: str, variance: float) -> None:
    with pytest.raises(
        InputError, match=r"privacy\.noise_multiplier: integer noise of variance .* cannot be drawn"
    ):
        sampler_of(distribution, variance)


def test_a_distribution_that_is_none_is_refused_with_its_likely_name() -> None:
    with pytest.raises(InputError, match=r"privacy\.distribution is 'skelam': did you mean 'skellam'"):
        sampler_of("skelam", NARROW)


def test_noise_that_is_off_by_more_than_is_stated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "RELATIVE_ERROR", 1e-30)
    with pytest.raises(InputError, match="off by"):
        sampler_of(GAUSSIAN, 5000.25)


@pytest.mark.parametrize("make", [lambda: sampler_of(SKELLAM, NARROW), lambda: sampler_of(SKELLAM, 16384.0)])
def test_a_sampler_is_made_once(make: Callable[[], Sampler]) -> None:
    assert make() is make()

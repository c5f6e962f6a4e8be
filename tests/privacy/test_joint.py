"""Noise that hospitals share out: what is charged against what one dimension can be computed to leak."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import fftconvolve
from scipy.special import logsumexp
from scipy.stats import norm

from lightning_fed.errors import InputError
from lightning_fed.privacy import accounting, joint, renyi
from lightning_fed.privacy.calibration import GREATEST_MULTIPLIER
from lightning_fed.privacy.dose import Dose, Joint
from lightning_fed.privacy.doses import epsilon_if_replaced, epsilon_of, epsilon_of_sums, epsilon_with_all
from lightning_fed.privacy.gaussian import gaussian_epsilon
from lightning_fed.privacy.joint import (
    LOG_WRAP,
    ROUNDING,
    SHARE_OF_DELTA,
    SMOOTH,
    epsilon,
    epsilon_realised,
    epsilon_replaced,
    greatest_sum,
    grid_bound,
    mean_gradient,
    noise_multiplier_of_one,
    sensitivity,
    variance_of_one,
)
from lightning_fed.privacy.poisson import PoissonGaussian
from lightning_fed.privacy.samplers import LEAST_VARIANCE, RELATIVE_ERROR, TAIL
from lightning_fed.privacy.streams import Stream
from lightning_fed.privacy.sums import add_share, on_grid
from tests.privacy.exact import BOTH, GAUSSIAN, SKELLAM, Reals, log_masses, mixed, shifted_pair, spared

KEY = bytes(range(32))
DELTA = 1e-3
NETWORK = 300_000
RATE, STEPS, BUDGET_DELTA = 4096 / 11959, 584, 1.9e-4

both = pytest.mark.parametrize("distribution", BOTH)
Integers = NDArray[np.int64]


def line(distribution: str, counted: int = 2, bound: int = 200) -> Joint:
    """One coordinate, in which all can be summed up."""
    return Joint(distribution, 1, bound, counted, 5, 10**6)


def network(distribution: str, coordinates: int = NETWORK) -> Joint:
    bound = grid_bound(coordinates)
    return Joint(distribution, coordinates, bound, 6, 10, 500 * bound)


def farthest(one: Joint) -> int:
    return math.floor(sensitivity(one)[0])


def release(one: Joint, multiplier: float, rate: float, honest: int | None = None) -> tuple[Reals, Reals]:
    """Log masses of one sampled release with an image that moves it farthest, and without."""
    variance = variance_of_one(one, multiplier) * (honest or one.counted)
    shift = farthest(one)
    masses = log_masses(one.distribution, variance, shift + math.ceil(10 * math.sqrt(variance)))
    there, absent = shifted_pair(masses, shift)
    return mixed(rate, there, absent), absent


class TestSensitivity:
    @pytest.mark.parametrize("coordinates", [1, 100, 1681, 300_000, 11_000_000])
    def test_the_grid_is_so_fine_that_rounding_costs_a_hundredth(self, coordinates: int) -> None:
        bound = grid_bound(coordinates)
        assert bound.bit_count() == 1
        assert math.sqrt(coordinates) <= bound / 100
        assert bound >= 4096
        assert bound < 200 * math.sqrt(coordinates) or bound == 4096
        assert sensitivity(Joint(SKELLAM, coordinates, bound, 1, 1, 1))[0] <= bound * 1.011

    @settings(max_examples=60, deadline=None)
    @given(
        data=st.data(),
        coordinates=st.integers(1, 40),
        images=st.integers(0, 5),
        clipping=st.sampled_from([1.0, 0.1, 7.3]),
        bound=st.sampled_from([16, 100, 4096]),
    )
    def test_no_image_moves_a_rounded_and_cut_sum_farther(
        self, data: st.DataObject, coordinates: int, images: int, clipping: float, bound: int
    ) -> None:
        """Neighbours with the same roundings, by brute force over clipped gradients."""
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        gradients = rng.normal(size=(images + 1, coordinates)) * rng.choice([1e-3, 1.0, 100.0])
        gradients /= np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True) / clipping, 1)
        clamp = data.draw(st.sampled_from([1, bound // 2, 10 * bound]))
        one = Joint(SKELLAM, coordinates, bound, 1, 1, clamp)
        dose = Dose("image", 1.0, 1.0, 1, None, None, 1e-5, joint=one)
        key = data.draw(st.binary(min_size=32, max_size=32))
        with_it = on_grid(gradients.sum(0), clipping, dose, Stream(key))
        without = on_grid(gradients[1:].sum(0), clipping, dose, Stream(key))
        moved = np.abs(with_it - without).astype(float)
        l2, l1 = sensitivity(one)
        assert np.linalg.norm(moved) <= l2
        assert moved.sum() <= l1
        uncut = replace(dose, joint=replace(one, clamp=10**9))
        free = on_grid(gradients.sum(0), clipping, uncut, Stream(key))
        free = np.abs(free - on_grid(gradients[1:].sum(0), clipping, uncut, Stream(key)))
        assert (moved <= free).all()

    @pytest.mark.parametrize(("coordinates", "bound"), [(1, 200), (400, 4100), (10_000, 10_000), (10_000, 100)])
    def test_a_sum_that_stands_just_below_each_rounding_is_moved_almost_so_far(
        self, coordinates: int, bound: int
    ) -> None:
        one = Joint(SKELLAM, coordinates, bound, 1, 1, 10**9)
        dose = Dose("image", 1.0, 1.0, 1, None, None, 1e-5, joint=one)
        whole = round(bound / math.sqrt(coordinates))
        before = (1 - 1e-7 - Stream(KEY).uniform(coordinates)) / bound
        gradient = np.full(coordinates, (whole + 2e-7) / bound)
        assert np.linalg.norm(gradient) <= 1 + 1e-6
        moved = on_grid(before + gradient, 1.0, dose, Stream(KEY)) - on_grid(before, 1.0, dose, Stream(KEY))
        l2, l1 = sensitivity(one)
        assert (moved == whole + 1).all()
        assert l2 - ROUNDING * bound - 1e-6 <= np.linalg.norm(moved) <= l2
        assert (l1 - 1e-6) * (1 - 2 * ROUNDING) <= moved.sum() <= l1

    def test_the_sum_of_magnitudes_of_whole_numbers_is_their_squares_at_most(self) -> None:
        l2, l1 = sensitivity(Joint(SKELLAM, 10**6, 100, 1, 1, 1))
        assert l1 == l2 * min(10**3, l2)
        far = sensitivity(Joint(SKELLAM, 10**10, 100, 1, 1, 1))
        assert far[1] == far[0] * 10**5

    def test_noise_is_measured_in_the_sensitivity(self) -> None:
        one = line(SKELLAM)
        assert variance_of_one(one, 3.0) == (3 * (200 * 1.001 + 1)) ** 2


class TestOnTheGrid:
    def dose(self, coordinates: int, multiplier: float = 1.0, clamp: int = 10**9, name: str = SKELLAM) -> Dose:
        one = Joint(name, coordinates, 4096, 4, 5, clamp)
        return Dose("image", 0.1, multiplier, 1, None, None, 1e-5, 40.0, joint=one)

    @pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.25, 0.5, 0.9, -0.3, -1.75, 1000.001])
    def test_rounding_leaves_the_mean_as_it_is(self, fraction: float) -> None:
        many = 200_000
        total = np.full(many, fraction * 2.5 / 4096)
        found = on_grid(total, 2.5, self.dose(many), Stream(KEY))
        part = fraction - math.floor(fraction)
        assert set(found.tolist()) <= {math.floor(fraction), math.floor(fraction) + 1}
        ups = int((found - math.floor(fraction)).sum())
        chance = float(stats.binomtest(ups, many, part).pvalue) if 0 < part < 1 else float(ups == 0)
        assert chance > 1e-6

    def test_each_coordinate_is_rounded_by_itself(self) -> None:
        found = on_grid(np.full(100_000, 0.5 / 4096), 1.0, self.dose(100_000), Stream(KEY)).astype(float)
        assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / math.sqrt(100_000)

    def test_the_clipping_norm_is_so_many_steps_and_what_is_beyond_the_clamp_is_cut(self) -> None:
        total = np.array([0.5, -0.5, 1.0, 100.0, -100.0])
        found = on_grid(total, 0.5, self.dose(5, clamp=2**14), Stream(KEY))
        assert found.tolist() == [4096, -4096, 8192, 16384, -16384]
        assert found.dtype == np.int64

    @both
    def test_a_share_has_the_variance_that_is_charged(self, distribution: str) -> None:
        many = 200_000
        dose = self.dose(many, 0.05, name=distribution)
        assert dose.joint is not None
        signal = np.arange(many)
        noise = add_share(signal, dose, Stream(KEY)) - signal
        assert noise.dtype == np.int64
        variance = variance_of_one(dose.joint, 0.05)
        assert abs(noise.var() / variance - 1) < 5 * math.sqrt(2 / many)
        together = sum(
            add_share(signal, dose, Stream(bytes([number]) * 32)) - signal for number in range(dose.joint.counted)
        )
        charged = variance * dose.joint.counted
        assert abs(np.var(together) / charged - 1) < 5 * math.sqrt(2 / many)
        reach = 5 * math.sqrt(variance) / math.sqrt(many)
        assert abs(noise.mean()) < reach

    def test_without_noise_the_sum_is_exact(self) -> None:
        signal = np.arange(-50, 50)
        assert np.array_equal(add_share(signal, self.dose(100, 0.0), Stream(KEY)), signal)

    def test_a_sum_becomes_the_mean_gradient_again(self) -> None:
        found = mean_gradient(np.array([4096, -8192, 0]), 0.5, self.dose(3), 40.0)
        assert found.tolist() == [np.float32(0.0125), np.float32(-0.025), 0.0]
        assert found.dtype == np.float32


class TestTheGaussianThatADiscreteOneProcesses:
    @pytest.mark.parametrize(("variance", "smooth"), [(0.22, 0.2), (0.3, 0.25), (0.5, 0.4), (9.0, 0.3)])
    @pytest.mark.parametrize("place", [0, 3])
    def test_rounding_a_continuous_gaussian_at_random_gives_a_discrete_one_to_the_stated_factor(
        self, variance: float, smooth: float, place: int
    ) -> None:
        """Step 2 of the docstring of `joint.epsilon`, at variances so small that the factor is seen."""
        width = 1 / 400
        t = np.arange(-12 * math.sqrt(variance), 12 * math.sqrt(variance), width) + place
        y = np.arange(math.floor(t[0]), math.ceil(t[-1]) + 1)
        bells = np.exp(-((y[None, :] - t[:, None]) ** 2) / 2 / smooth)
        chances = bells / bells.sum(1, keepdims=True)
        found = norm.pdf(t, place, math.sqrt(variance - smooth)) @ chances * width
        wanted = np.exp(-((y - place) ** 2) / 2 / variance)
        near = np.abs(y - place) < 7 * math.sqrt(variance)
        factors = np.log(found[near]) - np.log((wanted / wanted.sum())[near])
        z = 3 * math.exp(-2 * math.pi**2 * smooth)
        assert np.abs(factors).max() <= min(math.log((1 + z) / (1 - z)), 4 * z)
        assert np.abs(factors).max() > z / 10 or variance > 1
        totals = bells.sum(1) / math.sqrt(2 * math.pi * smooth)
        inner = np.abs(t - place) < 10 * math.sqrt(variance)
        assert np.abs(totals[inner] - 1).max() <= z

    def test_at_the_variances_in_use_the_factor_is_nothing(self) -> None:
        """2 d (tau + 4 z) of each step, for 10^8 coordinates, 10^6 steps and 1,000 hospitals."""
        coordinates, steps, shares = 1e8, 1e6, 1000
        log_z = math.log(3) - 2 * math.pi**2 * SMOOTH
        log_tau = math.log(10 * shares) - 2 * math.pi**2 * LEAST_VARIANCE / 2
        together = np.logaddexp(log_tau, math.log(4) + log_z) + math.log(2 * coordinates * steps)
        assert together < -800 * math.log(10)

    @pytest.mark.parametrize("multiplier", [0.7, 3.0])
    def test_it_is_charged_as_that_gaussian(self, multiplier: float) -> None:
        one = line(GAUSSIAN, counted=3)
        deviation = math.sqrt(3 * variance_of_one(one, multiplier) - SMOOTH) / sensitivity(one)[0]
        for rate, steps in ((0.2, 30), (1.0, 4)):
            plain = accounting.epsilon(PoissonGaussian(rate, deviation, steps), DELTA * (1 - SHARE_OF_DELTA))
            assert plain <= epsilon(one, rate, multiplier, steps, DELTA) <= plain * (1 + 1e-9)

    def test_noise_below_that_variance_is_charged_as_none(self) -> None:
        assert epsilon(line(GAUSSIAN, bound=4), 0.1, 0.5, 1, DELTA) == math.inf


CASES = list(itertools.product((0.05, 0.5, 1.0), (0.7, 2.0), (1, 4)))


class TestCharged:
    @both
    @pytest.mark.parametrize(("rate", "multiplier", "steps"), CASES)
    def test_never_less_than_one_dimension_leaks_in_either_direction(
        self, distribution: str, rate: float, multiplier: float, steps: int
    ) -> None:
        """Hockey-stick divergences, composed by convolution."""
        one = line(distribution)
        own = multiplier / math.sqrt(one.counted)
        charged = epsilon(one, rate, own, steps, DELTA)
        with_it, without = release(one, own, rate)
        assert spared([(with_it, without)] * steps, charged) <= DELTA
        assert spared([(without, with_it)] * steps, charged) <= DELTA
        if distribution == GAUSSIAN:
            assert spared([(with_it, without)] * steps, charged * 0.97) > DELTA

    @pytest.mark.parametrize(("rate", "multiplier", "steps"), [(0.34, 1.5, 3), (1.0, 1.0, 2)])
    def test_every_accountant_is_a_bound_but_pld(self, rate: float, multiplier: float, steps: int) -> None:
        for distribution in BOTH:
            one = line(distribution, counted=1)
            by_rdp = epsilon(one, rate, multiplier, steps, DELTA, "rdp")
            assert spared([release(one, multiplier, rate)] * steps, by_rdp) <= DELTA
            by_pld = epsilon(line(distribution, counted=4), rate, multiplier / 2, steps, DELTA, "pld")
            continuous = PoissonGaussian(rate, multiplier, steps)
            assert by_pld == accounting.epsilon(continuous, DELTA, "pld")
            assert by_pld <= by_rdp
        assert epsilon(line(SKELLAM), rate, multiplier, steps, DELTA, "rdp") == epsilon(
            line(SKELLAM), rate, multiplier, steps, DELTA
        )

    @both
    @pytest.mark.parametrize(("rate", "steps"), [(RATE, STEPS), (1024 / 11959, 1168), (0.01, 100), (1.0, 20)])
    def test_never_below_the_continuous_gaussian_of_the_same_variance(
        self, distribution: str, rate: float, steps: int
    ) -> None:
        """PLD is pessimistic by up to a ten-thousandth."""
        one = network(distribution)
        for multiplier in (1.5, 3.0):
            by_pld = epsilon(one, rate, multiplier, steps, BUDGET_DELTA, "pld")
            assert epsilon(one, rate, multiplier, steps, BUDGET_DELTA) >= by_pld * (1 - 1e-4)

    @both
    def test_the_noise_of_those_counted_adds_up(self, distribution: str) -> None:
        costs = [
            epsilon(line(distribution, counted), 0.3, 2 / math.sqrt(counted), 5, DELTA) for counted in (1, 4, 5)
        ]
        assert costs == pytest.approx([costs[0]] * 3, rel=1e-6)
        less = epsilon(line(distribution, 4), 0.3, 1.0, 5, DELTA)
        assert less < epsilon(line(distribution, 3), 0.3, 1.0, 5, DELTA)

    @both
    def test_nothing_costs_nothing_and_no_noise_everything(self, distribution: str) -> None:
        one = line(distribution)
        for accountant in ("prv", "rdp", "pld"):
            assert epsilon(one, 0.2, 1.0, 0, DELTA, accountant) == 0
            assert epsilon(one, 0.0, 1.0, 9, DELTA, accountant) == 0
            assert epsilon(one, 0.2, 0.0, 9, DELTA, accountant) == math.inf
        assert epsilon_realised(one, 0.2, 0.0, {3: 1}, DELTA) == math.inf
        assert epsilon_realised(one, 0.2, 1.0, {}, DELTA) == 0
        assert epsilon_realised(one, 0.2, 1.0, {3: 0}, DELTA) == 0


class TestWhatTheSamplerMayBeOff:
    def charged(self, coordinates: int, steps: int = 1, hospitals: int = 5, delta: float = DELTA) -> float:
        one = Joint(GAUSSIAN, coordinates, 10**9, 2, hospitals, 10**6)
        return joint._with_errors(one, steps, 1.0, delta)

    def test_each_draw_of_every_hospital_adds_twice_its_error(self) -> None:
        for coordinates, steps, hospitals in ((10**6, 7, 5), (10**9, 2, 30)):
            wanted = 1 + 2 * RELATIVE_ERROR * coordinates * steps * hospitals
            assert self.charged(coordinates, steps, hospitals) == pytest.approx(wanted, rel=1e-15)
        assert self.charged(10**9, 2, 30) > 1 + 1e-4

    def test_where_that_would_count_nothing_is_guaranteed(self) -> None:
        most = int(1e-3 / 2 / RELATIVE_ERROR / 5)
        assert math.isfinite(self.charged(most))
        assert self.charged(most + 1) == math.inf

    def test_what_is_never_drawn_counts_for_delta_with_the_loss_that_it_hides(self) -> None:
        for bound in (0.1, 3.0, 8.0):
            one = Joint(SKELLAM, 10**7, 10**6, 2, 5, 10**6)
            draws = 10**7 * 5
            least = draws * TAIL * (1 + math.exp(bound + 2 * RELATIVE_ERROR * draws)) * 2 / SHARE_OF_DELTA
            assert math.isfinite(joint._with_errors(one, 1, bound, least * 1.001))
            assert joint._with_errors(one, 1, bound, least * 0.999) == math.inf
        assert joint._with_errors(one, 1, math.inf, 0.1) == math.inf
        assert joint._with_errors(one, 1, 5e3, 0.1) == math.inf

    def test_delta_less_its_share_is_what_the_bound_is_taken_at(self) -> None:
        one = line(SKELLAM)
        wanted = joint._bound(one, 0.3, 1.0, 4, DELTA * (1 - 1e-3), "prv")
        assert epsilon(one, 0.3, 1.0, 4, DELTA) == pytest.approx(wanted, rel=1e-9)
        assert epsilon(one, 0.3, 1.0, 4, DELTA) > joint._bound(one, 0.3, 1.0, 4, DELTA, "prv")


class TestCalibration:
    @both
    @pytest.mark.parametrize("budget", [0.5, 2.0, 6.0, 16.0])
    def test_a_budget_is_spent_and_no_more(self, distribution: str, budget: float) -> None:
        one = network(distribution)
        multiplier = noise_multiplier_of_one(one, RATE, STEPS, budget, BUDGET_DELTA)
        cost = epsilon(one, RATE, multiplier, STEPS, BUDGET_DELTA)
        assert budget * (1 - 2e-4) <= cost <= budget

    @both
    def test_one_unsampled_step_too(self, distribution: str) -> None:
        one = network(distribution, 5000)
        multiplier = noise_multiplier_of_one(one, 1.0, 1, 3.0, 1e-5)
        assert 3 * (1 - 2e-4) <= epsilon(one, 1.0, multiplier, 1, 1e-5) <= 3

    def test_too_many_draws_and_too_small_a_budget_are_refused(self) -> None:
        many = Joint(SKELLAM, 10**9, grid_bound(10**9), 6, 10, 1)
        with pytest.raises(InputError, match=r"5\.8e\+12 draws of integer noise are more than"):
            noise_multiplier_of_one(many, RATE, STEPS, 6.0, BUDGET_DELTA)
        for distribution in BOTH:
            with pytest.raises(InputError, match=r"too small for"):
                noise_multiplier_of_one(network(distribution), 1.0, 10_000, 1e-3, 1e-6)
        assert GREATEST_MULTIPLIER > 1


class TestReplaced:
    @both
    @pytest.mark.parametrize(("rate", "multiplier", "steps"), CASES)
    def test_never_less_than_two_opposite_images_tell_in_one_dimension(
        self, distribution: str, rate: float, multiplier: float, steps: int
    ) -> None:
        one = line(distribution)
        own = multiplier / math.sqrt(one.counted)
        found = epsilon_replaced(one, rate, own, steps, DELTA)
        shift, variance = farthest(one), variance_of_one(one, own) * one.counted
        masses = log_masses(distribution, variance, 2 * shift + math.ceil(10 * math.sqrt(variance)))
        plus, minus, absent = masses[: -2 * shift], masses[2 * shift :], masses[shift:-shift]
        pair = mixed(rate, plus, absent), mixed(rate, minus, absent)
        assert spared([pair] * steps, found) <= DELTA
        assert found >= epsilon(one, rate, own, steps, DELTA)
        if distribution == GAUSSIAN and math.isfinite(found):
            assert spared([pair] * steps, found * 0.95) > DELTA

    def test_twice_add_and_remove_is_group_privacy(self) -> None:
        """Of Skellam noise: 2 e at a delta of which (1 + exp(e)) is left, or twice as far without sampling."""
        one = line(SKELLAM)
        found = epsilon_replaced(one, 0.01, 1.0, 5, DELTA)
        share = DELTA * (1 - SHARE_OF_DELTA)
        once = found / 2
        assert joint._bound(one, 0.01, 1.0, 5, share / (1 + math.exp(once)) * (1 + 1e-6), "prv") <= once * 1.001
        assert found < gaussian_epsilon(math.sqrt(2) / 2, 5, DELTA)

    def test_without_sampling_it_is_twice_the_sensitivity(self) -> None:
        one = line(SKELLAM)
        l2, l1 = sensitivity(one)
        variance = variance_of_one(one, 2.0) * one.counted
        for rate in (1.0, 0.999):
            curve = 3 * renyi.skellam(2 * l2, 4 * l1, variance)
            wanted = renyi.epsilon_of_curve(curve, DELTA * (1 - SHARE_OF_DELTA))
            assert epsilon_replaced(one, rate, 2.0, 3, DELTA) == pytest.approx(wanted, rel=1e-9)

    @both
    def test_it_is_finite_where_hospitals_train(self, distribution: str) -> None:
        one = network(distribution)
        multiplier = noise_multiplier_of_one(one, RATE, STEPS, 6.0, BUDGET_DELTA)
        assert math.isfinite(epsilon_replaced(one, RATE, multiplier, STEPS, BUDGET_DELTA))

    def test_nothing_costs_nothing_and_no_noise_everything(self) -> None:
        one = line(GAUSSIAN)
        assert epsilon_replaced(one, 0.2, 1.0, 0, DELTA) == 0
        assert epsilon_replaced(one, 0.2, 0.0, 3, DELTA) == math.inf

    def test_nothing_costs_nothing_with_skellam_noise_too(self) -> None:
        assert epsilon_replaced(line(SKELLAM), 0.2, 1.0, 0, DELTA) == 0

    def test_no_noise_costs_everything_with_skellam_noise_too(self) -> None:
        with np.errstate(divide="ignore"):
            assert epsilon_replaced(line(SKELLAM), 0.2, 0.0, 3, DELTA) == math.inf


class TestRealised:
    @both
    @pytest.mark.parametrize(("rate", "multiplier"), [(0.05, 0.7), (0.5, 1.5), (1.0, 2.0)])
    def test_rounds_with_other_survivors_cost_no_less_than_they_leak(
        self, distribution: str, rate: float, multiplier: float
    ) -> None:
        one = line(distribution)
        rounds = {2: 2, 3: 1, 5: 2}
        found = epsilon_realised(one, rate, multiplier, rounds, DELTA)
        pairs = [release(one, multiplier, rate, honest) for honest, steps in rounds.items() for _ in range(steps)]
        assert spared(pairs, found) <= DELTA
        assert spared([(without, with_it) for with_it, without in pairs], found) <= DELTA
        assert found <= epsilon(one, rate, multiplier, 5, DELTA)

    @both
    def test_never_above_what_was_charged_and_less_with_every_survivor_more(self, distribution: str) -> None:
        one = network(distribution)
        charged = epsilon(one, RATE, 3.0, STEPS, BUDGET_DELTA)
        costs = [
            epsilon_realised(one, RATE, 3.0, rounds, BUDGET_DELTA)
            for rounds in ({6: STEPS}, {6: 200, 8: STEPS - 200}, {8: STEPS}, {9: 84, 10: 500}, {10: STEPS})
        ]
        assert charged == costs[0]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < charged

    def test_of_unlike_rounds_the_lesser_of_two_bounds(self) -> None:
        one = line(SKELLAM)
        mixture = epsilon_realised(one, 0.3, 1.0, {2: 3, 5: 90}, DELTA)
        assert mixture < 0.9 * epsilon(one, 0.3, 1.0, 93, DELTA)
        gaussian = line(GAUSSIAN)
        fewest = epsilon(replace(gaussian, counted=4), 0.3, 1.0, 93, DELTA)
        assert epsilon_realised(gaussian, 0.3, 1.0, {4: 3, 5: 2}, DELTA) <= fewest
        alike = epsilon(replace(gaussian, counted=5), 0.3, 1.0, 90, DELTA)
        assert epsilon_realised(gaussian, 0.3, 1.0, {5: 90}, DELTA) == alike
        assert alike < epsilon(replace(gaussian, counted=5), 0.3, 1.0, 90, DELTA, "rdp")

    @both
    def test_the_sums_of_a_hospital_are_counted_with_those_that_it_paid_in_vain(self, distribution: str) -> None:
        one = line(distribution)
        dose = Dose("image", 0.3, 1.0, 2, None, None, DELTA, joint=one)
        found = epsilon_of_sums(dose, 10, [3, 5, 3])
        assert found == pytest.approx(epsilon_realised(one, 0.3, 1.0, {2: 4, 3: 4, 5: 2}, DELTA), rel=1e-12)
        assert epsilon_of_sums(dose, 10, []) == epsilon_of(dose, 10)
        assert found <= epsilon_of(dose, 10)
        thrice = epsilon_realised(one, 0.3, 1.0, {2: 2, 3: 2, 5: 2}, DELTA)
        assert epsilon_of_sums(dose, 6, [2, 5, 3]) == pytest.approx(thrice, rel=1e-12)
        assert epsilon_with_all(dose, 10) == epsilon(replace(one, counted=5), 0.3, 1.0, 10, DELTA)
        assert epsilon_if_replaced(dose, 10) == epsilon_replaced(one, 0.3, 1.0, 10, DELTA)


class TestTheGreatestSum:
    @both
    @pytest.mark.parametrize(("coordinates", "rounds", "steps"), [(1, 1, 1), (300_000, 584, 1), (5000, 20, 3)])
    def test_the_noise_passes_it_as_seldom_as_is_said_and_no_more_seldom_by_far(
        self, distribution: str, coordinates: int, rounds: int, steps: int
    ) -> None:
        one = Joint(distribution, coordinates, 64, 2, 3, 7000)
        dose = Dose("image", 0.1, 0.3, steps, None, None, 1e-5, joint=one)
        signal = 3 * steps * 7000
        reach = greatest_sum(dose, rounds) - signal
        variance = variance_of_one(one, 0.3) * 3 * steps
        logs = log_masses(distribution, variance, reach + math.ceil(8 * math.sqrt(variance)))
        beyond = math.log(2) + float(logsumexp(logs[len(logs) // 2 + reach + 1 :]))
        together = beyond + math.log(coordinates * rounds)
        assert LOG_WRAP - 8 < together <= LOG_WRAP
        assert pytest.approx(-40 * math.log(2)) == LOG_WRAP

    def test_without_noise_it_is_what_all_can_send(self) -> None:
        one = Joint(SKELLAM, 10, 64, 2, 3, 7000)
        assert greatest_sum(Dose("image", 0.1, 0.0, 4, None, None, 1e-5, joint=one), 9) == 3 * 4 * 7000

    @both
    @pytest.mark.parametrize("steps", [1, 3])
    def test_what_hospitals_send_at_most_stays_within(self, distribution: str, steps: int) -> None:
        one = Joint(distribution, 2000, 4096, 2, 3, 9000)
        dose = Dose("image", 0.1, 1.0, steps, None, None, 1e-5, joint=one)
        noise = Stream(KEY)
        most = on_grid(np.full(2000, 1e9), 1.0, dose, Stream(KEY))
        total = sum(add_share(most, dose, noise) for _ in range(3 * steps))
        assert isinstance(total, np.ndarray)
        assert 3 * steps * 9000 < total.max() <= greatest_sum(dose, 1)


class TestHiddenLocalSteps:
    """Why all gradients of a round are taken at its public weights.

    Ten hospitals share out a deviation of 6 a step, in clipping norms; one of them holds 100 images, of which one
    is there or blanked; two steps are made and only the sum of all releases is opened. The image moves the first
    step by C. Of the weights after it the other 99 gradients are +-C by a sign; the image's own is then C again.
    Where those weights are the hospital's own, they carry only its own noise, and 99 gradients shout the sign of
    what it hides far above the noise of all.
    """

    HOSPITALS, JOINT, OTHERS, STEPS = 10, 6.0, 99, 2
    OWN = 6.0 / math.sqrt(10)

    def opened(self, there: float, hidden: bool) -> Reals:
        """Chances of the opened sum to fall between multiples of 1 / 100, over all that a step's noise may be.

        Not hidden, both steps are samples at the same public weights, which the image does not move.
        """
        mesh, reach = 1 / 100, 250
        places = np.arange(-reach, reach, mesh)
        first = np.diff(norm.cdf(np.append(places, reach), there, self.OWN))
        shouted = round(self.OTHERS / mesh)
        above = places > 0.5 - mesh / 2
        second = np.roll(np.where(above, first, 0), shouted) + np.roll(np.where(above, 0, first), -shouted)
        rest = math.sqrt(self.STEPS * self.JOINT**2 - self.OWN**2)
        other = np.diff(norm.cdf(np.append(places, reach) - mesh / 2, there, rest))
        found: Reals = fftconvolve(second if hidden else np.roll(first, shouted), other)
        return found

    def variation(self, hidden: bool) -> float:
        there, blanked = self.opened(1.0, hidden), self.opened(0.0, hidden)
        assert there.sum() == pytest.approx(1, abs=1e-9)
        return float(np.abs(there - blanked).sum()) / 2

    @property
    def allowed(self) -> float:
        """Total variation of two Gaussian releases of joint noise."""
        return float(2 * norm.cdf(math.sqrt(self.STEPS) / self.JOINT / 2) - 1)

    def test_counted_jointly_they_tell_more_than_twice_what_is_allowed(self) -> None:
        assert self.allowed == pytest.approx(0.094, abs=5e-4)
        assert self.variation(hidden=True) == pytest.approx(0.208, abs=5e-4)
        assert self.variation(hidden=True) > 2.2 * self.allowed

    def test_what_they_tell_is_what_the_hospitals_own_noise_hides(self) -> None:
        by_own_noise = 2 * norm.cdf(1 / self.OWN / 2) - 1
        assert by_own_noise <= self.variation(hidden=True) <= by_own_noise + 1e-3

    def test_gradients_at_public_weights_tell_no_more_than_is_allowed(self) -> None:
        assert self.variation(hidden=False) == pytest.approx(self.allowed, abs=1e-6)

    @both
    def test_what_is_charged_holds_at_public_weights_and_not_for_hidden_steps(self, distribution: str) -> None:
        """By the package's own accounting of two such releases."""
        one = Joint(distribution, 1, 2**16, self.HOSPITALS, self.HOSPITALS, 10**9)
        delta = 0.02
        charged = epsilon(one, 1.0, self.OWN, self.STEPS, delta)

        def told(hidden: bool) -> float:
            there, blanked = (self.opened(value, hidden) for value in (1.0, 0.0))
            return float(np.maximum(there - math.exp(charged) * blanked, 0).sum())

        assert told(hidden=False) <= delta
        assert told(hidden=True) > 2 * delta


def test_what_the_accounting_costs_a_real_network_is_never_a_saving() -> None:
    one = network(GAUSSIAN)
    gaps = [epsilon(one, RATE, 2.4, STEPS, BUDGET_DELTA, accountant) for accountant in ("pld", "prv", "rdp")]
    assert gaps == sorted(gaps)

"""Degree and threshold: how many neighbours hold a hospital's shares, and how many of them open its secrets.

The rule is that of Google's `federated-compute` for the graph of Bell et al. (CCS 2020): 40 bits of security,
20 bits of correctness, over the random choice of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_fed.secagg.errors import UnsafeParametersError

Server = Literal["semi_honest", "semi_malicious"]

SMALLEST_COHORT = 3  # the sum of two tells each of them the other's vector
SMALLEST_THRESHOLD = 2
COMPLETE_BELOW = 16
LOG_SECURITY = -41 * math.log(2)  # 40 bits, shared by two ways to fail
LOG_CORRECTNESS = -20 * math.log(2)


@dataclass(frozen=True)
class Parameters:
    """A graph and a threshold.

    Args:
        hospitals: in a session. degree: neighbours of each. threshold: shares that open a secret.
        own_share: whether a hospital in a ring holds a share of its own secrets too; `choose` decides.
    """

    hospitals: int
    degree: int
    threshold: int
    own_share: bool = False

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree >= self.hospitals - 1

    @property
    def owner_holds_one(self) -> bool:
        """Whether a hospital holds a share of its own secrets: in the complete graph, and in some rings.

        By the rule for a ring, 2 * threshold may equal degree + corrupt + 1, and then the owner's own share would
        be the one that lets a lying server open both of its secrets.
        """
        return self.complete or self.own_share

    @property
    def holders(self) -> int:
        """Hospitals that hold shares of one hospital's secrets."""
        return self.degree + self.owner_holds_one


@dataclass(frozen=True)
class Assumption:
    """What is assumed of a session.

    Args:
        adversary_rate: share of the hospitals that collude with the server. dropout_rate: share that drops out.
        server: `semi_honest`, or `semi_malicious`: it may lie about who is alive once the keys are out.
        population: all hospitals, where a session takes some of them only: the adversary is one of all, and may
            have chosen who takes part. None: everybody takes part.
    """

    adversary_rate: float = 0.1
    dropout_rate: float = 0.1
    server: Server = "semi_malicious"
    population: int | None = None

    def corrupt(self, hospitals: int) -> int:
        """Hospitals of a session that collude, rounded down."""
        return min(_share_of(self.adversary_rate, self.population or hospitals), hospitals)

    def dropped(self, hospitals: int) -> int:
        """Hospitals that drop out, rounded down."""
        return _share_of(self.dropout_rate, hospitals)

    @property
    def feasible(self) -> bool:
        """Whether any graph can hold: g + d <= 0.9 for an honest server, g + 2d <= 0.9 for a lying one."""
        adversaries, dropouts = Fraction(str(self.adversary_rate)), Fraction(str(self.dropout_rate))
        lying = self.server == "semi_malicious"
        return adversaries + (2 if lying else 1) * dropouts <= Fraction(9, 10)


def _share_of(rate: float, hospitals: int) -> int:
    """floor(rate * hospitals) of the rate as it is written: 0.29 of 100 is 29, not 28.999...."""
    return math.floor(Fraction(str(rate)) * hospitals)


def rule(hospitals: int, assumption: Assumption) -> Parameters:
    """The smallest even degree that holds, and its threshold, taking the rates as they are.

    Rates at which no hospital is corrupt give rows such as (2, 2), which say nothing of security; `choose`
    assumes one at least.

    Raises:
        UnsafeParametersError: no degree holds at these rates.
    """
    if hospitals < SMALLEST_COHORT:
        raise UnsafeParametersError(
            f"{hospitals} hospitals: the sum of two tells each the other's; take {SMALLEST_COHORT} or more"
        )
    if assumption.feasible:
        corrupt, dropped = assumption.corrupt(hospitals), assumption.dropped(hospitals)
        odds = _odds(hospitals)
        for degree in range(2, hospitals, 2):
            bounds = odds.threshold_bounds(degree, corrupt, dropped, assumption.server)
            if odds.connected(degree, corrupt + dropped) and bounds.least <= bounds.most:
                return Parameters(hospitals, degree, max(bounds.least, SMALLEST_THRESHOLD))
    raise UnsafeParametersError(
        f"no graph of {hospitals} hospitals holds with {assumption.adversary_rate:g} corrupt and "
        f"{assumption.dropout_rate:g} dropping out under a {assumption.server} server; lower one of the rates"
    )


def complete_graph(hospitals: int) -> Parameters:
    """Everybody is everybody's neighbour, and more than two thirds open a secret."""
    return Parameters(hospitals, hospitals - 1, 2 * hospitals // 3 + 1)


def choose(
    hospitals: int, assumption: Assumption, degree: int | None = None, threshold: int | None = None
) -> Parameters:
    """The parameters of a session: those asked for, else the complete graph below 16 hospitals and the rule above.

    A degree alone gets the least threshold that holds, a threshold alone the graph of the default.

    Raises:
        UnsafeParametersError: what was asked for does not hold, with the reason and the nearest that does.
    """
    wanted = unchecked(hospitals, assumption, degree, threshold)
    reason = objection(wanted, assumption)
    if reason is None:
        return wanted
    raise UnsafeParametersError(
        f"degree {wanted.degree} and threshold {wanted.threshold} are unsafe for {hospitals} hospitals: {reason}; "
        + _advice(wanted, assumption)
    )


def unchecked(
    hospitals: int, assumption: Assumption, degree: int | None = None, threshold: int | None = None
) -> Parameters:
    """As `choose`, whether it holds or not."""
    if hospitals < SMALLEST_COHORT:
        raise UnsafeParametersError(
            f"{hospitals} hospitals: the sum of two tells each the other's; take {SMALLEST_COHORT} or more"
        )
    default = _default(hospitals, assumption)
    if degree is None:
        degree = default.degree
        threshold = default.threshold if threshold is None else threshold
    if degree % 2 and degree < hospitals - 1:
        raise UnsafeParametersError(
            f"degree {degree} is odd: a ring has as many neighbours on either side; take {degree - 1 or 2} "
            f"or {degree + 1}, or {hospitals - 1} for the complete graph"
        )
    degree = min(degree, hospitals - 1)
    if threshold is None:
        threshold = _bounds(Parameters(hospitals, degree, 0), assumption).least
        if degree == hospitals - 1:
            threshold = max(threshold, complete_graph(hospitals).threshold)
    wanted = Parameters(hospitals, degree, threshold)
    wanted = replace(wanted, own_share=not wanted.complete and _bears_own_share(wanted, assumption))
    most = degree + wanted.complete
    if degree < 2 or not SMALLEST_THRESHOLD <= threshold <= most:
        raise UnsafeParametersError(
            f"degree {degree} with threshold {threshold} cannot work: a hospital has 2 neighbours or more, and "
            f"{SMALLEST_THRESHOLD} to {most} shares open a secret"
        )
    return wanted


def _bears_own_share(ring: Parameters, assumption: Assumption) -> bool:
    """Whether a ring stays safe if hospitals hold shares of their own secrets."""
    corrupt = assumption.corrupt(ring.hospitals) or 1
    odds = _odds(ring.hospitals)
    near = odds.corrupt_neighbours(ring.degree, min(corrupt, ring.hospitals))
    if assumption.server == "semi_honest":
        return ring.threshold > near + 1
    return 2 * ring.threshold > ring.degree + 1 + near


def _default(hospitals: int, assumption: Assumption) -> Parameters:
    if hospitals >= COMPLETE_BELOW:
        try:
            return rule(hospitals, _at_least_one_adversary(hospitals, assumption))
        except UnsafeParametersError:
            pass  # a complete graph may hold where no ring does
    complete = complete_graph(hospitals)
    return replace(complete, threshold=max(complete.threshold, _bounds(complete, assumption).least))


def _at_least_one_adversary(hospitals: int, assumption: Assumption) -> Assumption:
    if assumption.corrupt(hospitals) > 0:
        return assumption
    one = float(Fraction(1, hospitals))
    while math.floor(Fraction(str(one)) * hospitals) < 1:  # a decimal may fall just short of 1/n
        one = math.nextafter(one, 1.0)
    return replace(assumption, adversary_rate=one, population=None)


def objection(parameters: Parameters, assumption: Assumption) -> str | None:
    """Why these parameters do not hold, or None where they do."""
    hospitals = parameters.hospitals
    assumption = _at_least_one_adversary(hospitals, assumption)
    corrupt, dropped = assumption.corrupt(hospitals), assumption.dropped(hospitals)
    if not parameters.complete and not _odds(hospitals).connected(parameters.degree, corrupt + dropped):
        return (
            f"with {corrupt} corrupt and {dropped} dropping out, a hospital's neighbours could all be among them"
        )
    bounds = _bounds(parameters, assumption)
    if parameters.threshold < bounds.least:
        kind = "an honest" if assumption.server == "semi_honest" else "a lying"
        return f"with {corrupt} corrupt, {kind} server could open a single vector below {bounds.least} shares"
    if parameters.threshold > bounds.most:
        return f"with {dropped} dropping out, only {bounds.most} shares are sure to come together"
    return None


def _bounds(parameters: Parameters, assumption: Assumption) -> Bounds:
    hospitals = parameters.hospitals
    assumption = _at_least_one_adversary(hospitals, assumption)
    corrupt, dropped = assumption.corrupt(hospitals), assumption.dropped(hospitals)
    if not parameters.complete:
        bounds = _odds(hospitals).threshold_bounds(parameters.degree, corrupt, dropped, assumption.server)
        return Bounds(max(bounds.least, SMALLEST_THRESHOLD), bounds.most)
    least = (hospitals + corrupt) // 2 + 1 if assumption.server == "semi_malicious" else corrupt + 2
    return Bounds(max(least, SMALLEST_THRESHOLD), hospitals - dropped)


def _advice(wanted: Parameters, assumption: Assumption) -> str:
    nearest = nearest_safe(wanted, assumption)
    rates = rates_that_hold(wanted)
    parts = []
    if nearest is not None:
        parts.append(f"the nearest that holds is degree {nearest.degree}, threshold {nearest.threshold}")
    else:
        parts.append("nothing holds at these rates: lower secagg.adversary_rate or secagg.dropout_rate")
    parts.append(f"{wanted.degree}/{wanted.threshold} itself {rates}")
    return "; ".join(parts)


def nearest_safe(wanted: Parameters, assumption: Assumption) -> Parameters | None:
    """The parameters that hold with the degree nearest to that wanted (a larger one first), then the threshold."""
    hospitals = wanted.hospitals
    degrees = sorted(
        {*range(2, hospitals - 1, 2), hospitals - 1}, key=lambda degree: (abs(degree - wanted.degree), -degree)
    )
    for degree in degrees:
        bounds = _bounds(Parameters(hospitals, degree, 0), assumption)
        if bounds.least <= bounds.most:
            threshold = min(max(wanted.threshold, bounds.least), bounds.most)
            candidate = Parameters(hospitals, degree, threshold)
            if objection(candidate, assumption) is None:
                return candidate
    return None


def rates_that_hold(parameters: Parameters) -> str:
    """In words: the largest numbers of corrupt hospitals and of dropouts at which these parameters hold."""
    found = []
    for server in ("semi_malicious", "semi_honest"):
        pairs = list(_pairs_that_hold(parameters, server))
        if pairs:
            corrupt, dropped = max(pairs, key=lambda pair: (pair[0] > 0, min(pair), sum(pair)))
            adversaries, dropouts = (_rounded_down(count, parameters.hospitals) for count in (corrupt, dropped))
            found.append(
                f"with an adversary rate up to {adversaries} and a dropout rate up to {dropouts} under a {server} "
                "server"
            )
    return "holds " + ", or ".join(found) if found else "holds at no rates"


def _rounded_down(count: int, hospitals: int) -> Decimal:
    """A rate to be read: three digits, and never a hospital more than `count`."""
    return Context(prec=3, rounding=ROUND_DOWN).divide(Decimal(count), Decimal(hospitals))


def _pairs_that_hold(parameters: Parameters, server: Server) -> Iterator[tuple[int, int]]:
    """For each number of corrupt hospitals, the greatest number of dropouts at which the parameters hold."""
    hospitals = parameters.hospitals
    dropped = hospitals - 1
    for corrupt in range(1, hospitals):
        while dropped >= 0:  # more corrupt hospitals never allow more dropouts
            exact = Assumption(_rate(corrupt, hospitals), _rate(dropped, hospitals), server)
            if objection(parameters, exact) is None:
                break
            dropped -= 1
        if dropped < 0:
            return
        yield corrupt, dropped


def _rate(count: int, hospitals: int) -> float:
    """A rate whose share of the hospitals, rounded down, is `count`."""
    return (count + 0.5) / hospitals if count else 0.0


@dataclass(frozen=True)
class Bounds:
    """The thresholds that hold: `least` for security, `most` for correctness."""

    least: int
    most: int


@lru_cache(maxsize=8)
def _odds(hospitals: int) -> _Odds:
    return _Odds(hospitals)


class _Odds:
    """Probabilities over a random ring of n hospitals, in logarithms."""

    def __init__(self, hospitals: int) -> None:
        self.hospitals = hospitals
        self.log_factorial: NDArray[np.float64] = np.array([math.lgamma(i + 1) for i in range(hospitals + 1)])

    def connected(self, degree: int, bad: int) -> bool:
        """Whether a ring without its bad hospitals stays in one piece, but for 2^-41."""
        n, log_factorial = self.hospitals, self.log_factorial
        if degree > bad or degree >= n - 1:
            return True
        if bad >= n:
            return False
        log_pairs = math.log(n * (n - degree - 1) / 2)
        log_cut = log_factorial[bad] + log_factorial[n - degree] - log_factorial[n] - log_factorial[bad - degree]
        return bool(log_pairs + log_cut <= LOG_SECURITY)

    def threshold_bounds(self, degree: int, corrupt: int, dropped: int, server: Server) -> Bounds:
        """The thresholds at which neither too many corrupt nor too few surviving neighbours meet."""
        n = self.hospitals
        secure = self.corrupt_neighbours(degree, corrupt)
        alive = np.cumsum(self._chances(n - dropped, degree))
        correct = int(np.argmax(alive >= math.exp(LOG_CORRECTNESS) / n))
        if server == "semi_malicious":
            secure = math.ceil((secure + degree - 1.25) / 2)
        return Bounds(secure + 1, correct)

    def corrupt_neighbours(self, degree: int, corrupt: int) -> int:
        """The most corrupt neighbours that a hospital has, but for 2^-41 over all of them."""
        colluding = self._chances(corrupt, degree)
        beyond = np.append(np.cumsum(colluding[::-1])[::-1][1:], 0.0)  # P[X > t] for t = 0 ... degree
        return int(np.argmax(beyond <= math.exp(LOG_SECURITY) / self.hospitals))

    def _chances(self, marked: int, drawn: int) -> NDArray[np.float64]:
        """Hypergeometric: P[X = 0 ... drawn] of marked hospitals among `drawn` of all n."""
        n, log_factorial = self.hospitals, self.log_factorial
        hits = np.arange(max(0, drawn - (n - marked)), min(drawn, marked) + 1)
        log_chance = (self._log_choose(marked, hits) + self._log_choose(n - marked, drawn - hits)) - (
            log_factorial[n] - log_factorial[drawn] - log_factorial[n - drawn]
        )
        chances = np.zeros(drawn + 1)
        chances[hits] = np.exp(log_chance)
        return chances

    def _log_choose(self, top: int, bottom: NDArray[np.int64]) -> NDArray[np.float64]:
        log_factorial = self.log_factorial
        result: NDArray[np.float64] = log_factorial[top] - log_factorial[bottom] - log_factorial[top - bottom]
        return result

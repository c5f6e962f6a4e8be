"""From the hospitals' updates to their mean, by each protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lightning_fed.errors import DivergedError
from lightning_fed.experiment import Experiment, Federation
from lightning_fed.federation.aggregator import Shards, ShardsLostError
from lightning_fed.federation.crew import Crew
from lightning_fed.federation.enrolment import directory_of, encoding_of, terms_of
from lightning_fed.federation.faults import LAST_BEFORE_UPLOAD, uploads
from lightning_fed.federation.robust import bound, median, trimmed_mean
from lightning_fed.federation.strategy import mean_update
from lightning_fed.models.vector import Vector
from lightning_fed.privacy.dose import Dose
from lightning_fed.secagg.additive import add_up
from lightning_fed.secagg.conductor import LOST_AT, STAGES, Conductor
from lightning_fed.secagg.errors import RoundAbortedError
from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.secagg.keys import Directory
from lightning_fed.secagg.masks import Words
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.parameters import SMALLEST_COHORT
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.server import Session

WORDS_OF_A_SHARD = 2**21
"""Integers that are worth a process of their own."""

Reach = Callable[[str, Mapping[int, tuple[Any, ...]]], Mapping[int, Any]]
"""Call a method of hospitals' sites with arguments by hospital; results by hospital, without the lost ones."""


MeanOf = Callable[[Words, tuple[int, ...]], Vector]
"""From an opened sum and the hospitals in it to their mean update, or gradient, float32 (parameters,)."""


@dataclass(frozen=True)
class Aggregate:
    """A round's mean update, or gradient.

    Args:
        mean: float32 (parameters,), weighted as the experiment says. counted: the hospitals in it, ascending.
    """

    mean: Vector
    counted: tuple[int, ...]


class Aggregation(Protocol):
    """One protocol, round by round: `begin`, a `take` for each hospital that sent, `close`."""

    outside: dict[int, str]
    """The hospitals that missed a set-up which serves later rounds too, and the stage of each."""

    @property
    def fewest(self) -> int:
        """The fewest hospitals that can give a sum."""
        ...

    @property
    def lost(self) -> Mapping[int, str]:
        """The hospitals that were lost in the round, and the stage of each."""
        ...

    @property
    def refusals(self) -> Sequence[str]:
        """What hospitals said no to."""
        ...

    def begin(self, round: int, cohort: Sequence[int], gone: Mapping[int, str]) -> list[int]:
        """Before the training: who is to train and send.

        Args:
            cohort: hospitals of the round, ascending. gone: those that drop out on purpose, and their stages.

        Raises:
            RoundAbortedError: too few hospitals are left.
        """
        ...

    def absent(self, hospitals: Iterable[int]) -> None:
        """The processes of some hospitals are lost, with all that they had not written down."""
        ...

    @property
    def parts(self) -> int:
        """In how many parts a hospital sends its update in this round."""
        ...

    def take(self, hospital: int, weight: int, parts: tuple[Any, ...]) -> None:
        """A hospital has sent."""
        ...

    def close(self) -> Aggregate:
        """The mean of what was sent.

        Raises:
            RoundAbortedError: too few hospitals are left, or what they say does not fit; nothing is opened.
        """
        ...


class PlainAggregation:
    """The server holds every update in clear.

    Args:
        fetch: the value of what a hospital left at a distance: an update (parameters,).
        federation: how updates are combined.
    """

    parts = 1
    fewest = 1

    def __init__(self, fetch: Callable[[Any], Vector], federation: Federation) -> None:
        self.fetch, self.federation = fetch, federation
        self.outside: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        self.refusals: list[str] = []

    def begin(self, round: int, cohort: Sequence[int], gone: Mapping[int, str]) -> list[int]:
        """All that are not gone before they send."""
        self.lost = {hospital: stage for hospital, stage in gone.items() if not uploads(stage)}
        self._sent: dict[int, tuple[int, Any]] = {}
        self._expected = [hospital for hospital in cohort if hospital not in self.lost]
        self._round, self.refusals = round, []
        return self._expected

    def absent(self, hospitals: Iterable[int]) -> None:
        """They do their work again when they are back."""

    def take(self, hospital: int, weight: int, parts: tuple[Any, ...]) -> None:
        """A hospital has sent."""
        self._sent[hospital] = weight, parts[0]

    def close(self) -> Aggregate:
        """What those that sent have in common, taken in the order of hospitals.

        Where a few may mean harm, an update that is not finite is left out.
        """
        missing = [hospital for hospital in self._expected if hospital not in self._sent]
        self.lost.update(dict.fromkeys(missing, LAST_BEFORE_UPLOAD))
        if not self._sent:
            raise RoundAbortedError("no hospital sent an update")
        counted: list[int] = []
        combined = self._combine(self._updates(counted))
        self._sent = {}
        return Aggregate(combined, tuple(counted))

    def _updates(self, counted: list[int]) -> Iterator[tuple[int, Vector]]:
        """Weights and bounded updates; `counted` is told whose."""
        wary = self.federation.aggregator != "mean" or self.federation.norm_bound is not None
        fetched = ((one, self._sent[one][0], self.fetch(self._sent[one][1])) for one in sorted(self._sent))
        for hospital, weight, update in fetched:
            if wary and not np.isfinite(update).all():
                self.refusals.append(f"hospital {hospital}: its update is not finite, and is left out")
                continue
            counted.append(hospital)
            yield weight, bound(update, self.federation.norm_bound)
        if not counted:
            raise DivergedError(f"round {self._round}: no update is finite any more; lower training.lr")

    def _combine(self, updates: Iterable[tuple[int, Vector]]) -> Vector:
        if self.federation.aggregator == "mean":
            return mean_update(updates)
        alike = [update for _, update in updates]
        if self.federation.aggregator == "median":
            return median(alike)
        try:
            return trimmed_mean(alike, self.federation.trim, self.federation.enough)
        except ValueError as error:
            raise RoundAbortedError(f"federation.trim: {error}") from error


class SecAggPlus:
    """SecAgg+: the server opens the sum of the survivors and nothing else.

    Args:
        terms, directory: of the experiment. rounds: of the whole run. shards: the aggregator.
        reach: calls `secagg` at the hospitals' sites. mean_of: an opened sum and its survivors -> their mean.
    """

    def __init__(
        self, terms: Terms, directory: Directory, rounds: int, shards: Shards, reach: Reach, mean_of: MeanOf
    ) -> None:
        self.terms, self.rounds, self.shards, self.reach, self.mean_of = terms, rounds, shards, reach, mean_of
        self.conductor = Conductor(terms, directory, self._ask)
        self.session: Session | None = None
        self.outside: dict[int, str] = {}
        self._uploaded: list[int] = []
        self._broken: str | None = None

    @property
    def fewest(self) -> int:
        """Those whose sum hospitals help to open."""
        return self.terms.least_survivors

    @property
    def lost(self) -> dict[int, str]:
        """The hospitals that were lost in the round, and the stage of each."""
        return self.conductor.lost

    @property
    def refusals(self) -> list[str]:
        """What hospitals said no to."""
        return [f"hospital {refusal.hospital}: {refusal.reason}" for refusal in self.conductor.refusals]

    @property
    def parts(self) -> int:
        """A slice for each shard."""
        return self.shards.count

    def begin(self, round: int, cohort: Sequence[int], gone: Mapping[int, str]) -> list[int]:
        """Set up a session unless the present one serves this round too."""
        self._round, self._gone = round, gone
        self._uploaded, self._broken = list[int](), None
        self.conductor.forget()
        session, self.session = self.session, None
        if session is None or not session.serves(round):
            session = self._set_up(round, cohort)
        self.session = session
        self.conductor.lost.update(self.outside)
        try:
            self.shards.begin(self.terms.length, self.terms.encoding.ring_bits)
        except ShardsLostError as error:
            raise RoundAbortedError(str(error)) from error
        there = (hospital for hospital in session.sharers if self._is_there(hospital, "receive"))
        return [hospital for hospital in there if hospital not in self.outside]

    def _set_up(self, round: int, cohort: Sequence[int]) -> Session:
        """Exchange keys for the rounds that are left of a block; its blocks end at the same rounds in every run.

        Who missed the block's first set-up is out for all of its rounds, also where a resumed run or one that
        could not open a round has to begin anew; unless too few are left without them.
        """
        every = self.terms.rounds_per_setup
        done = (round - 1) % every
        outside = dict(self.outside) if done else {}
        self.outside = dict(outside)
        there = [hospital for hospital in cohort if hospital not in outside]
        if len(there) < self.fewest:  # they could open no sum for the rest of the block: everybody begins anew
            outside, there = {}, list(cohort)
            self.outside = {}
        try:
            session = self.conductor.set_up(there, round, min(every - done, self.rounds - round + 1))
        except RoundAbortedError:
            self.outside = outside
            raise
        self.outside = outside | self.conductor.lost
        return session

    def absent(self, hospitals: Iterable[int]) -> None:
        """A hospital's keys for the present session are gone with its process."""
        for hospital in hospitals:
            self.outside[hospital] = LAST_BEFORE_UPLOAD
            if hospital not in self._uploaded:
                self.conductor.lost.setdefault(hospital, LAST_BEFORE_UPLOAD)

    def take(self, hospital: int, weight: int, parts: tuple[Any, ...]) -> None:
        """A hospital's masked slices go on to the shards."""
        if self._broken is not None:
            return
        try:
            self.shards.add(hospital, parts)
            self._uploaded.append(hospital)
        except ShardsLostError as error:
            self._broken = str(error)

    def close(self) -> Aggregate:
        """Open the sum; a round that cannot be opened ends its session."""
        assert self.session is not None
        session, self.session = self.session, None
        try:
            uploaded = self.shards.added()
            if self._broken is not None:
                raise ShardsLostError(self._broken)
            unmasking = self.conductor.open(session, self._round, uploaded)
            total = self.shards.open(unmasking.masks)
        except ShardsLostError as error:
            raise RoundAbortedError(str(error)) from error
        mean = self.mean_of(total, unmasking.survivors)
        self.session = session
        return Aggregate(mean, unmasking.survivors)

    def _ask(self, method: str, messages: Mapping[int, Any]) -> Mapping[int, Any]:
        there = {
            hospital: (method, sent) for hospital, sent in messages.items() if self._is_there(hospital, method)
        }
        return self.reach("secagg", there)

    def _is_there(self, hospital: int, method: str) -> bool:
        stage = self._gone.get(hospital)
        return stage is None or STAGES.index(stage) > STAGES.index(LOST_AT[method])


class AdditiveAggregation:
    """n-of-n additive sharing: hospitals add up each other's shares, the server adds up their sums.

    Args:
        encoding: of the vectors. length: integers of one. reach: calls `add_shares` at the hospitals' sites.
    """

    fewest = SMALLEST_COHORT

    def __init__(self, encoding: Encoding, length: int, reach: Reach) -> None:
        self.encoding, self.length, self.reach = encoding, length, reach
        self.outside: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        self.refusals: list[str] = []

    @property
    def parts(self) -> int:
        """A share for each hospital that takes part."""
        return len(self._expected)

    def begin(self, round: int, cohort: Sequence[int], gone: Mapping[int, str]) -> list[int]:
        """All but those that are gone before anything is shared; whoever is gone later stops the round."""
        self.lost = dict(gone)
        self._expected = [hospital for hospital in cohort if gone.get(hospital) != STAGES[0]]
        self._sent: dict[int, tuple[Any, ...]] = {}
        if len(self._expected) < SMALLEST_COHORT:
            raise RoundAbortedError(f"{len(self._expected)} hospitals share; {SMALLEST_COHORT} are needed")
        return [hospital for hospital in self._expected if hospital not in gone]

    def absent(self, hospitals: Iterable[int]) -> None:
        """They do their work again when they are back."""

    def take(self, hospital: int, weight: int, parts: tuple[Any, ...]) -> None:
        """A hospital has shared its vector out."""
        self._sent[hospital] = parts

    def close(self) -> Aggregate:
        """The sum of the sums; with one hospital missing there is none."""
        missing = [hospital for hospital in self._expected if hospital not in self._sent]
        self.lost = dict.fromkeys(missing, LAST_BEFORE_UPLOAD) | self.lost
        if missing:
            names = ", ".join(map(str, missing))
            raise RoundAbortedError(f"additive sharing cannot do without hospital {names}")
        received = {
            hospital: tuple(self._sent[sender][place] for sender in self._expected)
            for place, hospital in enumerate(self._expected)
        }
        self._sent = {}
        sums = self.reach("add_shares", received)
        self.lost.update({hospital: STAGES[-1] for hospital in self._expected if hospital not in sums})
        if len(sums) < len(self._expected):
            raise RoundAbortedError("additive sharing cannot do without a hospital that was lost")
        mean, _ = self.encoding.decode(add_up(sums.values(), self.length), len(self._expected))
        return Aggregate(mean, tuple(self._expected))


def mean_update_of(encoding: Encoding) -> MeanOf:
    """The weighted mean of quantised updates."""

    def decode(total: Words, survivors: tuple[int, ...]) -> Vector:
        return encoding.decode(total, len(survivors))[0]

    return decode


def mean_gradient_of(encoding: IntegerSum, doses: Sequence[Dose], max_grad_norm: float) -> MeanOf:
    """The sum of noised gradients over the public nominal batch of the hospitals that are in it."""
    from lightning_fed.privacy.joint import mean_gradient  # SciPy, which other mechanisms do not need

    def decode(total: Words, survivors: tuple[int, ...]) -> Vector:
        batch = sum(doses[hospital].batch * doses[hospital].steps for hospital in survivors)
        return mean_gradient(encoding.decode(total), max_grad_norm, doses[survivors[0]], batch)

    return decode


def open_aggregation(
    experiment: Experiment,
    parameters: int,
    doses: Sequence[Dose] | None,
    crew: Crew,
    slots: int,
    reach: Reach,
) -> Aggregation:
    """The protocol that an experiment asks for, with its aggregator.

    Args:
        experiment: enrolled. parameters: length of an update. doses: of the hospitals. crew: has the aggregator's
            shards. slots: how much work runs at the same time. reach: calls the hospitals' sites.
    """
    if experiment.secagg.protocol == "plain":
        if experiment.teacher is not None:
            return PlainAggregation(lambda sent: crew.fetch(sent).expand(), experiment.federation)
        return PlainAggregation(crew.fetch, experiment.federation)
    if experiment.secagg.protocol == "additive":
        encoding = encoding_of(experiment)
        return AdditiveAggregation(encoding, encoding.length(parameters), reach)
    terms = terms_of(experiment, parameters, doses[0] if doses else None)
    useful = max(1, min(terms.length // WORDS_OF_A_SHARD, slots))
    shards = crew.open_shards(experiment.secagg.shards or useful)
    if isinstance(terms.encoding, IntegerSum):
        assert doses is not None
        mean_of = mean_gradient_of(terms.encoding, doses, experiment.privacy.max_grad_norm)
    else:
        mean_of = mean_update_of(terms.encoding)
    return SecAggPlus(terms, directory_of(experiment), experiment.federation.rounds, shards, reach, mean_of)

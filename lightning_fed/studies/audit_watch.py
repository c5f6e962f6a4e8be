"""Where hospitals and the server of a real federation are watched: what goes in, and what they let out."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lightning_fed.federation.aggregation import SecAggPlus
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.protection import (
    DistributedProtection,
    Permit,
    RecordProtection,
    SampledProtection,
    UpdateProtection,
)
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.optimizer import build_optimizer
from lightning_fed.models.vector import to_vector
from lightning_fed.privacy.dose import Dose
from lightning_fed.privacy.engine import HospitalOptimizer

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """What a release holds beside noise, recomputed.

    Args:
        signal: sum of what was clipped, in units of C (parameters,). drawn: images that were drawn for it.
        served: images that went in. longer: of them, those whose gradients were longer than C. as_drawn: whether
            the batches are those that were drawn.
    """

    signal: Reals
    drawn: int = 0
    served: int = 0
    longer: int = 0
    as_drawn: bool = True

    def __add__(self, other: Held) -> Held:
        return Held(
            self.signal + other.signal,
            self.drawn + other.drawn,
            self.served + other.served,
            self.longer + other.longer,
            self.as_drawn and other.as_drawn,
        )


@dataclass(frozen=True)
class Release:
    """What the adversary receives, in units of the clipping norm C.

    Args:
        hospitals: whose it is: one, or all whose sum it is. round: counted from 1. vector: (parameters,).
        held: what it holds beside noise; None where that was not recomputed.
    """

    hospitals: tuple[int, ...]
    round: int
    vector: Reals
    held: Held | None


@dataclass
class Watch:
    """What is looked at.

    Args:
        seen: told of each release. members: coordinates of the canaries that are in each hospital's data set;
            each has C at its own coordinate as its gradient. recompute: clipped sums, image by image, of so many
            steps of a hospital's round. counts: of each sample the images that may be in it, its rate, and those
            that are. differences: of updates that left from what the steps that were seen give.
    """

    seen: Callable[[Release], None]
    members: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    recompute: int = 0
    counts: list[tuple[int, float, int]] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)


def attach(
    hospital: Hospital,
    watch: Watch,
    members: NDArray[np.int64],
    classifier: Classifier,
    sums: dict[tuple[int, int], Held],
) -> None:
    """Watch a hospital.

    Args:
        members: coordinates of its canaries. classifier: of its kind, to recompute with. sums: receives what goes
            into a sum that others see, by round and hospital.
    """
    protection = hospital.protection
    if isinstance(protection, UpdateProtection):
        _watch_updates(hospital, watch)
        return
    assert isinstance(protection, SampledProtection)
    drawn = Draws(protection, members, watch.counts)
    recomputed = (
        Recomputed(hospital, drawn, copy.deepcopy(classifier), watch.recompute) if watch.recompute else None
    )
    if isinstance(protection, RecordProtection):
        replay = Replay(hospital, copy.deepcopy(classifier), watch.differences) if watch.recompute else None
        _watch_steps(hospital, protection, watch, drawn, recomputed, replay)
    elif isinstance(protection, DistributedProtection):
        _watch_samples(hospital, protection, drawn, recomputed, sums)


class Draws:
    """Canaries among the images that a hospital samples.

    Args:
        protection: that draws. members: coordinates of its canaries. counts: told of each sample.

    Attributes:
        canaries: coordinates of those in each step of the round. images: the images in each.
    """

    def __init__(
        self, protection: SampledProtection, members: NDArray[np.int64], counts: list[tuple[int, float, int]]
    ) -> None:
        self.canaries: list[NDArray[np.int64]] = []
        self.images: list[NDArray[np.int64]] = []
        plan, images = protection.plan, protection.images

        def with_canaries(permit: Permit) -> Any:
            protection.images = images + len(members)
            try:
                found = plan(permit)
            finally:
                protection.images = images
            counts.extend((images + len(members), protection.dose.rate, len(draw)) for draw in found.draws)
            self.canaries = [members[draw[draw >= images] - images] for draw in found.draws]
            self.images = [draw[draw < images] for draw in found.draws]
            return replace(found, draws=tuple(self.images), images=images)

        protection.plan = with_canaries  # type: ignore[method-assign]

    def as_served(self, hospital: Hospital) -> bool:
        """Whether the batches of the round are what was drawn."""
        plan: Any = hospital.images.plan
        given = getattr(plan, "draws", ())
        return len(given) == len(self.images) and all(map(np.array_equal, given, self.images))


class Recomputed:
    """A hospital's clipped sums by another way: one image at a time, on a network without hooks.

    Args:
        hospital: whose batches are listened to. drawn: what they should hold. classifier: of its kind, for this
            alone. most: steps of a round.
    """

    def __init__(self, hospital: Hospital, drawn: Draws, classifier: Classifier, most: int) -> None:
        self.hospital, self.drawn, self.classifier, self.most = hospital, drawn, classifier, most
        self._batches: list[tuple[Tensor, Tensor]] = []
        step = hospital.classifier.training_step

        def training_step(batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # Lightning asks for that name
            self._batches.append(batch)
            return step(batch, batch_idx)

        hospital.classifier.training_step = training_step  # type: ignore[method-assign, assignment]

    def take(self, steps: Sequence[int]) -> Held | None:
        """What some steps of the round hold, at the present weights; None beyond `most`."""
        batches, self._batches = self._batches, []
        if min(steps) >= self.most:
            return None
        experiment, network = self.hospital.experiment, self.classifier.network
        network.load_state_dict(self.hospital.classifier.network.state_dict())
        self.classifier.train()
        parameters = [one for one in network.parameters() if one.requires_grad]
        total, views = np.zeros(sum(one.numel() for one in parameters)), experiment.training.views
        served = longer = 0
        for images, labels in batches:
            for start in range(0, len(labels), views):
                rows = slice(start, start + views)
                loss = functional.cross_entropy(self.classifier(images[rows]), labels[rows])
                gradient = flat(torch.autograd.grad(loss, parameters)) / experiment.privacy.max_grad_norm
                length = float(np.linalg.norm(gradient))
                total += gradient / max(1.0, length)
                served, longer = served + 1, longer + (length > 1)
        for step in steps:
            np.add.at(total, self.drawn.canaries[step], 1.0)
        drawn = sum(len(self.drawn.images[step]) for step in steps)
        return Held(total, drawn, served, longer, self.drawn.as_served(self.hospital))


class Replay:
    """A hospital's optimizer once more, on what was seen of its steps: whether its update is made of nothing else.

    Args:
        hospital: whose. classifier: of its kind, for this alone. differences: told of each round, relative.
    """

    def __init__(self, hospital: Hospital, classifier: Classifier, differences: list[float]) -> None:
        self.hospital, self.network = hospital, classifier.network
        self._optimizer: torch.optim.Optimizer | None = None
        take = hospital.take_update

        def taken() -> Any:
            released = take()
            made = to_vector(self.network) - self._before
            length = max(float(np.linalg.norm(made)), 1e-12)
            differences.append(float(np.linalg.norm(released - made)) / length)
            self._optimizer = None
            return released

        hospital.take_update = taken  # type: ignore[method-assign]

    def step(self, optimizer: HospitalOptimizer, gradients: Sequence[Tensor]) -> None:
        """A step is about to be taken.

        Args:
            optimizer: the hospital's own. gradients: noised sums over the nominal batch.
        """
        experiment = self.hospital.experiment
        if self._optimizer is None:
            self.network.load_state_dict(self.hospital.classifier.network.state_dict())
            self._before = to_vector(self.network).copy()
            self._anchors = [one.detach().clone() for one in self.network.parameters()]
            self._optimizer = build_optimizer(self.network.parameters(), experiment.training)
            self._optimizer.load_state_dict(copy.deepcopy(optimizer.original_optimizer.state_dict()))
        for own, group in zip(self._optimizer.param_groups, optimizer.param_groups, strict=True):
            own["lr"] = group["lr"]
        trained = [one for one in self.network.parameters() if one.requires_grad]
        for one, gradient in zip(trained, gradients, strict=True):
            one.grad = gradient.clone()
        if experiment.federation.strategy == "fedprox":
            for one, anchor in zip(self.network.parameters(), self._anchors, strict=True):
                if one.grad is not None:
                    one.grad += experiment.federation.proximal_mu * (one.detach() - anchor)
        self._optimizer.step()


def _round(hospital: Hospital) -> int:
    plan: Any = hospital.images.plan
    return int(plan.round)


def flat(tensors: Iterable[Tensor]) -> Reals:
    """Some tensors' numbers one after another, float64."""
    return np.concatenate([one.detach().cpu().double().numpy().ravel() for one in tensors])


def _watch_steps(
    hospital: Hospital,
    protection: RecordProtection,
    watch: Watch,
    drawn: Draws,
    recomputed: Recomputed | None,
    replay: Replay | None,
) -> None:
    """`record`: each noised sum, of which the accountant assumes that all are seen."""
    optimizer, bound = protection.engine.optimizer, hospital.experiment.privacy.max_grad_norm
    add_noise = optimizer.add_noise
    parameters: list[nn.Parameter] = optimizer.params
    done: list[int] = [0, 0]  # the round, and its steps

    def noised() -> None:
        round = _round(hospital)
        done[:] = [round, done[1] + 1 if done[0] == round else 0]
        held = None if recomputed is None else recomputed.take([done[1]])
        if len(drawn.canaries[done[1]]):
            _add_canaries(parameters, drawn.canaries[done[1]], bound)
        add_noise()
        sums = [one.grad for one in parameters if one.grad is not None]
        if replay is not None:
            replay.step(optimizer, [one / protection.dose.batch for one in sums])
        watch.seen(Release((hospital.number,), round, flat(sums) / bound, held))

    optimizer.add_noise = noised  # type: ignore[method-assign]


def _add_canaries(parameters: Sequence[nn.Parameter], coordinates: NDArray[np.int64], bound: float) -> None:
    """The bound at some coordinates of the clipped sums."""
    canaries = np.zeros(sum(one.numel() for one in parameters), dtype=np.float32)
    np.add.at(canaries, coordinates, bound)
    place = 0
    for one in parameters:
        part = torch.from_numpy(canaries[place : place + one.numel()]).view_as(one).to(one)
        place += one.numel()
        before = one.summed_grad  # type: ignore[attr-defined]
        one.summed_grad = part if before is None else before + part  # type: ignore[attr-defined]


def _watch_samples(
    hospital: Hospital,
    protection: DistributedProtection,
    drawn: Draws,
    recomputed: Recomputed | None,
    sums: dict[tuple[int, int], Held],
) -> None:
    """`distributed`: what goes into the sum of all; nothing of it is seen."""
    engine, bound = protection.engine, hospital.experiment.privacy.max_grad_norm
    take = engine.take

    def with_canaries() -> list[Reals]:
        made = take()
        if recomputed is not None:
            held = recomputed.take(range(len(drawn.images)))
            if held is not None:
                sums[_round(hospital), hospital.number] = held
        for one, coordinates in zip(made, drawn.canaries, strict=True):
            np.add.at(one, coordinates, bound)
        return made

    engine.take = with_canaries  # type: ignore[method-assign]


def watch_sums(aggregation: SecAggPlus, dose: Dose, watch: Watch, sums: dict[tuple[int, int], Held]) -> None:
    """`distributed`: the sum that secure aggregation opens."""
    mean_of, joint = aggregation.mean_of, dose.joint
    assert joint is not None
    rounds = itertools.count(1)

    def opened(total: Any, survivors: tuple[int, ...]) -> Any:
        encoding: Any = aggregation.terms.encoding
        round = next(rounds)
        parts = [sums.pop((round, hospital)) for hospital in survivors if (round, hospital) in sums]
        held = reduce(operator.add, parts) if len(parts) == len(survivors) else None
        watch.seen(Release(survivors, round, encoding.decode(total) / joint.bound, held))
        return mean_of(total, survivors)

    aggregation.mean_of = opened


def _watch_updates(hospital: Hospital, watch: Watch) -> None:
    """`update`: the hospital's update."""
    do, take, bound = hospital.work.do, hospital.take_update, hospital.experiment.privacy.max_grad_norm
    made: list[Reals] = []

    def worked(*arguments: Any) -> Any:
        update = do(*arguments)
        made[:] = [np.asarray(update, np.float64) / bound]
        return update

    def taken() -> Any:
        released = take()
        length = float(np.linalg.norm(made[0]))
        held = Held(made[0] / max(1.0, length), longer=int(length > 1))
        vector = np.asarray(released, np.float64) / bound
        watch.seen(Release((hospital.number,), _round(hospital), vector, held))
        return released

    hospital.work.do = worked  # type: ignore[method-assign, assignment]
    hospital.take_update = taken  # type: ignore[method-assign]

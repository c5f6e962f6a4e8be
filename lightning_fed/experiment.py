"""The typed experiment: one frozen dataclass for each subsystem, validated on construction.

`Experiment()` is `configs/quickstart.yaml`; a test keeps the two equal.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_fed.checks import in_range, literals, not_negative, positive
from lightning_fed.errors import InputError
from lightning_fed.secagg.errors import UnsafeParametersError
from lightning_fed.secagg.parameters import (
    SMALLEST_COHORT,
    Assumption,
    Parameters,
    choose,
    objection,
    rates_that_hold,
    unchecked,
)

GREATEST_SEED = 2**63 - 1
MOST_SHARDS = 1024
CHANGEABLE = ("ray", "tracking", "faults.max_failed_rounds")
PLACES = ("output", "data.root", "data.download", "model.start")
NO_ACCOUNTANTS = {
    "gdp": "a central limit, which can fall below the true epsilon, is no guarantee",
    "rdp": "it is shown beside prv, and would stop a run that prv calibrated before its end",
}


def may_change(key: str) -> bool:
    """Whether a key, or a section, may change when a run goes on: no weight depends on it."""
    return key != "ray.gpus_per_hospital" and f"{key}.".startswith(tuple(f"{name}." for name in CHANGEABLE))


@dataclass(frozen=True)
class Data:
    """Which images there are and how the hospitals share them out.

    Args:
        name: `bloodcells` (procedural), any 2-D single-label MedMNIST set such as `bloodmnist`, or `path`.
        root: folder of MedMNIST files (null: MedMNIST's own); for `path`, an npz file or a folder of pictures.
        size: height and width in pixels.
        images: training images to draw, for `bloodcells` only.
        download: fetch a MedMNIST file that is not in `root`.
        partition: `iid`, `quantity` (the paper's), `dirichlet` or `shards`.
        alpha: concentration of `dirichlet`; smaller is more unequal.
        classes_per_hospital: shards that each hospital receives under `shards`.
        min_images: the fewest images that a hospital may hold.
        partition_seed: the split's own seed, so that `seed` changes the training and not the hospitals.
        validation: share that each hospital holds out to tell its own accuracy.
    """

    name: str = "bloodcells"
    root: str | None = None
    size: int = 28
    images: int = 4000
    download: bool = True
    partition: Literal["iid", "quantity", "dirichlet", "shards"] = "dirichlet"
    alpha: float = 5.0
    classes_per_hospital: int = 2
    min_images: int = 20
    partition_seed: int = 42
    validation: float = 0.2

    def __post_init__(self) -> None:
        literals("data", self)
        positive("data", images=self.images, alpha=self.alpha, min_images=self.min_images)
        positive("data", classes_per_hospital=self.classes_per_hospital)
        in_range("data", 8, 1024, size=self.size)
        in_range("data", 0, 2**32 - 1, partition_seed=self.partition_seed)
        in_range("data", 0, 0.9, validation=self.validation)


@dataclass(frozen=True)
class Model:
    """The network that every hospital trains.

    Args:
        name: `dpresnet`, `resnet9`, `resnet18`; `scatternet_linear`, `scatternet_cnn`: a linear layer or a small
            CNN on fixed wavelet features (Tramer and Boneh 2021, arXiv 2011.11660). Ignored when `class_path` is
            set.
        width: channels of the first convolution (the paper's DPResNet: 64); `scatternet_linear` has none.
        norm: `group` or `batch`, for the two comparison ResNets; the other networks always use groups.
        stem: of `resnet18`: `small`, a 3x3 convolution that keeps the size, or a 7x7 with stride 2 and a pooling,
            `max_pool` (He et al. 2016) or `average_pool` (PriMIA: Kaissis et al. 2021).
        standardise_weights: convolve with each filter at mean 0 and variance 1 (Qiao et al. 2019,
            arXiv 1903.10520).
        norm_after_sum: a group norm after each residual sum (Klause et al. 2022, arXiv 2203.00324).
        test_time_augmentation: once trained, answer with the mean of the logits over an image's eight flips and
            quarter turns (Krizhevsky et al. 2012 did so over crops and flips); it sees no other image, so it
            costs no privacy, and eight times the time of an answer.
        class_path: your own `torch.nn.Module`, as `package.module.Class`; built with
            `in_channels` and `num_classes` and `init_args`.
        init_args: further keyword arguments of that class.
        start: another run's `model.ckpt` of the same network, from whose weights the federation starts; under a
            guarantee they must come from public images, such as procedural cells.
        pretrained: `bloodcells` trains the network on procedural cells before the first round, once for each
            network and `seed`; no image of a hospital is used, so that it costs no privacy (Tang et al. 2023,
            arXiv 2306.06076).
    """

    name: str = "dpresnet"
    width: int = 8
    norm: Literal["group", "batch"] = "group"
    stem: Literal["small", "max_pool", "average_pool"] = "small"
    standardise_weights: bool = False
    norm_after_sum: bool = False
    test_time_augmentation: bool = False
    class_path: str | None = None
    init_args: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    pretrained: Literal["bloodcells"] | None = None

    def __post_init__(self) -> None:
        literals("model", self)
        in_range("model", 2, 4096, width=self.width)
        if self.width % 2:
            raise InputError(f"model.width is {self.width}: it must be even, for the group norms")
        if self.stem != "small" and (self.class_path is not None or self.name != "resnet18"):
            raise InputError(f"model.stem is '{self.stem}': only resnet18 has one to choose; leave it out")
        if self.pretrained is not None and self.start is not None:
            raise InputError("model.start: model.pretrained gives weights to start from too; leave one out")


@dataclass(frozen=True)
class Training:
    """How a hospital trains in its rounds.

    Args:
        optimizer: any class of `torch.optim` by name.
        lr: learning rate at its greatest.
        batch_size: images in a step.
        momentum: for optimizers that have one (SGD, RMSprop).
        weight_decay: the optimizer's own.
        optimizer_options: its further keyword arguments, such as `{betas: [0.5, 0.99]}`.
        augment: flips and quarter turns, drawn anew for each image and step.
        distort: strength, 0 to 2, of further changes of position, size, colour and sharpness, drawn likewise.
        precision: `32-true` or `bf16-mixed`.
        threads: torch threads of one hospital; part of the result (more threads round otherwise).
        schedule: learning rate over the whole federation: `constant` or `cosine` (down to zero).
        warmup_rounds: rounds, fractions too, of linear growth before the schedule.
        reset_optimizer_state: forget the moments at the start of every round, as the paper's code does.
        views: of each image in each step, each augmented on its own; their gradients are averaged before an
            image's gradient is clipped (augmentation multiplicity: De et al. 2022, arXiv 2204.13650).
    """

    optimizer: str = "AdamW"
    lr: float = 3e-3
    batch_size: int = 16
    momentum: float = 0.0
    weight_decay: float = 0.0
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    augment: bool = True
    distort: float = 0.0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = 1
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_rounds: float = 1.0
    reset_optimizer_state: bool = False
    views: int = 1

    def __post_init__(self) -> None:
        literals("training", self)
        positive("training", lr=self.lr, batch_size=self.batch_size, threads=self.threads, views=self.views)
        not_negative("training", weight_decay=self.weight_decay, warmup_rounds=self.warmup_rounds)
        in_range("training", 0, 1, momentum=self.momentum)
        in_range("training", 0, 2, distort=self.distort)


@dataclass(frozen=True)
class Distillation:
    """FedMIC's teachers, and how much of a student's update travels (Ren et al. 2024, arXiv 2407.02261).

    Args:
        teacher, teacher_width: each hospital's own network, which stays there; `model` is the student.
        energy_first, energy_last: share of each layer's squared singular values that is sent in the first and in
            the last round; it grows in between.
    """

    teacher: str = "resnet18"
    teacher_width: int = 16
    energy_first: float = 0.9
    energy_last: float = 0.98

    def __post_init__(self) -> None:
        name = "federation.distillation"
        in_range(name, 2, 4096, teacher_width=self.teacher_width)
        if self.teacher_width % 2:
            raise InputError(f"{name}.teacher_width is {self.teacher_width}: it must be even, for the group norms")
        in_range(name, 0.01, 1, energy_first=self.energy_first, energy_last=self.energy_last)
        if self.energy_last < self.energy_first:
            raise InputError(f"{name}.energy_last is below energy_first; let it be that or more")

    def energy(self, round: int, rounds: int) -> float:
        """Of a round, counted from 1."""
        return self.energy_first + (self.energy_last - self.energy_first) * (round - 1) / max(rounds - 1, 1)


@dataclass(frozen=True)
class Federation:
    """Who takes part and how their updates become the next global model.

    Args:
        hospitals: how many there are.
        rounds: rounds of the whole run.
        local_epochs: passes over a hospital's images in one round.
        local_steps: optimizer steps in one round instead of `local_epochs`.
        participation: share of the hospitals in each round, drawn from `seed`; at least one.
        over_selection: so many times as many are asked, and the round closes when its share has come in (Bonawitz
            et al. 2019, arXiv 1902.01046); 1 waits for all that are asked.
        round_timeout: seconds after which a round no longer waits for hospitals that train, simulated ones under
            `faults.stragglers`; null waits.
        strategy: `fedavg` (McMahan et al. 2017), `fedprox` (Li et al. 2020) or `fedmic` (Ren et al. 2024), which
            keeps a teacher in each hospital and sends low-rank updates.
        proximal_mu: weight of FedProx's local term.
        distillation: of `fedmic`.
        server_optimizer: any class of `torch.optim`, applied to the mean update as a gradient
            (Reddi et al. 2021: Adam is FedAdam; SGD with momentum is FedAvgM); null takes the mean itself.
        server_lr: its learning rate.
        server_options: its further keyword arguments, such as `{betas: [0.9, 0.99], eps: 0.001}`.
        weighting: of a hospital in the mean, by its `images` or `equal`.
        weights: a whole number for each hospital instead, made public by being here; empty goes by `weighting`.
        aggregator: of the updates: `mean`, or, coordinate by coordinate and each hospital alike, `median` or
            `trimmed_mean` (Yin et al. 2018, arXiv 1803.01498), which a few poisoned updates cannot move far; only
            where the server sees each update (`secagg.protocol: plain`).
        trim: share of the hospitals that `trimmed_mean` leaves out at each end.
        norm_bound: Euclidean norm to which each update is clipped (Sun et al. 2019, arXiv 1911.07963); null clips
            none. The server sees to it under `plain`; under masks a hospital does so itself, or lies.
        ema: share of the old in an exponential moving average of the global models, which is then what is
            measured and released, such as 0.9; null releases the last one (Polyak and Juditsky 1992).
    """

    hospitals: int = 10
    rounds: int = 8
    local_epochs: int = 3
    local_steps: int | None = None
    participation: float = 1.0
    over_selection: float = 1.0
    round_timeout: float | None = None
    strategy: Literal["fedavg", "fedprox", "fedmic"] = "fedavg"
    proximal_mu: float = 0.01
    distillation: Distillation = field(default_factory=Distillation)
    server_optimizer: str | None = None
    server_lr: float = 1.0
    server_options: dict[str, Any] = field(default_factory=dict)
    weighting: Literal["images", "equal"] = "images"
    weights: list[int] = field(default_factory=list)
    aggregator: Literal["mean", "median", "trimmed_mean"] = "mean"
    trim: float = 0.2
    norm_bound: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        literals("federation", self)
        positive("federation", hospitals=self.hospitals, rounds=self.rounds, local_epochs=self.local_epochs)
        positive("federation", local_steps=self.local_steps, participation=self.participation)
        positive("federation", server_lr=self.server_lr)
        if self.server_options and self.server_optimizer is None:
            raise InputError("federation.server_options: there is no federation.server_optimizer to take them")
        in_range("federation", 0, 1, participation=self.participation)
        in_range("federation", 1, 10, over_selection=self.over_selection)
        positive("federation", round_timeout=self.round_timeout)
        not_negative("federation", proximal_mu=self.proximal_mu)
        in_range("federation", 0, 0.49, trim=self.trim)
        positive("federation", norm_bound=self.norm_bound)
        if self.aggregator != "mean" and self.weights:
            raise InputError(
                f"federation.weights: aggregator '{self.aggregator}' counts hospitals alike; leave them out"
            )
        positive("federation", ema=self.ema)
        if self.ema is not None:
            in_range("federation", 0, 0.9999, ema=self.ema)
        if self.weights and len(self.weights) != self.hospitals:
            raise InputError(
                f"federation.weights: {len(self.weights)} for {self.hospitals} hospitals; "
                "give one for each, or none"
            )
        if any(weight < 1 for weight in self.weights):
            raise InputError("federation.weights: each must be 1 or greater")

    @property
    def enough(self) -> int:
        """Hospitals that a round waits for."""
        return max(1, round(self.participation * self.hospitals))

    @property
    def cohort_size(self) -> int:
        """Hospitals that are asked in each round."""
        return min(math.ceil(self.over_selection * self.enough - 1e-9), self.hospitals)

    def weight(self, hospital: int, images: int) -> int:
        """What a hospital of so many images counts in the mean."""
        if self.weights:
            return self.weights[hospital]
        return images if self.weighting == "images" else 1


@dataclass(frozen=True)
class Privacy:
    """Differential privacy: what is protected, and how much of it the whole run may spend.

    Args:
        mechanism: `none` protects nothing. `record` protects each image: DP-SGD in the hospital (Abadi et al.
            2016). `update` protects each hospital: its clipped update with Gaussian noise (the paper's local DP).
            `distributed` protects each image: a round is one step of DP-SGD at its public weights, whose noise the
            hospitals share out and add as integers inside the SecAgg+ sum (Kairouz, Liu & Steinke 2021).
        epsilon, delta: budget of each hospital for the whole run, all rounds and steps; null epsilon needs
            `noise_multiplier`, and both give a run that stops when the budget is spent.
        noise: false adds none under `update`, as the paper's published code did; nothing is guaranteed then.
        noise_multiplier: standard deviation of the noise over the sensitivity, under `distributed` of the noise
            that is counted on in the sum; null calibrates it to `epsilon`.
        max_grad_norm: C, to which an image's gradient or a hospital's update is clipped.
        adjacency: neighbours differ in one image (for `update`: one hospital) that is there or is taken out, so
            that it gives a zero gradient (or update).
        sensitivity: of an update, C where a hospital is blanked (`zero_out`), 2 C where it is replaced by any
            other (`replace_one`, for hospitals that trust nobody).
        sample_rate: chance of each image in each step; null takes `training.batch_size` over the images of the
            hospital, under `distributed` of all hospitals.
        physical_batch_size: images in memory at once; noise is added once for each sampled batch.
        clipping: `one_pass`, or Opacus's `hooks`, `ghost`, `functorch`.
        accountant: `prv` (Gopi et al. 2021) calibrates and enforces; `rdp` and PLD are shown beside it.
        participations: the most rounds that one hospital takes part in; null counts every round.
        reproducible: derive noise, sampling and rounding from `seed` and not from the operating system, so that a
            run repeats to the bit: for a simulation only, as whoever knows the seed can take the noise off.
        distribution: of the integers that `distributed` adds: `skellam` (Agarwal et al. 2021) or
            `discrete_gaussian`, which needs less noise for the same epsilon, as a sharper bound is known for it.
        colluding_hospitals: that may tell the server their noise, so that it is not counted on; 1 at least, as
            each knows its own.
        tuning_runs: how many runs on these images these settings were chosen from by their results, this one
            among them; what such a choice costs is told beside epsilon (Papernot & Steinke 2022).
    """

    mechanism: Literal["none", "record", "update", "distributed"] = "none"
    epsilon: float | None = None
    delta: float = 1.9e-4
    noise: bool = True
    noise_multiplier: float | None = None
    max_grad_norm: float = 1.0
    adjacency: Literal["zero_out"] = "zero_out"
    sensitivity: Literal["zero_out", "replace_one"] = "zero_out"
    sample_rate: float | None = None
    physical_batch_size: int = 64
    clipping: Literal["one_pass", "hooks", "ghost", "functorch"] = "one_pass"
    accountant: Literal["prv"] = "prv"
    participations: int | None = None
    reproducible: bool = False
    distribution: Literal["skellam", "discrete_gaussian"] = "skellam"
    colluding_hospitals: int = 1
    tuning_runs: int = 1

    def __post_init__(self) -> None:
        if str(self.accountant) in NO_ACCOUNTANTS:
            raise InputError(
                f"privacy.accountant is '{self.accountant}': {NO_ACCOUNTANTS[self.accountant]}; use prv"
            )
        literals("privacy", self)
        positive("privacy", epsilon=self.epsilon, noise_multiplier=self.noise_multiplier)
        positive("privacy", max_grad_norm=self.max_grad_norm, sample_rate=self.sample_rate)
        positive("privacy", physical_batch_size=self.physical_batch_size, participations=self.participations)
        positive("privacy", tuning_runs=self.tuning_runs)
        if self.sample_rate is not None:
            in_range("privacy", 0, 1, sample_rate=self.sample_rate)
        positive("privacy", delta=self.delta)
        in_range("privacy", 0, 0.5, delta=self.delta)
        if not self.noise and self.mechanism != "update":
            raise InputError("privacy.noise: only mechanism 'update' runs without noise; leave it out")
        if self.colluding_hospitals < 1:
            raise InputError(
                f"privacy.colluding_hospitals is {self.colluding_hospitals}: it must be 1 or greater, as each "
                "hospital knows its own noise in the sums that it is sent"
            )
        if self.by_images and self.sensitivity == "replace_one":
            raise InputError(
                f"privacy.sensitivity 'replace_one' is of an update; under '{self.mechanism}' lower "
                "privacy.epsilon until the replace-one epsilon in the report is what you want"
            )
        if self.mechanism == "update" and self.sample_rate is not None:
            raise InputError("privacy.sample_rate: mechanism 'update' samples no images; leave it out")
        if self.guarantees and self.epsilon is None and self.noise_multiplier is None:
            raise InputError(
                "privacy.epsilon: set the budget of the whole run, such as 6.0, or privacy.noise_multiplier"
            )

    @property
    def guarantees(self) -> bool:
        """Whether noise is added at all."""
        return self.mechanism != "none" and self.noise

    @property
    def by_images(self) -> bool:
        """Whether each image is protected, by steps over Poisson samples."""
        return self.mechanism in ("record", "distributed")

    @property
    def deviation_per_multiplier(self) -> float:
        """Standard deviation of the noise on an update for each unit of the multiplier: its sensitivity."""
        return self.max_grad_norm * (2 if self.sensitivity == "replace_one" else 1)


@dataclass(frozen=True)
class SecAgg:
    """How the hospitals' updates are added up.

    Args:
        protocol: `plain`: the server sees every update. `secagg_plus`: only the sum of the survivors (Bell et al.
            2020). `additive`: only the sum, and no sum at all if one hospital is missing (as PriMIA does).
        degree: neighbours of each hospital; null follows the rule (all below 16 hospitals).
        threshold: shares that open a secret; null follows the rule.
        adversary_rate, dropout_rate: shares of the hospitals that may collude, that may drop out.
        server: `semi_malicious` may lie about who is alive, `semi_honest` may not.
        allow_unsafe: run with a degree and threshold that the rule refuses, with a warning in the records.
        min_survivors: the fewest hospitals whose sum is opened; null takes the threshold.
        rounds_per_setup: rounds that one exchange of keys serves, each with keys of its own.
        clip: greatest magnitude of an update's coordinate; what is beyond is cut and counted.
        bits: of one quantised coordinate, 4 to 25; the sum takes the smallest ring that holds all hospitals.
        max_weight: the most images of one hospital that a vector can carry; null takes the largest hospital's.
        shards: aggregator processes, each with a slice of the vector; null goes by its length and the cluster.
        identities: the hospitals' Ed25519 public keys in hexadecimal, pinned; empty makes new ones for the run.
        stage_timeout: seconds that the server waits for the answers to one message of the protocol; hospitals
            that answer later are lost at that stage.
    """

    protocol: Literal["plain", "secagg_plus", "additive"] = "plain"
    degree: int | None = None
    threshold: int | None = None
    adversary_rate: float = 0.1
    dropout_rate: float = 0.1
    server: Literal["semi_malicious", "semi_honest"] = "semi_malicious"
    allow_unsafe: bool = False
    min_survivors: int | None = None
    rounds_per_setup: int = 1
    clip: float = 4.0
    bits: int = 20
    max_weight: int | None = None
    shards: int | None = None
    identities: list[str] = field(default_factory=list)
    stage_timeout: float = 600.0

    def __post_init__(self) -> None:
        literals("secagg", self)
        positive("secagg", stage_timeout=self.stage_timeout)
        positive("secagg", degree=self.degree, threshold=self.threshold, min_survivors=self.min_survivors)
        positive("secagg", rounds_per_setup=self.rounds_per_setup, max_weight=self.max_weight)
        positive("secagg", shards=self.shards)
        in_range("secagg", 1, MOST_SHARDS, shards=self.shards or 1)
        in_range("secagg", 0, 0.9, adversary_rate=self.adversary_rate, dropout_rate=self.dropout_rate)
        in_range("secagg", 4, 25, bits=self.bits)
        in_range("secagg", 1e-6, 1e6, clip=self.clip)
        if any(len(key) != 64 or set(key) - set("0123456789abcdef") for key in self.identities):
            raise InputError("secagg.identities: each is 64 hexadecimal digits; leave it out to have them made")

    @property
    def masked(self) -> bool:
        """Whether a vector leaves its hospital under masks, so that a round lost cannot be done again alone."""
        return self.protocol == "secagg_plus"

    def assumption(self, federation: Federation) -> Assumption:
        """The rates and the server that the parameters must hold against; the cohort is the adversary's choice."""
        return Assumption(self.adversary_rate, self.dropout_rate, self.server, federation.hospitals)

    def parameters(self, federation: Federation) -> Parameters:
        """Degree and threshold of a session.

        Raises:
            InputError: they do not hold at the stated rates, with the nearest that do.
        """
        decide = unchecked if self.allow_unsafe else choose
        try:
            return decide(federation.cohort_size, self.assumption(federation), self.degree, self.threshold)
        except UnsafeParametersError as error:
            raise InputError(f"secagg: {error}") from error

    def least_survivors(self, federation: Federation) -> int:
        """The fewest hospitals whose sum any of them helps to open."""
        threshold = self.parameters(federation).threshold
        return max(self.min_survivors or threshold, threshold, SMALLEST_COHORT)

    def warning(self, federation: Federation) -> str | None:
        """What is wrong with parameters that run by `allow_unsafe`; None where nothing is."""
        parameters = self.parameters(federation)
        reason = objection(parameters, self.assumption(federation))
        if reason is None:
            return None
        return (
            f"secagg.allow_unsafe: degree {parameters.degree}, threshold {parameters.threshold}: {reason}; "
            f"the choice {rates_that_hold(parameters)}"
        )


@dataclass(frozen=True)
class Loss:
    """One hospital that drops out of one round.

    Args:
        round: counted from 1. hospital: from 0. stage: as in `Dropout`.
    """

    round: int
    hospital: int
    stage: Literal["before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking"] = (
        "after_shares"
    )

    def __post_init__(self) -> None:
        literals("faults.dropout.losses", self)
        positive("faults.dropout.losses", round=self.round)
        not_negative("faults.dropout.losses", hospital=self.hospital)


@dataclass(frozen=True)
class Dropout:
    """Hospitals that drop out of a round and are back in the next.

    Args:
        rate: chance of each hospital in each round, drawn from `seed`.
        stage: where in the round: `before_keys`, `after_keys`, `after_shares` (it does not train), and, once its
            vector is in the sum, `after_masked_input`, `at_unmasking`; `any` draws one of them.
        losses: further ones by name, such as `[{round: 3, hospital: 2, stage: at_unmasking}]`.
    """

    rate: float = 0.0
    stage: Literal["before_keys", "after_keys", "after_shares", "after_masked_input", "at_unmasking", "any"] = (
        "after_shares"
    )
    losses: list[Loss] = field(default_factory=list)

    def __post_init__(self) -> None:
        literals("faults.dropout", self)
        in_range("faults.dropout", 0, 1, rate=self.rate)


@dataclass(frozen=True)
class Stragglers:
    """Simulated speeds: how long a hospital's training would take, whatever this machine takes for it.

    A round's time is `seconds_per_image` for each image of each step, times two log-normal factors of median 1,
    both drawn from `seed`.

    Args:
        seconds_per_image: median; null simulates nothing, and `federation.round_timeout` goes by the clock.
        spread: standard deviation of the first factor's logarithm, one for each hospital and the whole run.
        jitter: of the second's, drawn anew in each round.
    """

    seconds_per_image: float | None = None
    spread: float = 0.5
    jitter: float = 0.25

    def __post_init__(self) -> None:
        positive("faults.stragglers", seconds_per_image=self.seconds_per_image)
        in_range("faults.stragglers", 0, 5, spread=self.spread, jitter=self.jitter)


@dataclass(frozen=True)
class Availability:
    """Hospitals that cannot be asked in a round, as their machines are busy or off.

    Args:
        mean: chance of a hospital in each round, drawn from `seed`. concentration: how alike the hospitals'
            chances are, which are drawn once from Beta(mean * c, (1 - mean) * c); null gives all the mean.
    """

    mean: float = 1.0
    concentration: float | None = None

    def __post_init__(self) -> None:
        in_range("faults.availability", 0.01, 1, mean=self.mean)
        positive("faults.availability", concentration=self.concentration)


@dataclass(frozen=True)
class Poison:
    """Hospitals that send what should harm the model.

    Args:
        hospitals: which, from 0. kind: `sign_flip` sends the update times `-scale`; `random` Gaussian noise of
            `scale` times the update's own norm; `label_flip` trains honestly on images whose labels go backwards
            (the last class for the first), and sends the update times `scale`.
        scale: see `kind`.
    """

    hospitals: list[int] = field(default_factory=list)
    kind: Literal["sign_flip", "random", "label_flip"] = "sign_flip"
    scale: float = 1.0

    def __post_init__(self) -> None:
        literals("faults.poison", self)
        positive("faults.poison", scale=self.scale)
        if len(set(self.hospitals)) < len(self.hospitals):
            raise InputError(f"faults.poison.hospitals: {self.hospitals} names a hospital twice; name it once")


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose, and how much of it a run bears.

    Args:
        dropout: hospitals that drop out. stragglers: that are slow. availability: that cannot be asked.
        poison: that mean harm.
        max_failed_rounds: rounds in a row that may end without a new model.
    """

    dropout: Dropout = field(default_factory=Dropout)
    stragglers: Stragglers = field(default_factory=Stragglers)
    availability: Availability = field(default_factory=Availability)
    poison: Poison = field(default_factory=Poison)
    max_failed_rounds: int = 3

    def __post_init__(self) -> None:
        not_negative("faults", max_failed_rounds=self.max_failed_rounds)


@dataclass(frozen=True)
class Evaluation:
    """Where the global model is measured, and how often.

    Args:
        split: `validation`, or `test` to read the test split every round as the paper does.
        every: rounds from one measurement to the next; the last round is measured in any case.
        batch_size: images in one evaluation step and in one shard of the work.
        diagnostics: hospitals tell loss, clipping, time and accuracy on their own images, exact functions of
            private images that no guarantee covers; false: nothing leaves a hospital beside its update. Who has
            how many images of which class the simulator itself knows, as it shares them out.
    """

    split: Literal["validation", "test"] = "validation"
    every: int = 1
    batch_size: int = 256
    diagnostics: bool = True

    def __post_init__(self) -> None:
        literals("evaluation", self)
        positive("evaluation", every=self.every, batch_size=self.batch_size)


@dataclass(frozen=True)
class Ray:
    """Where the hospitals run.

    Args:
        enabled: false runs the same hospitals one after another in this process.
        address: null starts a local Ray; `auto` joins the running cluster; or `host:port`.
        cpus_per_hospital: CPUs of one hospital while it trains.
        gpus_per_hospital: GPUs (fractions too) of one hospital while it trains.
        hospitals_per_actor: hospitals that share one process and train in turn; the result is the same.
        startup_timeout: seconds to wait for all hospitals to be placed and built.
    """

    enabled: bool = True
    address: str | None = None
    cpus_per_hospital: float = 1.0
    gpus_per_hospital: float = 0.0
    hospitals_per_actor: int = 1
    startup_timeout: float = 300.0

    def __post_init__(self) -> None:
        positive("ray", cpus_per_hospital=self.cpus_per_hospital, startup_timeout=self.startup_timeout)
        positive("ray", hospitals_per_actor=self.hospitals_per_actor)
        in_range("ray", 0, 1, gpus_per_hospital=self.gpus_per_hospital)


@dataclass(frozen=True)
class Tracking:
    """Where the run is recorded beside its own folder.

    Args:
        wandb: `offline` needs no account; `wandb sync` uploads it later. Keys come from the environment only.
        project: W&B project.
        group: W&B group, such as a sweep's name.
        name: W&B run name; null takes the output folder's.
    """

    wandb: Literal["disabled", "offline", "online"] = "offline"
    project: str = "lightning-fed"
    group: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        literals("tracking", self)


@dataclass(frozen=True)
class Experiment:
    """One federation, from its images to its report.

    Args:
        data: images and their split. model: network. training: local training. federation: rounds.
        privacy: mechanism. secagg: aggregation protocol. faults: on purpose. evaluation: measurement.
        ray: placement. tracking: W&B.
        seed: of every random stream but the split's.
        output: the run's folder; null makes a new one under `runs/`.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    federation: Federation = field(default_factory=Federation)
    privacy: Privacy = field(default_factory=Privacy)
    secagg: SecAgg = field(default_factory=SecAgg)
    faults: Faults = field(default_factory=Faults)
    evaluation: Evaluation = field(default_factory=Evaluation)
    ray: Ray = field(default_factory=Ray)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 42
    output: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= GREATEST_SEED:
            raise InputError(f"seed is {self.seed}: it must lie between 0 and {GREATEST_SEED}")
        self._check_secagg()
        self._check_fedmic()
        self._check_robustness()
        self._check_privacy()
        if self.secagg.rounds_per_setup > 1 and self.faults.availability.mean < 1:
            raise InputError(
                "secagg.rounds_per_setup: with faults.availability.mean below 1 the cohort changes from round to "
                "round; set one of the two to 1"
            )
        for loss in self.faults.dropout.losses:
            if loss.round > self.federation.rounds or loss.hospital >= self.federation.hospitals:
                raise InputError(
                    f"faults.dropout.losses: hospital {loss.hospital} in round {loss.round}, but there are "
                    f"hospitals 0 to {self.federation.hospitals - 1} and rounds 1 to {self.federation.rounds}"
                )

    def _check_secagg(self) -> None:
        secagg, federation = self.secagg, self.federation
        if secagg.identities and len(secagg.identities) != federation.hospitals:
            raise InputError(
                f"secagg.identities: {len(secagg.identities)} keys for {federation.hospitals} hospitals; "
                "give one for each, or none"
            )
        if len(set(secagg.identities)) < len(secagg.identities):
            raise InputError("secagg.identities: two hospitals have the same key; give each its own")
        if secagg.protocol == "additive" and federation.cohort_size < SMALLEST_COHORT:
            raise InputError(
                f"secagg.protocol additive: {federation.cohort_size} hospitals in a round; the sum of two tells "
                f"each the other's, so let {SMALLEST_COHORT} or more take part"
            )
        if not secagg.masked:
            return
        if secagg.degree is not None and secagg.degree >= federation.cohort_size:
            raise InputError(
                f"secagg.degree is {secagg.degree}: {federation.cohort_size} hospitals take part, so each has "
                f"{federation.cohort_size - 1} neighbours at most"
            )
        parameters = secagg.parameters(federation)
        if secagg.min_survivors is not None and secagg.min_survivors > parameters.hospitals:
            raise InputError(
                f"secagg.min_survivors is {secagg.min_survivors}: only {parameters.hospitals} hospitals take part"
            )
        least = secagg.least_survivors(federation)
        if federation.over_selection > 1 and least > federation.enough:
            raise InputError(
                f"federation.over_selection: a round closes with {federation.enough} hospitals, but a sum is "
                f"opened of {least} or more; raise federation.participation, or lower over_selection or "
                "secagg.min_survivors"
            )
        if secagg.rounds_per_setup > 1 and federation.cohort_size < federation.hospitals:
            raise InputError(
                "secagg.rounds_per_setup: with federation.participation below 1 the cohort changes from round to "
                "round; set one of the two to 1"
            )

    def _check_fedmic(self) -> None:
        """Raise where FedMIC's updates would have to be masked or protected."""
        if self.federation.strategy != "fedmic":
            return
        if self.secagg.protocol != "plain":
            raise InputError(
                f"secagg.protocol is '{self.secagg.protocol}': fedmic's hospitals send factors, and a sum of "
                "factors is no update; set it to plain"
            )
        if self.privacy.mechanism != "none":
            raise InputError(
                f"privacy.mechanism is '{self.privacy.mechanism}': the size of fedmic's updates tells of the "
                "images; set it to none"
            )
        if not self.evaluation.diagnostics:
            raise InputError(
                "evaluation.diagnostics is false: what fedmic's models are worth, which stay in the hospitals, "
                "is a diagnostic; set it to true"
            )

    def _check_robustness(self) -> None:
        """Raise where a defence, or an attack, cannot work as it is asked for."""
        federation, poison = self.federation, self.faults.poison
        if federation.aggregator != "mean" and self.secagg.protocol != "plain":
            raise InputError(
                f"federation.aggregator is '{federation.aggregator}': the server must see each update, and "
                f"secagg.protocol '{self.secagg.protocol}' hides them; set one of the two to mean or plain"
            )
        if federation.aggregator == "trimmed_mean" and federation.trim * federation.enough < 1 - 1e-9:
            least = math.ceil(1e3 / federation.enough) / 1e3
            raise InputError(
                f"federation.trim is {federation.trim:g}: of {federation.enough} hospitals in a round it "
                f"leaves out none; set it to {least:g} or more, or take the median"
            )
        strangers = [hospital for hospital in poison.hospitals if not 0 <= hospital < federation.hospitals]
        if strangers:
            raise InputError(
                f"faults.poison.hospitals: {strangers[0]} is none of the hospitals 0 to {federation.hospitals - 1}"
            )
        if self.privacy.mechanism == "distributed" and (poison.hospitals or federation.norm_bound is not None):
            raise InputError(
                "faults.poison, federation.norm_bound: under privacy.mechanism 'distributed' hospitals send whole "
                "numbers of clipped gradients and no update; leave them out"
            )

    def _check_privacy(self) -> None:
        privacy = self.privacy
        if not privacy.by_images and self.training.views > 1:
            raise InputError(
                "training.views: only privacy.mechanism 'record' and 'distributed' average views; set it to 1"
            )
        if not privacy.guarantees:
            return
        if self.data.validation:
            raise InputError(
                f"data.validation is {self.data.validation:g}: under a guarantee hospitals hold no images back; "
                "set it to 0 (the set's own validation split measures the rounds)"
            )
        if self.model.norm == "batch" and self.model.name in ("resnet9", "resnet18"):
            raise InputError(
                "model.norm is 'batch': it mixes the images of a batch; set it to group under privacy"
            )
        federation = self.federation
        if privacy.mechanism == "update" and federation.weighting == "images" and not federation.weights:
            raise InputError(
                "federation.weighting is 'images': under update-level privacy a hospital's count is private too; "
                "set it to equal, or give federation.weights"
            )
        if privacy.mechanism == "distributed":
            self._check_distributed()
        if privacy.clipping == "ghost" and self.training.precision != "32-true":
            raise InputError("privacy.clipping 'ghost' takes norms in half precision; use one_pass, or 32-true")
        if privacy.clipping == "ghost" and self.training.views > 1:
            raise InputError(
                "privacy.clipping 'ghost' clips single rows; use one_pass or hooks with training.views"
            )

    def _check_distributed(self) -> None:
        """Raise unless a round is one step at public weights inside a sum that holds enough noise."""
        federation, secagg = self.federation, self.secagg
        if not secagg.masked:
            raise InputError(
                f"secagg.protocol is '{secagg.protocol}': under privacy.mechanism 'distributed' a hospital's own "
                "noise is a share only; set it to secagg_plus"
            )
        if federation.local_steps is None:
            raise InputError(
                "federation.local_steps: under privacy.mechanism 'distributed' a round takes its gradients at the "
                "round's public weights; set it to 1 (more adds further samples at the same weights)"
            )
        if federation.strategy != "fedavg" or federation.server_optimizer is not None:
            raise InputError(
                "federation.strategy, federation.server_optimizer: under privacy.mechanism 'distributed' the "
                "server takes the step by training.optimizer; leave them out"
            )
        if federation.weights or self.training.reset_optimizer_state:
            raise InputError(
                "federation.weights, training.reset_optimizer_state: under privacy.mechanism 'distributed' sums "
                "are added as they are and hospitals have no optimizer; leave them out"
            )
        parameters = secagg.parameters(federation)
        if not parameters.complete:
            raise InputError(
                f"secagg.degree is {parameters.degree}: under privacy.mechanism 'distributed' all must agree on "
                f"who is in the sum; set it to {parameters.hospitals - 1}, every other hospital"
            )
        warning = secagg.warning(federation)
        if warning is not None:
            raise InputError(f"{warning}; under privacy.mechanism 'distributed' leave allow_unsafe out")
        colluding = self.privacy.colluding_hospitals
        assumed = max(secagg.assumption(federation).corrupt(parameters.hospitals), 1)
        if colluding > assumed:
            raise InputError(
                f"privacy.colluding_hospitals is {colluding}, but secagg.adversary_rate counts on {assumed} of "
                f"{parameters.hospitals}; set that to {colluding / parameters.hospitals:.3g} or more"
            )
        least = secagg.least_survivors(federation)
        if parameters.threshold + least <= federation.hospitals + assumed:
            raise InputError(
                f"federation.participation: two sums of {least} of the {federation.hospitals} hospitals could be "
                f"opened in one round, by {parameters.threshold} each, and be paid for once; under "
                "privacy.mechanism 'distributed' let all take part"
            )
        if self.counted_survivors < 1:
            raise InputError(
                f"privacy.colluding_hospitals is {colluding}: nobody's noise is left of the "
                f"{least} that a sum must hold; raise secagg.min_survivors"
            )

    @property
    def teacher(self) -> Model | None:
        """The network that stays in each hospital under `fedmic`."""
        if self.federation.strategy != "fedmic":
            return None
        distillation = self.federation.distillation
        return Model(
            name=distillation.teacher,
            width=distillation.teacher_width,
            test_time_augmentation=self.model.test_time_augmentation,
        )

    @property
    def counted_survivors(self) -> int:
        """Hospitals whose noise is in every opened sum and that do not collude."""
        return self.secagg.least_survivors(self.federation) - self.privacy.colluding_hospitals

    @property
    def real_timeout(self) -> float | None:
        """Seconds that a round's work may take by this machine's clock; None where a simulated one counts."""
        simulated = self.faults.stragglers.seconds_per_image is not None
        return None if simulated else self.federation.round_timeout

    @property
    def closes_by_the_clock(self) -> bool:
        """Whether how long hospitals really train decides whose updates a round counts."""
        simulated = self.faults.stragglers.seconds_per_image is not None
        return not simulated and (self.federation.round_timeout is not None or self.federation.over_selection > 1)

    @property
    def fingerprint(self) -> str:
        """A digest of all that a run's result depends on, so that a run goes on with the settings that it had."""
        sections = self.as_dict()
        values = {
            f"{name}.{key}": value
            for name, section in sections.items()
            if isinstance(section, dict)
            for key, value in section.items()
        } | {name: value for name, value in sections.items() if not isinstance(value, dict)}
        kept = {key: value for key, value in values.items() if not may_change(key) and key not in PLACES}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The experiment as nested plain values, in the order of `experiment.yaml`."""
        return asdict(self)

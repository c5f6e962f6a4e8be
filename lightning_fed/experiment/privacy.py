"""What is protected, and how much the whole run may spend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_fed.checks import in_range, literals, positive
from lightning_fed.errors import InputError

NO_ACCOUNTANTS = {
    "gdp": "a central limit, which can fall below the true epsilon, is no guarantee",
    "rdp": "it is shown beside prv, and would stop a run that prv calibrated before its end",
}


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

"""What goes wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lightning_fed.checks import in_range, literals, not_negative, positive
from lightning_fed.errors import InputError


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

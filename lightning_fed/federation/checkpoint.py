"""The driver's checkpoint after every round: global weights, server optimizer, and the round's record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_fed.errors import InputError
from lightning_fed.federation.state import RoundFiles, read_whole
from lightning_fed.models.vector import Vector
from lightning_fed.tracking.records import TrainedRound


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the driver needs to go on after a round; hospitals keep their own states.

    Args:
        trained: the round, whose evaluation may be missing from `rounds.jsonl` and is then done again.
        weights: global weights (parameters,) after it. server: state of the strategy.
        last_rounds: the last round that each hospital trained in. failed_in_a_row: rounds without a new model.
        outside: hospitals that missed a set-up which serves later rounds too, and the stage of each.
        average: of the rounds' weights, None without one. averaged: rounds in it.
        fingerprint: of the experiment, see `Experiment.fingerprint`.
    """

    trained: TrainedRound
    weights: Vector
    server: dict[str, Any]
    last_rounds: dict[int, int] = field(default_factory=dict)
    failed_in_a_row: int = 0
    outside: dict[int, str] = field(default_factory=dict)
    average: Vector | None = None
    averaged: int = 0
    fingerprint: str = ""

    @property
    def round(self) -> int:
        """The last round that is in the weights."""
        return self.trained.round


class Checkpoints(RoundFiles):
    """`checkpoints/round-00007.pt` of a run folder, the last two kept."""

    def __init__(self, output: Path) -> None:
        super().__init__(output / "checkpoints", "round")
        self.damaged: list[str] = []

    def store(self, checkpoint: Checkpoint) -> Path:
        """Rename the round's checkpoint into place, whole."""
        content = {
            "trained": checkpoint.trained.as_dict(),
            "weights": torch.from_numpy(checkpoint.weights),
            "server": checkpoint.server,
            "last_rounds": checkpoint.last_rounds,
            "failed_in_a_row": checkpoint.failed_in_a_row,
            "outside": checkpoint.outside,
            "average": None if checkpoint.average is None else torch.from_numpy(checkpoint.average),
            "averaged": checkpoint.averaged,
            "fingerprint": checkpoint.fingerprint,
        }
        return self.save(checkpoint.round, content)

    def last(self) -> Checkpoint | None:
        """The newest whole checkpoint, None where no round was finished; `damaged` tells of newer ones.

        Raises:
            InputError: there are checkpoints and none is whole.
        """
        errors = self.damaged = []
        for round in reversed(self.rounds()):
            try:
                content = read_whole(self.path(round))
                trained = TrainedRound.from_dict(content["trained"])
                return Checkpoint(
                    trained,
                    content["weights"].numpy(),
                    content["server"],
                    content["last_rounds"],
                    content["failed_in_a_row"],
                    content["outside"],
                    None if content["average"] is None else content["average"].numpy(),
                    content["averaged"],
                    content["fingerprint"],
                )
            except (InputError, KeyError, TypeError, AttributeError) as error:
                errors.append(str(error))
        if errors:
            raise InputError(f"{self.folder}: no whole checkpoint in it ({errors[0]})")
        return None

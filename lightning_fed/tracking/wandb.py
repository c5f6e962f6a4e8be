"""W&B: one run, in the driver. The only module that imports wandb."""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.tracking.records import RoundRecord
from lightning_fed.tracking.results import Result


def agents_run() -> str | None:
    """The id of the run that a sweep agent has started this process for, None without an agent."""
    return os.environ.get("WANDB_RUN_ID") or None


HEADER, BLOCK = 7, 2**15
"""Bytes of W&B's own file."""
BY_EPSILON = ("accuracy", "balanced_accuracy", "loss")  # what a run bought with its privacy


class WandbRun:
    """Records a run in W&B; does nothing where `tracking.wandb` is `disabled`.

    The run's id is drawn once and kept in `wandb/run-id`: a resumed run goes on in the same one online, and
    adds an offline folder of the same id that `wandb sync` joins to it. A sweep agent's own id wins.

    Args:
        experiment: resolved. output: the run's folder, which holds `wandb/`.

    Raises:
        InputError: W&B cannot be reached online, or knows no key.
    """

    def __init__(self, experiment: Experiment, output: Path) -> None:
        self.run: Any = None
        if experiment.tracking.wandb != "disabled":
            self.run = self._start(experiment, output)

    def _start(self, experiment: Experiment, output: Path) -> Any:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        tracking = experiment.tracking
        try:
            run = wandb.init(
                project=tracking.project,
                group=tracking.group,
                name=tracking.name or output.name,
                id=agents_run() or _kept_id(output),
                resume="allow",
                mode=tracking.wandb,
                dir=str(output),
                config=experiment.as_dict(),
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"tracking.wandb is '{tracking.wandb}', but W&B does not start ({reason}); "
                "run 'wandb login' or set tracking.wandb to offline"
            ) from error
        run.define_metric("round")
        for name in ("released/*", "diagnostic/*", "seconds/*", "secagg/*"):
            run.define_metric(name, step_metric="round")
        if experiment.privacy.guarantees:
            for name in BY_EPSILON:
                run.define_metric(f"released/{name}_by_epsilon", step_metric="released/epsilon")
        return run

    def log_round(self, record: RoundRecord) -> None:
        """One round's metrics, each under its tag, and the hospitals' table."""
        if self.run is None:
            return
        line = record.as_dict()
        numbers: dict[str, Any] = {"round": record.round}
        for tag in ("released", "diagnostic", "seconds"):
            values = {name: value for name, value in line[tag].items() if isinstance(value, int | float)}
            numbers |= {f"{tag}/{name}": value for name, value in values.items()}
        # W&B draws these over epsilon, the ones above over the round.
        if "released/epsilon" in numbers and record.released is not None:
            numbers |= {f"released/{name}_by_epsilon": numbers[f"released/{name}"] for name in BY_EPSILON}
        for kind in ("counted", "dropped"):
            numbers[f"secagg/{kind}"] = len(line["aggregation"][kind])
        if record.train_loss is not None:
            numbers["diagnostic/hospitals"] = self._table(record)
        self.run.log(numbers, step=record.round)

    def _table(self, record: RoundRecord) -> Any:
        import wandb

        scores = {score.hospital: score for score in record.hospitals}
        spent = record.trained.epsilon_by_hospital
        names = ("round", "hospital", "images", "steps", "train_loss", "seconds", "accuracy", "epsilon")
        columns: list[str | int] = list(names)
        table = wandb.Table(columns=columns)
        for fit in record.trained.reports:
            own = scores[fit.hospital].accuracy if fit.hospital in scores else None
            epsilon = spent[fit.hospital] if spent else None
            table.add_data(record.round, fit.hospital, fit.images, fit.steps, fit.loss, fit.seconds, own, epsilon)
        return table

    def __enter__(self) -> WandbRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.run is not None:
            self.run.finish(exit_code=0 if kind is None else 1)

    def forget_aborted(self) -> None:
        """Take back what was told of a run that goes on now."""
        if self.run is not None:
            self.run.summary.update({"epsilon": None, "status": None})

    def summarise(self, result: Result) -> None:
        """Write the summary of a run that has ended."""
        if self.run is not None:
            told = result.as_dict()["test"] or {}
            test = {name: value for name, value in told.items() if isinstance(value, float)}
            self.run.summary.update({f"test/{name}": value for name, value in test.items()})
            self.run.summary.update({"epsilon": result.privacy.epsilon, "status": result.status})
            if result.teachers is not None:
                told = {"test": result.teachers.test_mean, "own": result.teachers.own_mean}
                self.run.summary.update({f"diagnostic/teachers_{name}": mean for name, mean in told.items()})


def _kept_id(output: Path) -> str:
    """The id of this folder's W&B run, drawn where there is none."""
    path = output / "wandb" / "run-id"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(8))
    return path.read_text().strip()


def told_names(path: Path) -> Counter[str]:
    """Names of the values in W&B's own file of a run, and how often each was told.

    The file holds protocol buffers (`wandb_internal.proto`): history, summary, configuration and the machine's
    load are items of a key (field 1), or of a key in parts (field 2, repeated; told by the first), and a value in
    JSON (field 16). A key of 128 bytes or more is not seen.
    """
    content, names, done = _without_framing(path.read_bytes()), Counter[str](), 0
    for found in re.finditer(rb"[\x0a\x12](?=[\x00-\x7f])", content):
        place, tag = found.start(), found.group()
        if place < done:
            continue
        end = _beyond(content, place)
        name = content[place + 2 : end]
        while tag == b"\x12" and content[end : end + 1] == tag:
            end = _beyond(content, end)
        if content[end : end + 2] == b"\x82\x01" and name.isascii() and name.decode().isprintable():
            names[name.decode()] += 1
            done = end + 3  # beyond the length of the value, which may look like a field
    return names


def _without_framing(file: bytes) -> bytes:
    """What the file's records hold: those of LevelDB's log format, in blocks of 32 KiB, which split them.

    Before each piece stand its checksum (4 bytes), its length (2) and its kind (1); 7 bytes begin the file.
    """
    whole, place = bytearray(), HEADER
    while place < len(file):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        length = int.from_bytes(file[place + 4 : place + 6], "little")
        whole += file[place + HEADER : place + HEADER + length]
        place += HEADER + length
    return bytes(whole)


def _beyond(content: bytes, place: int) -> int:
    """Where a field ends that begins there with its tag and its length."""
    return place + 2 + int.from_bytes(content[place + 1 : place + 2], "big")

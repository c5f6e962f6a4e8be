"""What the runs of a sweep gave, side by side: a table over seeds, and utility against privacy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning_fed.report.canvas import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    Picture,
    drawing,
    entitle,
    finish,
    in_percent,
    sheet,
)
from lightning_fed.tracking.results import Result
from lightning_fed.tracking.rounding import epsilon_text

TONES = (BLUE, ORANGE, GREEN, INK)
STYLES = ("-", "--", ":")


@dataclass(frozen=True)
class Measured:
    """One finished run of a sweep.

    Args:
        point: its parameters. mechanism, unit: of its privacy. epsilon: the worst hospital's, charged.
        realised: with the noise of those that were in the sums, where it is shared.
        accuracy, balanced: on the test split.
        validation: the last round's accuracy there, None where the test split was read every round.
        seconds: of the run. status: how it ended. title: of the images.
    """

    point: Mapping[str, Any]
    mechanism: str
    unit: str | None
    epsilon: float | None
    realised: float | None
    accuracy: float
    balanced: float
    validation: float | None
    seconds: float
    status: str
    title: str

    @staticmethod
    def of(point: Mapping[str, Any], result: Result, validation: float | None) -> Measured:
        """From a run's summary."""
        privacy = result.privacy
        return Measured(
            point,
            privacy.mechanism,
            privacy.unit,
            privacy.epsilon,
            privacy.epsilon_realised,
            result.tested.accuracy,
            result.tested.balanced_accuracy,
            validation,
            result.seconds.total,
            result.status,
            result.data.title,
        )

    def head(self) -> list[str]:
        """The names of `row`."""
        own = ["mechanism", "unit", "epsilon", "epsilon_realised", "test_accuracy", "test_balanced_accuracy"]
        return [*self.point, *own, "validation_accuracy", "seconds", "status", "data"]

    def row(self) -> list[Any]:
        """All numbers, as they are."""
        own = [self.mechanism, self.unit, self.epsilon, self.realised, self.accuracy, self.balanced]
        return [*self.point.values(), *own, self.validation, self.seconds, self.status, self.title]

    @property
    def kind(self) -> tuple[tuple[str, Any], ...]:
        """The parameters but for the seed: runs that differ in nothing else are averaged."""
        return tuple((key, value) for key, value in self.point.items() if key != "seed")


def groups_of(runs: Sequence[Measured]) -> list[list[Measured]]:
    """Runs that differ in their seed alone, in the order in which they come."""
    groups: dict[Any, list[Measured]] = {}
    for run in runs:
        groups.setdefault(repr(run.kind), []).append(run)
    return list(groups.values())


def table_of(runs: Sequence[Measured]) -> str:
    """Markdown: a row for each setting, mean and deviation over seeds."""
    keys = [key for key in runs[0].point if key != "seed"]
    head = [
        *keys,
        "mechanism",
        "unit",
        "ε charged",
        "ε realised",
        "test accuracy",
        "balanced",
        "validation",
        "runs",
    ]
    lines = [head, ["---"] * len(head)]
    for group in groups_of(runs):
        first = group[0]
        lines.append(
            [
                *(_shown(first.point[key]) for key in keys),
                first.mechanism,
                first.unit or "-",
                _largest([run.epsilon for run in group]),
                _largest([run.realised for run in group]),
                percent_of([run.accuracy for run in group]),
                percent_of([run.balanced for run in group]),
                percent_of([run.validation for run in group if run.validation is not None]),
                f"{len(group)}{' (cut short)' * any(run.status != 'completed' for run in group)}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent_of(shares: Sequence[float]) -> str:
    """Such as `91.64 ± 0.21 %`: mean and deviation, or the only number; a dash where there is none."""
    if not shares:
        return "-"
    spread = f" ± {100 * stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * fmean(shares):.2f}{spread} %"


def _largest(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return epsilon_text(max(known)) if known else "-"


def _shown(value: Any) -> str:
    return Path(value).stem if isinstance(value, str) and value.endswith(".yaml") else f"{value}"


def draw_sweep(runs: Sequence[Measured], provenance: str) -> Picture:
    """Test accuracy over epsilon, a line for each setting of the rest; without a guarantee, a level."""
    with drawing():
        figure = sheet(6.4, 4.0)
        axes = figure.subplots()
        protected = [group for group in groups_of(runs) if group[0].epsilon is not None]
        for place, (label, groups) in enumerate(_series(protected).items()):
            groups.sort(key=lambda group: group[0].epsilon or 0.0)
            spent = [fmean(run.epsilon or 0.0 for run in group) for group in groups]
            mean = [fmean(run.accuracy for run in group) for group in groups]
            spread = [stdev([run.accuracy for run in group]) if len(group) > 1 else 0.0 for group in groups]
            tone, style = TONES[place % len(TONES)], STYLES[place // len(TONES) % len(STYLES)]
            axes.errorbar(
                spent, mean, yerr=spread, color=tone, linestyle=style, marker="o", ms=4, capsize=3, label=label
            )
        for place, group in enumerate(one for one in groups_of(runs) if one[0].epsilon is None):
            level, label = fmean(run.accuracy for run in group), _label(group[0])
            axes.axhline(level, color=INK, linestyle=STYLES[place % len(STYLES)], linewidth=1.2, label=label)
        if protected:
            values = [run.epsilon or math.nan for group in protected for run in group]
            if max(values) > 4 * min(values):
                axes.set_xscale("log")
                ticks = sorted({float(f"{value:.2g}") for value in values})
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            axes.set_xlabel("ε of the worst hospital, whole run")
        in_percent(axes.yaxis)
        axes.grid(axis="y")
        axes.legend(loc="best")
        entitle(axes, "Test accuracy for its ε", provenance)
        best = max(run.accuracy for run in runs)
        return finish(
            "sweep", f"Test accuracy over epsilon of {len(runs)} runs, {best:.1%} at most", figure, png=True
        )


def _series(groups: Sequence[list[Measured]]) -> dict[str, list[list[Measured]]]:
    """Groups by what they differ in beside epsilon."""
    configs = len({group[0].point.get("config") for group in groups}) > 1
    units = len({group[0].unit for group in groups}) > 1
    series: dict[str, list[list[Measured]]] = {}
    for group in groups:
        unit = f", each {group[0].unit}" if units else ""
        series.setdefault(_label(group[0], configs) + unit, []).append(group)
    return series


def _label(run: Measured, config: bool = False) -> str:
    """The mechanism, and the parameters that are not on the axis; the configuration where there are several."""
    told = ("privacy.mechanism", "privacy.epsilon", "privacy.noise_multiplier", *(() if config else ("config",)))
    parts = [f"{key.rsplit('.')[-1]} {_shown(value)}" for key, value in run.kind if key not in told]
    return ", ".join([run.mechanism, *parts])

"""The tables and figures of the paper's questions, from what its runs gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    short,
)
from lightning_fed.report.sweep import percent_of
from lightning_fed.tracking.results import PrivacySummary, TeacherScores, mean_of
from lightning_fed.tracking.rounding import delta_text, epsilon_text

TITLES = {
    "RQ2": "RQ1, RQ2: without privacy, with secure aggregation, and with privacy",
    "RQ3": "RQ3: DPResNet against a standard ResNet, 10 hospitals",
    "RQ4": "RQ4: accuracy against the privacy budget, 10 hospitals",
    "RQ5": "RQ5: against PriMIA and FedMIC, rebuilt on the same images and hospitals",
}
HEAD = (
    *("question", "row", "column", "printed", "how", "runs", "test_accuracy_mean", "test_accuracy_deviation"),
    *("best_of_rounds_mean", "best_of_rounds_split", "validation_mean", "epsilon", "delta", "unit", "adjacency"),
    *("short", "cut", "did_not_learn", "seconds", "data", "upload_bytes_per_hospital_mean"),
    *("diagnostic_teachers_test_mean", "diagnostic_teachers_own_mean"),
)


@dataclass(frozen=True)
class Number:
    """One number of a table.

    Args:
        questions, row, column, printed: where it stands, and what the paper prints.
        how: the network, its start and the passes over the images, in words.
        accuracies: of the last round on the test split, one for each seed; none while no run is finished.
        best: of all measured rounds, on `split`. validation: of the last round.
        privacy: of the run that was charged most; None while no run is finished. short: fewer than twelve passes
            over the images. cut: ended by its budget before its last round.
        did_not_learn: not above the largest class's share. seconds: of all runs. title: of the images.
        uploaded: bytes that one hospital sent in a run. teachers: that stayed at home, of each run.
    """

    questions: tuple[str, ...]
    row: str
    column: str
    printed: float | None
    how: str
    accuracies: tuple[float, ...]
    best: tuple[float, ...]
    split: str
    validation: tuple[float, ...]
    privacy: PrivacySummary | None
    short: bool
    cut: bool
    did_not_learn: bool
    seconds: float
    title: str
    uploaded: tuple[float, ...] = ()
    teachers: tuple[TeacherScores, ...] = ()

    @property
    def text(self) -> str:
        """Such as `91.64 ± 0.21 % (printed 97.78 %)`, with marks."""
        if not self.accuracies:
            return "not run"
        marks = [
            *(["short"] if self.short else []),
            *(["stopped on its budget"] if self.cut else []),
            *(["did not learn"] if self.did_not_learn else []),
            *(f"teachers: {one.text}" for one in self.teachers),
            *([f"printed {100 * self.printed:.2f} %"] if self.printed is not None else []),
        ]
        return percent_of(self.accuracies) + (f" ({', '.join(marks)})" if marks else "")

    @property
    def costs(self) -> tuple[str, str]:
        """What one hospital sent and how long it took, of a run in the mean, such as `12.3 MB`, `4.5 min`."""
        if not self.accuracies:
            return "-", "-"
        return f"{fmean(self.uploaded) / 1e6:,.1f} MB", f"{self.seconds / len(self.accuracies) / 60:.1f} min"

    @property
    def guarantee(self) -> str:
        """Such as `ε 6.00 at δ 0.00019, each image blanked (11.91 replaced)`; who is trusted stands below."""
        privacy = self.privacy
        if privacy is None or privacy.epsilon is None:
            return "none"
        delta = "-" if privacy.delta is None else delta_text(privacy.delta)
        blanked = privacy.adjacency != "replace_one"
        other = privacy.epsilon_replace_one if blanked else privacy.epsilon_zero_out
        names = ("blanked", "replaced") if blanked else ("replaced", "blanked")
        beside = "" if other is None else f" ({epsilon_text(other)} {names[1]})"
        return f"ε {epsilon_text(privacy.epsilon)} at δ {delta}, each {privacy.unit} {names[0]}{beside}"


def csv_rows(numbers: Sequence[Number]) -> list[Sequence[Any]]:
    """Head, and every number as it is."""
    rows: list[Sequence[Any]] = [HEAD]
    for one in numbers:
        deviation = stdev(one.accuracies) if len(one.accuracies) > 1 else None
        privacy = one.privacy or PrivacySummary()
        rows.append(
            [
                *(" ".join(one.questions), one.row, one.column, one.printed, one.how, len(one.accuracies)),
                *(mean_of(one.accuracies), deviation, mean_of(one.best), one.split, mean_of(one.validation)),
                *(privacy.epsilon, privacy.delta, privacy.unit, privacy.adjacency),
                *(one.short, one.cut, one.did_not_learn, round(one.seconds, 1), one.title),
                mean_of(one.uploaded),
                mean_of(teachers.test_mean for teachers in one.teachers),
                mean_of(teachers.own_mean for teachers in one.teachers),
            ]
        )
    return rows


NOTES = (
    "Columns differ in more than privacy: *how* tells each run's network, start and passes. The paper's rows are "
    "its published settings at this budget's size, with a fifth of each hospital's images held back; rows with a "
    "guarantee hold none back. Our recipes start from drawn cells, turn and flip, and answer with the mean over "
    "eight turns.",
    "Guarantees: *blanked* gives a zero gradient or update, *replaced* is any other in its place. `record` and "
    "the columns as described need nobody's trust; `distributed` needs its counted hospitals to add their noise. "
    "Each is of one run: choosing settings among runs costs more (privacy.tuning_runs).",
    "What a hospital sends is of its vectors, in our encoding, over the whole run, and its download is not in it; "
    "times are of runs that may have shared the machine with others.",
    "RQ5: PriMIA and FedMIC are rebuilt on our images and hospitals; what differs from the published systems "
    "stands in configs/primia.yaml and configs/fedmic.yaml. DP-/SecAgg+ is additive sharing there, and PriMIA's "
    "rate of 1e-4 is kept at width 64 alone (1e-3 at smaller budgets). The printed figures are the paper's: "
    "neither system's own text was found to hold them, and which column FedMIC's belongs to is uncertain. A "
    "student's accuracy is the global model's; FedMIC is made for the teachers that each hospital keeps.",
)


def tables(numbers: Sequence[Number], overrides: Sequence[str] = ()) -> str:
    """Markdown: a table for each question that has numbers, and what must be known to read them.

    Args:
        numbers: of all cells. overrides: words of the command line that changed every run.
    """
    titles = sorted({one.title for one in numbers if one.title})
    told = [f"Test accuracy after the last round. Data: {', '.join(titles) or 'no run is finished'}."]
    told += [f"All runs were changed by: {' '.join(overrides)}."] if overrides else []
    for question, title in TITLES.items():
        chosen = [one for one in numbers if question in one.questions]
        if chosen:
            told += ["", f"## {title}", "", *(_curve(chosen) if question == "RQ4" else _table(chosen))]
    return "\n".join([*told, "", *NOTES])


def _table(numbers: Sequence[Number]) -> list[str]:
    """A line for each number: cells with marks are too wide to stand side by side."""
    head = (
        "",
        "",
        "test accuracy",
        "best of rounds",
        "validation",
        "how",
        "guarantee",
        "sent by a hospital",
        "time",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in numbers:
        best = f"{percent_of(one.best)} ({one.split})" if one.best else "-"
        cells = (one.row, one.column, one.text, best, percent_of(one.validation), one.how, one.guarantee)
        lines.append("| " + " | ".join((*cells, *one.costs)) + " |")
    return lines


def _curve(numbers: Sequence[Number]) -> list[str]:
    columns = sorted({one.column for one in numbers})
    lines = [f"| ε | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row, cells in sorted(_by_budget(numbers).items()):
        lines.append(f"| {row:g} | {' | '.join(cells[name].text if name in cells else '-' for name in columns)} |")
    return lines


def _by_budget(numbers: Sequence[Number]) -> dict[float, dict[str, Number]]:
    found: dict[float, dict[str, Number]] = {}
    for one in numbers:
        budget = float(one.row.removeprefix("epsilon ")) if one.row.startswith("epsilon ") else 6.0
        found.setdefault(budget, {})[one.column] = one
    return found


def draw_paper(numbers: Sequence[Number]) -> list[Picture]:
    """The figures that there are numbers for."""
    done = [one for one in numbers if one.accuracies]
    pictures = []
    with drawing():
        costs = [one for one in done if "RQ2" in one.questions]
        if costs:
            pictures.append(_draw_costs(costs))
        curve = [one for one in done if "RQ4" in one.questions]
        if curve:
            pictures.append(_draw_curve(curve))
    return pictures


def _draw_costs(numbers: Sequence[Number]) -> Picture:
    rows, columns = (list(dict.fromkeys(getattr(one, name) for one in numbers)) for name in ("row", "column"))
    figure = sheet(9.2, 1.0 + 0.62 * len(columns) * max(1, len(rows)) / 2)
    axes = figure.subplots()
    thick, tones = 0.8 / len(rows), (BLUE, GREEN, INK)
    for one in numbers:
        place = columns.index(one.column) + thick * (rows.index(one.row) - (len(rows) - 1) / 2)
        tone, first = (
            tones[rows.index(one.row) % 3],
            next(other for other in numbers if other.row == one.row) is one,
        )
        spread = stdev(one.accuracies) if len(one.accuracies) > 1 else None
        axes.barh(
            place, fmean(one.accuracies), thick * 0.9, xerr=spread, color=tone, label=one.row if first else "_"
        )
        if one.printed is not None:
            axes.plot([one.printed], [place], "D", color=ORANGE, ms=5, label="_")
    axes.plot([], [], "D", color=ORANGE, ms=5, label="printed")
    axes.set_yticks(range(len(columns)), [short(name, 30) for name in columns])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    in_percent(axes.xaxis)
    axes.grid(axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    entitle(axes, "Test accuracy, and what the paper prints", _titles(numbers))
    return finish("rq2", "Test accuracy by column and number of hospitals, beside the printed ones", figure)


def _draw_curve(numbers: Sequence[Number]) -> Picture:
    figure = sheet(6.4, 4.0)
    axes = figure.subplots()
    found = _by_budget(numbers)
    for name, tone in zip(sorted({one.column for one in numbers}), (BLUE, ORANGE, GREEN), strict=False):
        cells = [(budget, cells[name]) for budget, cells in sorted(found.items()) if name in cells]
        mean = [fmean(one.accuracies) for _, one in cells]
        spread = [stdev(one.accuracies) if len(one.accuracies) > 1 else 0.0 for _, one in cells]
        label = name.rpartition("(")[2].rstrip(")")
        axes.errorbar(
            [budget for budget, _ in cells], mean, yerr=spread, color=tone, marker="o", ms=4, label=label
        )
    axes.set_xscale("log")
    axes.set_xticks(sorted(found), [f"{budget:g}" for budget in sorted(found)])
    axes.minorticks_off()
    axes.set_xlabel("ε, whole run")
    in_percent(axes.yaxis)
    axes.grid(axis="y")
    axes.legend(loc="lower right")
    entitle(axes, "Test accuracy for its ε", _titles(numbers))
    return finish("rq4", "Test accuracy over epsilon", figure)


def _titles(numbers: Sequence[Number]) -> str:
    return ", ".join(sorted({one.title for one in numbers}))

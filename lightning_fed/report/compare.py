"""Several runs on one page: accuracy by round, utility against privacy, fairness, cost, a table for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_fed.errors import InputError
from lightning_fed.report.headline import legend
from lightning_fed.report.load import read_run
from lightning_fed.report.markup import (
    UNDEFINED,
    collapsed,
    document,
    figure,
    number,
    pair,
    paragraph,
    percent,
    preformatted,
    section,
    table,
)
from lightning_fed.report.run import Run
from lightning_fed.tracking.files import write_text_whole
from lightning_fed.tracking.results import TestScores
from lightning_fed.tracking.rounding import delta_text, epsilon_text

LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "ε": r"$\varepsilon$"}
LATEX |= {"δ": r"$\delta$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Named:
    """A run and what the page calls it."""

    name: str
    run: Run


Column = tuple[str, Callable[[Run], str]]


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Write one self-contained page about several runs, finished or not.

    Raises:
        InputError: a folder holds no run, a file of one is damaged, or the page cannot be written.
    """
    from lightning_fed.report.compare_figures import draw_comparison  # matplotlib is slow to import

    names = names_of(folders)
    runs = [Named(name, read_run(folder)) for name, folder in zip(names, folders, strict=True)]
    pictures = {picture.name: picture.inline for picture in draw_comparison(runs)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(target, build_comparison(runs, pictures))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name another --output") from error
    return target


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest tails of the folders' paths that tell them apart."""
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        raise InputError("report: the same run is named twice; name each once")
    for length in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def build_comparison(runs: Sequence[Named], drawn: dict[str, str]) -> str:
    """The page as HTML; `drawn` holds the figures' SVG by name."""
    parts = [
        section("Side by side", *_warnings(runs), _table(runs, COLUMNS)),
        section("Accuracy by round", _released(), figure(drawn.get("rounds"), wide=True)),
        _privacy(runs, drawn),
        _fairness(runs, drawn),
        _cost(runs),
        section(
            "For a paper",
            collapsed("Markdown", preformatted(markdown(runs))),
            collapsed("LaTeX", preformatted(latex(runs))),
        ),
    ]
    return document(f"{len(runs)} runs compared", legend(), parts)


def _released() -> str:
    return paragraph("The global model of each run on its public split.", "released")


def _warnings(runs: Sequence[Named]) -> list[str]:
    """What makes the numbers not comparable."""
    told = []
    if len({one.run.title for one in runs}) > 1:
        told.append(paragraph("These runs are of different images.", kind="warning"))
    if len({one.run.last.released.split for one in runs if one.run.last}) > 1:
        told.append(paragraph("Some of these runs looked at the test split every round.", kind="warning"))
    unfinished = [one.name for one in runs if one.run.untested]
    if unfinished:
        told.append(paragraph(f"Not finished, so without test scores: {', '.join(unfinished)}.", kind="warning"))
    return told


def _of_result(text: Callable[[Run], str]) -> Callable[[Run], str]:
    return lambda run: UNDEFINED if run.result is None else text(run)


def _of_test(text: Callable[[TestScores], str]) -> Callable[[Run], str]:
    return lambda run: UNDEFINED if run.result is None or run.result.test is None else text(run.result.test)


def _epsilon(run: Run) -> str:
    """Of the run that has ended, `none` where nothing is guaranteed."""
    assert run.result is not None
    privacy = run.result.privacy
    if privacy.epsilon is None:
        return "none"
    delta = UNDEFINED if privacy.delta is None else delta_text(privacy.delta)
    return f"{epsilon_text(privacy.epsilon)} at {delta}{' (aborted)' * run.untested}"


def _spread(run: Run, which: str) -> str:
    assert run.result is not None
    spread = run.result.hospital_accuracy
    return UNDEFINED if spread is None else percent(getattr(spread, which))


def _teachers(run: Run) -> str:
    assert run.result is not None
    return UNDEFINED if run.result.teachers is None else percent(run.result.teachers.test_mean, 2)


COLUMNS: tuple[Column, ...] = (  # what one looks for first, as a phone shows the first alone
    ("test accuracy", _of_test(lambda test: percent(test.accuracy, 2))),
    ("ε at δ", _of_result(_epsilon)),
    ("balanced", _of_test(lambda test: percent(test.balanced_accuracy, 2))),
    ("AUROC", _of_test(lambda test: number(test.auroc, 4))),
    ("validation", lambda run: percent(run.validation, 2)),
    ("mechanism", lambda run: run.plan.privacy.mechanism),
    ("aggregation", _of_result(lambda run: run.result.secagg.protocol if run.result else "")),
    ("hospitals", lambda run: str(run.hospitals)),
    ("rounds", lambda run: str(len(run.lines))),
    ("worst hospital", _of_result(lambda run: _spread(run, "worst"))),
    ("gap of hospitals", _of_result(lambda run: _spread(run, "gap"))),
    ("teachers, test split (diagnostic)", _of_result(_teachers)),
    ("seed", lambda run: str(run.plan.seed)),
    ("images", lambda run: run.title),
)


def _rows(runs: Sequence[Named], columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Head and rows, without columns that nobody has a value for."""
    rows = [[one.name, *(text(one.run) for _, text in columns)] for one in runs]
    head = ["run", *(name for name, _ in columns)]
    kept = [place for place in range(len(head)) if any(row[place] != UNDEFINED for row in rows)]
    return [head[place] for place in kept], [[row[place] for place in kept] for row in rows]


def _table(runs: Sequence[Named], columns: Sequence[Column]) -> str:
    return table(*_rows(runs, columns))


def _privacy(runs: Sequence[Named], drawn: dict[str, str]) -> str:
    if "privacy" not in drawn:
        return ""
    told = (
        "Accuracy for the epsilon that the worst hospital had spent until then; a run without a guarantee is a "
        "level line. Epsilons of different units (an image, a hospital) do not compare."
    )
    units = {one.run.result.privacy.unit for one in runs if one.run.result and one.run.result.privacy.epsilon}
    warning = paragraph("These runs protect different units.", kind="warning") if len(units) > 1 else ""
    return section(
        "Privacy against utility", paragraph(told, "released"), warning, figure(drawn["privacy"], wide=True)
    )


def _fairness(runs: Sequence[Named], drawn: dict[str, str]) -> str:
    if "fairness" not in drawn:
        return ""
    told = (
        "The global model on each hospital's own held-out images: every hospital a dot, the mean a bar; and each "
        "hospital's share of the loss of all, over its share of their images (1 is even)."
    )
    figures = pair(figure(drawn["fairness"]), figure(drawn.get("burden")))
    return section("Fairness among hospitals", paragraph(told, "diagnostic"), figures)


def _cost(runs: Sequence[Named]) -> str:
    finished = [one for one in runs if one.run.result is not None]
    if not finished:
        return ""
    columns: tuple[Column, ...] = (
        ("aggregation", lambda run: run.result.secagg.protocol if run.result else ""),
        ("degree, threshold", _agreed),
        ("MB of a hospital a round", lambda run: _megabytes(run)),
        ("s of keys, masks, sums", lambda run: number(run.result.secagg.seconds, 1) if run.result else ""),
        ("dropped out", lambda run: str(run.result.secagg.dropped) if run.result else ""),
        ("rounds without a model", lambda run: str(run.result.secagg.failed_rounds) if run.result else ""),
        ("s of training", lambda run: number(run.result.seconds.train, 0) if run.result else ""),
        ("s in all", lambda run: number(run.result.seconds.total, 0) if run.result else ""),
    )
    return section("What aggregation cost", _table(finished, columns))


def _agreed(run: Run) -> str:
    assert run.result is not None
    secagg = run.result.secagg
    return UNDEFINED if secagg.degree is None else f"{secagg.degree}, {secagg.threshold}"


def _megabytes(run: Run) -> str:
    assert run.result is not None
    return number(run.result.secagg.upload_bytes_per_hospital / 1e6, 2)


def markdown(runs: Sequence[Named]) -> str:
    """The first table as Markdown."""
    head, rows = _rows(runs, COLUMNS)
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex(runs: Sequence[Named]) -> str:
    """The first table as LaTeX, with booktabs."""
    head, rows = _rows(runs, COLUMNS)

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(letter, letter) for letter in cell) for cell in cells) + r" \\"

    align = "l" + "r" * (len(head) - 1)
    top, middle, bottom = r"\toprule", r"\midrule", r"\bottomrule"
    begin, end = f"\\begin{{tabular}}{{{align}}}", r"\end{tabular}"
    return "\n".join([begin, top, line(head), middle, *map(line, rows), bottom, end])

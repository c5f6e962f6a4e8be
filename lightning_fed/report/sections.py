"""The sections of the page below its head, in the order in which they are read."""

from __future__ import annotations

from statistics import fmean

import yaml

from lightning_fed.report.markup import (
    UNDEFINED,
    collapsed,
    duration,
    facts,
    figure,
    number,
    pair,
    paragraph,
    percent,
    preformatted,
    section,
    table,
)
from lightning_fed.report.run import RoundLine, Run
from lightning_fed.tracking.rounding import epsilon_text

Drawn = dict[str, str]  # a figure's name and its SVG


def by_round(run: Run, drawn: Drawn) -> str:
    """Accuracy and loss after each round."""
    if run.last is None:
        return ""
    split = run.last.released.split
    notes = [paragraph(f"The global model after each round on the public {split} split.", "released")]
    if split == "test":
        told = "This run looked at the test split every round (evaluation.split: test)."
        notes.append(paragraph(told, kind="warning"))
    if any(line.accuracies for line in run.lines):
        told = "The band runs from the worst to the best hospital, each on its own held-out images."
        notes.append(paragraph(told, "diagnostic"))
    return section("Round by round", *notes, pair(figure(drawn.get("accuracy")), figure(drawn.get("loss"))))


def by_hospital(run: Run, drawn: Drawn) -> str:
    """Each hospital's accuracy, or its training loss; and what images it has."""
    if "hospitals" not in drawn:
        return ""
    if run.last and run.last.accuracies:
        told = "The global model on each hospital's own held-out images. Small hospitals give rough numbers."
    else:
        told = "No accuracy was taken at the hospitals; this is each one's training loss in its latest round."
    return section("Hospital by hospital", paragraph(told, "diagnostic"), figure(drawn["hospitals"], wide=True))


def who_has_what(run: Run, drawn: Drawn) -> str:
    """The classes of each hospital's images."""
    told = (
        f"How {run.title} is shared out: the stronger the colour, the more images of that class. An empty "
        "cell is a class that the hospital never sees. Counts of classes are the simulator's knowledge."
    )
    drawn_figure = figure(drawn.get("hospital_classes"), wide=True)
    return section("Who has which classes", paragraph(told, "diagnostic") if drawn_figure else "", drawn_figure)


def by_class(run: Run, drawn: Drawn) -> str:
    """The newest model's accuracy on each class, beside how many images there were to learn from."""
    split = run.class_accuracy[0]
    if "classes" not in drawn:
        return ""
    told = f"The {'newest' if run.untested else 'last'} global model on the {split} split, class by class."
    figures = pair(figure(drawn["classes"]), _class_table(run))
    return section("Class by class", paragraph(told, "released"), figures)


def _class_table(run: Run) -> str:
    """Accuracy beside how many images there were to learn from, once the run has ended and knows them."""
    if run.result is None:
        return ""
    images = [sum(counts) for counts in zip(*run.result.data.classes_by_hospital, strict=True)]
    split, shares = run.class_accuracy
    if not shares:
        return ""
    head = ("class", f"{split} accuracy (released)", "images at all hospitals (diagnostic)")
    cells = zip(run.class_names, map(percent, shares), map("{:,}".format, images), strict=True)
    return table(head, cells)


def time(run: Run, drawn: Drawn) -> str:
    """Where the time went, and which hospital kept the others waiting."""
    if "time" not in drawn:
        return ""
    told = (
        "Evaluation runs beside the next round's training, so its seconds are not a part of the wall time; "
        "they are summed over workers."
    )
    if not run.untested:
        told += " The rest is the last round's evaluation, the test, and writing."
    figures = pair(figure(drawn["time"]), figure(drawn.get("pace")))
    return section("Where the time went", paragraph(told), _stragglers(run), figures)


def _stragglers(run: Run) -> str:
    spent: dict[int, list[float]] = {}
    for line in run.lines:
        for fit in line.diagnostic.fits:
            spent.setdefault(fit.hospital, []).append(fit.seconds)
    if len(spent) < 2:
        return ""
    mean = {hospital: fmean(seconds) for hospital, seconds in spent.items()}
    slow, fast = max(mean, key=mean.__getitem__), min(mean, key=mean.__getitem__)
    told = (
        f"Slowest on average was hospital {slow} with {duration(mean[slow])} of training a round, "
        f"fastest hospital {fast} with {duration(mean[fast])}."
    )
    return paragraph(told, "diagnostic")


def rounds_table(run: Run) -> str:
    """Every round, collapsed; a column that no round has a number for is left out."""
    if not run.lines:
        return ""
    rows = [_row(line) for line in run.lines]
    head = [name for name in rows[0] if any(row[name] != UNDEFINED for row in rows)]
    cells = ([row[name] for name in head] for row in rows)
    return collapsed(f"Every round of {run.title}", table(head, cells))


def _row(line: RoundLine) -> dict[str, str]:
    scores, seconds, shares = line.released, line.seconds, line.accuracies
    return {
        "round": str(line.round),
        "hospitals": str(len(line.cohort)),
        "in the sum": str(len(line.aggregation.counted)) if line.aggregation.counted else UNDEFINED,
        "failed": line.aggregation.failed or UNDEFINED,
        "accuracy (released)": percent(scores.accuracy, 2),
        "balanced (released)": percent(scores.balanced_accuracy, 2),
        "AUROC (released)": number(scores.auroc, 4),
        "loss (released)": number(scores.loss, 4),
        "ε (released)": UNDEFINED if scores.epsilon is None else epsilon_text(scores.epsilon),
        "training loss (diagnostic)": number(line.diagnostic.train_loss, 4),
        "worst hospital (diagnostic)": percent(min(shares, default=None), 1),
        "best hospital (diagnostic)": percent(max(shares, default=None), 1),
        "train s": number(seconds.train, 2),
        "aggregate s": number(seconds.aggregate, 3),
        "evaluate s": number(seconds.evaluate, 2),
    }


def experiment(run: Run) -> str:
    """The resolved experiment and the versions, collapsed."""
    text = yaml.safe_dump(run.experiment, sort_keys=False, allow_unicode=True)
    parts = [collapsed("The resolved experiment (experiment.yaml)", preformatted(text))]
    if run.result and run.result.versions:
        parts.append(collapsed("Versions", facts(run.result.versions)))
    return "\n".join(parts)

"""All figures of a run; the only way to matplotlib, which is slow to import and so is imported with this file."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_fed.report.audited import draw_audits
from lightning_fed.report.bars import draw_classes, draw_hospitals, draw_time
from lightning_fed.report.canvas import Picture, drawing
from lightning_fed.report.curves import draw_accuracy, draw_loss, draw_pace
from lightning_fed.report.heatmap import draw_heatmap
from lightning_fed.report.run import Run
from lightning_fed.report.spending import draw_spending
from lightning_fed.tracking.audits import INVERSION
from lightning_fed.tracking.files import write_text_whole

FOUND = "Images of a hospital, and what an attacker finds of them in what left"


def draw_all(run: Run) -> dict[str, Picture]:
    """The figures that the run has numbers for, by name; the others are left out."""
    provenance = f"{run.title} · {run.hospitals} hospital{'s' * (run.hospitals != 1)} · seed {run.plan.seed}"
    drawers = []
    if run.scored:
        drawers += [draw_accuracy, draw_loss]
    if run.lines:
        drawers.append(draw_pace)
    if run.lines or run.result:
        drawers.append(draw_time)
    if run.fits or (run.last and run.last.accuracies):
        drawers.append(draw_hospitals)
    if run.class_accuracy[1]:
        drawers.append(draw_classes)
    with drawing():
        pictures = [draw(run, provenance) for draw in drawers]
        pictures += draw_spending(run, provenance)
        if run.result:
            pictures.append(draw_heatmap(run.result.data, provenance))
        pictures += draw_audits(run, provenance)
    if run.reconstructions:
        pictures.append(Picture(INVERSION, FOUND, run.reconstructions))
    return {picture.name: picture for picture in pictures}


def write_figures(pictures: dict[str, Picture], folder: Path) -> None:
    """Write each picture as `NAME.svg`, and as `NAME.png` where it has that form."""
    folder.mkdir(exist_ok=True)
    for picture in pictures.values():
        write_text_whole(folder / f"{picture.name}.svg", picture.svg)
        if picture.png:
            part = folder / f"{picture.name}.png.part"
            part.write_bytes(picture.png)
            os.replace(part, folder / f"{picture.name}.png")

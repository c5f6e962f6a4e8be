"""The run's HTML page and its figures, made from the run folder's plain files alone."""

from __future__ import annotations

from pathlib import Path

from lightning_fed.errors import InputError
from lightning_fed.report import sections
from lightning_fed.report.headline import headline, legend
from lightning_fed.report.load import read_run
from lightning_fed.report.markup import document
from lightning_fed.report.privacy import privacy
from lightning_fed.report.run import Run
from lightning_fed.tracking.files import write_text_whole


def write_report(run: Path) -> Path:
    """Write `report.html` and `figures/` into a run folder, and tell where the page is.

    Reads `experiment.yaml`, `rounds.jsonl` and `summary.json`; without the last the run is reported as
    unfinished, with what there is. The page needs no network and no script.

    Raises:
        InputError: the folder holds no run, one of these files is damaged, or it cannot be written; an
            older report stays as it was.
    """
    from lightning_fed.report.figures import draw_all, write_figures  # matplotlib is slow to import

    told = read_run(run)
    pictures = draw_all(told)
    page = build_page(told, {name: picture.inline for name, picture in pictures.items()})
    target = run / "report.html"
    try:
        write_figures(pictures, run / "figures")
        write_text_whole(target, page)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); mend the folder's rights") from error
    return target


def build_page(run: Run, drawn: dict[str, str]) -> str:
    """The whole page as HTML; `drawn` holds the figures' SVG by name."""
    parts = [
        sections.by_round(run, drawn),
        privacy(run, drawn),
        sections.by_hospital(run, drawn),
        sections.who_has_what(run, drawn),
        sections.by_class(run, drawn),
        sections.time(run, drawn),
        sections.rounds_table(run),
        sections.experiment(run),
    ]
    return document(run.title, f"{headline(run)}\n{legend()}", parts)

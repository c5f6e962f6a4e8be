"""The figures of runs of every size."""

import re
import warnings
from pathlib import Path

import matplotlib
import pytest

from lightning_fed.report.canvas import INK, VARIABLES, short, some_of
from lightning_fed.report.figures import draw_all
from lightning_fed.report.load import read_run
from tests.report import folders


@pytest.mark.parametrize(
    ("hospitals", "rounds", "classes"),
    [(1, 1, 2), (1, 30, 2), (100, 3, 8), (3, 500, 11)],
)
def test_runs_of_every_size_are_drawn_without_a_warning(
    tmp_path: Path, hospitals: int, rounds: int, classes: int
) -> None:
    names = tuple(f"a rather long name of class number {number}" for number in range(classes))
    run = read_run(folders.of_size(tmp_path, hospitals, rounds, names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_all(run)
    assert set(drawn) == {"accuracy", "loss", "hospitals", "hospital_classes", "classes", "time", "pace"}
    marks = _texts(drawn["loss"].svg)
    ticks = marks[: marks.index("round")]
    assert ticks
    assert all(mark.isdigit() for mark in ticks), "a round is a whole number"
    assert len(drawn["hospitals"].svg) < 300_000


def _texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_every_hospital_has_a_bar_with_its_own_accuracy_and_its_images(tmp_path: Path) -> None:
    texts = _texts(draw_all(read_run(folders.of_size(tmp_path, 3, 2)))["hospitals"].svg)
    assert {"50%", "63%", "77%", "74"} <= set(texts)


def test_the_heat_map_writes_the_counts_where_they_fit_and_only_there(tmp_path: Path) -> None:
    few = draw_all(read_run(folders.of_size(tmp_path, 3, 1)))["hospital_classes"]
    many = draw_all(read_run(folders.of_size(tmp_path, 100, 1)))["hospital_classes"]
    assert _texts(few.svg).count("37") == 6
    assert _texts(many.svg).count("37") == 0
    assert "100 hospitals, 0 to 37 images" in many.alt


def test_in_the_page_every_tone_is_the_pages_own(tmp_path: Path) -> None:
    for picture in draw_all(read_run(folders.of_size(tmp_path, 3, 2))).values():
        assert INK in picture.svg
        assert not [tone for tone in VARIABLES if tone in picture.inline]
        assert "var(--ink)" in picture.inline


def test_figures_do_not_share_ids_that_mean_different_things(tmp_path: Path) -> None:
    meant: dict[str, str] = {}
    for picture in draw_all(read_run(folders.of_size(tmp_path, 3, 2))).values():
        for name, drawn in re.findall(
            r'<(?:path|clipPath) id="([^"]*)"(.*?)(?:/>|</clipPath>)', picture.inline, re.S
        ):
            assert meant.setdefault(name, drawn) == drawn
        assert '<g id="' not in picture.inline
    assert meant


def test_drawing_leaves_matplotlibs_settings_as_they_were(tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 33, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        draw_all(read_run(folders.of_size(tmp_path, 3, 1)))
        assert dict(matplotlib.rcParams) == before


def test_a_long_name_takes_two_lines_at_most() -> None:
    assert short("platelet") == "platelet"
    assert short("actinic keratoses and intraepithelial carcinoma") == "actinic keratoses and\nintraepithelial …"


@pytest.mark.parametrize(("hospitals", "step"), [(1, 1), (25, 1), (26, 2), (100, 5), (1000, 50)])
def test_hospitals_are_numbered_at_most_25_times(hospitals: int, step: int) -> None:
    assert some_of(hospitals) == range(0, hospitals, step)

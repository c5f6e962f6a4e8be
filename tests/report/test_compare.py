"""The page that compares runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_fed.cli import main
from lightning_fed.errors import InputError
from lightning_fed.report.compare import Named, latex, markdown, names_of, write_comparison
from lightning_fed.report.compare_figures import burdens
from lightning_fed.report.load import read_run
from tests.report import folders


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run without protection, one with, and one that is not finished."""
    made = []
    for name in ("open", "protected", "cut"):
        (tmp_path / name).mkdir()
        made.append(tmp_path / name)
    lines = [folders.line(number) for number in (1, 2)]
    for line in lines:
        for score in line["diagnostic"]["hospitals"]:
            score["loss"] = 0.5 + score["hospital"]
    folders.write(made[0], None, lines, folders.summary())
    folders.protected(made[1])
    folders.write(made[2])
    return made


def named(paths: list[Path]) -> list[Named]:
    return [Named(name, read_run(path)) for name, path in zip(names_of(paths), paths, strict=True)]


def test_each_run_has_a_row_with_its_own_numbers(runs: list[Path], tmp_path: Path) -> None:
    page = write_comparison(runs, tmp_path / "deep" / "page.html").read_text()
    first = page[page.index("Side by side") : page.index("Accuracy by round")]
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", first)
    assert [name for name, _ in rows] == ["open", "protected", "cut"]
    assert "87.68 %" in rows[0][1]
    assert "none" in rows[0][1]
    assert "5.44 at 0.00019" in rows[1][1]
    assert "87.68" not in rows[2][1], "no test score is made up for a run that is not finished"
    assert "Not finished, so without test scores: cut." in first
    assert page.count("<svg") == 4
    assert not re.search(r"<script|src=|@import", page)
    assert not re.search(r"https?://(?!www\.w3\.org)", page)


def test_runs_of_one_kind_leave_out_what_none_of_them_has(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.mkdir()
        folders.write(path, None, [folders.line(1, looked=False)])
    page = write_comparison(paths, tmp_path / "page.html").read_text()
    assert "Privacy against utility" not in page
    assert "Fairness" not in page
    assert "What aggregation cost" not in page
    assert "test accuracy" not in page


def test_what_does_not_compare_is_said(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    folders.protected(other, "update")
    summary = (other / "summary.json").read_text().replace("BloodMNIST rebuilt from PBC", "PathMNIST")
    (other / "summary.json").write_text(summary)
    page = write_comparison([runs[1], other], tmp_path / "page.html").read_text()
    assert "These runs are of different images." in page
    assert "These runs protect different units." in page


def test_the_share_of_the_loss_is_weighted_by_images(runs: list[Path]) -> None:
    run = read_run(runs[0])
    assert set(run.images.values()) == {74}
    assert burdens(run) == pytest.approx([0.5 / 1.5, 1.0, 2.5 / 1.5])
    assert burdens(read_run(runs[1])) == []


def test_both_tables_for_a_paper_have_a_line_for_each_run(runs: list[Path]) -> None:
    told = named(runs)
    lines = markdown(told).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    text = latex([Named("a_b & c", told[1].run)])
    assert r"a\_b \& c" in text
    assert r"87.68 \%" in text
    assert r"$\varepsilon$ at $\delta$" in text
    assert text.count(r"\\") == 2
    assert text.startswith(r"\begin{tabular}{lr")


def test_names_are_the_shortest_that_tell_runs_apart(tmp_path: Path) -> None:
    assert names_of([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    with pytest.raises(InputError, match="named twice"):
        names_of([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_text_from_the_runs_is_escaped(runs: list[Path], tmp_path: Path) -> None:
    bad = runs[0].rename(tmp_path / "<b>x")
    page = write_comparison([bad, runs[1]], tmp_path / "page.html").read_text()
    assert "<b>x" not in page


def test_one_folder_gives_its_own_page_and_several_the_comparison(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(runs[0])]) == 0
    assert capsys.readouterr().out.strip() == str(runs[0] / "report.html")
    target = tmp_path / "both.html"
    assert main(["report", str(runs[0]), "--output", str(target), str(runs[1])]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert target.exists()
    for words in (["report"], ["report", "--ouput", "x", str(runs[0])], ["report", str(tmp_path), str(runs[0])]):
        assert main(words) == 2

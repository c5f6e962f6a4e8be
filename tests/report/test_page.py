"""The page: what stands in it, and that nothing is fetched, run or half-written."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightning_fed.errors import InputError
from lightning_fed.report.page import write_report
from tests.report import folders


def page_of(folder: Path) -> str:
    return write_report(folder).read_text()


def tile_of(page: str, name: str) -> str:
    """The great number above `name`, with its tag."""
    found = re.search(rf'<b>([^<]*)</b><span>{name}</span><span class="tag (\w+)"', page)
    assert found, name
    return f"{found[1]} {found[2]}"


def test_the_page_shows_the_numbers_of_the_summary_each_with_its_tag(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, result=folders.summary()))
    assert tile_of(page, "test accuracy") == "87.7 % released"
    assert tile_of(page, "balanced accuracy, test") == "76.5 % released"
    assert tile_of(page, "AUROC, test") == "0.932 released"
    assert tile_of(page, "accuracy, worst to best hospital") == "61 to 93 % diagnostic"
    for told in ("<dd>4711</dd>", "<dd>60.5 s</dd>", "<dd>1.23 MB a round</dd>", "<dd>9.8.7</dd>", "completed"):
        assert told in page


def test_the_rounds_of_the_records_stand_in_the_table(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, result=folders.summary()))
    cells = "1|3|2|81.23 %|74.56 %|0.9134|0.5678|0.4321|50.0 %|76.7 %|8.25|0.125|3.50"
    assert f"<tr><td>{cells.replace('|', '</td><td>')}</td></tr>" in page


def test_every_figure_names_the_data_even_where_it_stands_alone(tmp_path: Path) -> None:
    write_report(folders.write(tmp_path, result=folders.summary()))
    figures = sorted((tmp_path / "figures").glob("*.svg"))
    names = ["accuracy", "classes", "hospital_classes", "hospitals", "loss", "pace", "time"]
    assert [figure.stem for figure in figures] == names
    for figure in figures:
        assert "BloodMNIST rebuilt from PBC · 3 hospitals · seed 4711" in figure.read_text(), figure


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, result=folders.summary()))
    assert page.count("<svg ") == 7
    assert not re.search(r"https?://|<script|<link|<iframe|@import|url\((?!#)", page)
    assert all(where.startswith("#") for where in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_text_from_the_run_is_escaped_in_the_page_and_in_the_figures(tmp_path: Path) -> None:
    bad = "<script>$x$</script>"
    result = folders.summary(classes=(bad, "a & b"))
    result["data"]["title"] = "<b>cells</b>"
    result["privacy"]["reason"] = "<i>none</i>"
    page = page_of(folders.write(tmp_path, result=result))
    assert "<script" not in page
    assert "<b>cells" not in page
    assert "<i>none" not in page
    assert "&lt;script&gt;$x$&lt;/script&gt;" in page
    svg = ElementTree.parse(tmp_path / "figures" / "classes.svg")
    assert {bad, "a & b"} <= {text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")}


def test_no_guarantee_is_said_with_its_reason(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, result=folders.summary()))
    assert '<p class="told">No privacy guarantee</p><p>no noise is added.</p>' in page


def test_an_unfinished_run_says_so_and_draws_its_rounds(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, folders.experiment(rounds=9)))
    assert ">unfinished<" in page
    assert "2 of 9 rounds are finished" in page
    assert tile_of(page, "accuracy, validation, round 2") == "81.2 % released"
    assert "test accuracy" not in page
    drawn = {figure.stem for figure in (tmp_path / "figures").glob("*.svg")}
    assert drawn == {"accuracy", "classes", "hospitals", "loss", "pace", "time"}


def test_a_run_before_its_first_round_has_a_page_without_figures(tmp_path: Path) -> None:
    page = page_of(folders.write(tmp_path, lines=[]))
    assert "No model is measured yet" in page
    assert "<svg" not in page


def test_without_a_look_at_hospitals_their_training_loss_stands_in_and_no_accuracy_is_made_up(
    tmp_path: Path,
) -> None:
    result = folders.summary() | {"hospital_accuracy": None}
    page = page_of(folders.write(tmp_path, lines=[folders.line(1, looked=False)], result=result))
    assert "Training loss at each hospital" in page
    assert "Accuracy at each hospital" not in page
    assert "worst to best" not in page
    assert "worst hospital (diagnostic)" not in page


def test_a_run_that_looked_at_the_test_split_every_round_says_so(tmp_path: Path) -> None:
    line = folders.line(1)
    assert "looked at the test split every round" not in page_of(folders.write(tmp_path, lines=[line]))
    line["released"]["split"] = "test"
    assert "looked at the test split every round" in page_of(folders.write(tmp_path, lines=[line]))


def test_undefined_scores_are_a_dash_and_a_class_without_images_says_so(tmp_path: Path) -> None:
    result = folders.summary()
    result["test"] |= {"auroc": None, "per_class_accuracy": [0.5, None], "loss": float("nan")}
    page = page_of(folders.write(tmp_path, lines=[_diverged()], result=result))
    assert tile_of(page, "AUROC, test") == "\N{EN DASH} released"
    assert ">no images<" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def _diverged() -> dict[str, object]:
    line = folders.line(1)
    line["released"]["loss"] = line["diagnostic"]["train_loss"] = float("nan")
    return line


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        write_report(tmp_path)
        return {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    folders.write(tmp_path, result=folders.summary())
    first = written()
    assert {"report.html", "accuracy.svg", "accuracy.png"} <= set(first)
    assert written() == first


def test_a_damaged_run_leaves_the_older_report_as_it_was(tmp_path: Path) -> None:
    before = page_of(folders.write(tmp_path, result=folders.summary()))
    (tmp_path / "summary.json").write_text('{"status": ')
    with pytest.raises(InputError, match=r"summary\.json"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folders.write(tmp_path, result=folders.summary())
    (tmp_path / "figures").write_text("a file stands in the way")
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_matplotlib_is_not_imported_before_a_report_is_written_and_its_windows_never(tmp_path: Path) -> None:
    folders.write(tmp_path, result=folders.summary())
    program = (
        "import sys; from pathlib import Path; from lightning_fed.report.page import write_report; "
        "early = 'matplotlib' in sys.modules; write_report(Path(sys.argv[1])); "
        "print(early, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["False", "True", "False"]


def test_rounds_that_were_not_measured_have_a_dash_and_no_point_in_the_figures(tmp_path: Path) -> None:
    lines = [folders.protected_line(number) for number in (1, 2, 3)]
    for line in (lines[0], lines[1]):
        line["released"] = {name: line["released"][name] for name in ("epsilon", "epsilon_by_hospital")}
    planned = folders.experiment() | {"privacy": {"mechanism": "record", "epsilon": 6.0, "delta": 1e-4}}
    page = page_of(folders.write(tmp_path, planned, lines[:2]))
    assert "No model is measured yet" in page
    assert "nan" not in page.lower().replace("finance", "")
    assert not (tmp_path / "figures" / "accuracy.svg").exists()
    assert (tmp_path / "figures" / "epsilon.svg").exists()

    page = page_of(folders.write(tmp_path, planned, lines))
    rows = re.findall(r"<tr><td[^>]*>([123])</td>(.*?)</tr>", page, re.S)
    assert [("81.23" in row) for _, row in rows] == [False, False, True]
    assert "nan %" not in page
    assert (tmp_path / "figures" / "accuracy.svg").exists()

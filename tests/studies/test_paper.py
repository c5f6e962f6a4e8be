"""`lightning-fed paper`: every cell is a run that can be made, and every number stands beside the printed one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_fed.cli import main
from lightning_fed.report.paper import Number, csv_rows, draw_paper, tables
from lightning_fed.studies import paper
from lightning_fed.studies.cells import Cell
from lightning_fed.studies.paper_grid import (
    BUDGETS,
    COLUMNS,
    HOSPITALS,
    PRINTED,
    PRINTED_BASELINES,
    GridCell,
    grid,
)
from lightning_fed.tracking.results import PrivacySummary, TeacherScores

SMALLEST = [
    *("--data.name", "bloodcells", "--data.images", "200", "--data.partition", "iid", "--data.min_images", "4"),
    *("--model.width", "2", "--model.pretrained", "null", "--federation.rounds", "1"),
    *("--federation.local_epochs", "1", "--ray.enabled", "false"),
]
LAPTOP = grid(BUDGETS["laptop"])


def experiments(tmp_path: Path, budget: str = "laptop") -> dict[str, tuple[GridCell, Cell]]:
    found = {}
    for cell in grid(BUDGETS[budget]):
        (run,) = paper.plan(cell, 1, tmp_path, ["--data.root", str(tmp_path)]).runs
        found[cell.name] = (cell, run)
    return found


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_cell_is_an_experiment_with_a_folder_of_its_own(tmp_path: Path, budget: str) -> None:
    found = experiments(tmp_path, budget)
    assert len(found) == len(grid(BUDGETS[budget]))
    for cell, run in found.values():
        experiment = run.experiment
        if "RQ2" in cell.questions:
            assert cell.row == f"{experiment.federation.hospitals} hospitals"
        if cell.row.startswith("epsilon"):
            assert cell.row == f"epsilon {experiment.privacy.epsilon:g}"
        assert experiment.privacy.delta == 1.9e-4 or not experiment.privacy.guarantees
        if budget == "laptop" and experiment.privacy.by_images:
            assert paper.passes(run) == pytest.approx(12, abs=0.1)


def test_the_columns_are_what_their_names_say(tmp_path: Path) -> None:
    found = experiments(tmp_path)
    plain, masked, published, stated, right, record, distributed = (
        found[f"10-hospitals-{name}"][1].experiment
        for name in ("plain", "secagg", "published", "stated-noise", "right-noise", "record", "distributed")
    )
    assert (plain.secagg.protocol, masked.secagg.protocol) == ("plain", "secagg_plus")
    assert plain.privacy.mechanism == masked.privacy.mechanism == "none"
    assert not published.privacy.guarantees
    assert published.privacy.max_grad_norm == 7
    assert stated.privacy.noise_multiplier is not None
    assert stated.privacy.noise_multiplier * 7 == pytest.approx(0.6989, rel=1e-4)
    assert (right.privacy.epsilon, right.privacy.sensitivity) == (6.0, "replace_one")
    assert (record.privacy.mechanism, distributed.privacy.mechanism) == ("record", "distributed")
    for hospitals in HOSPITALS:
        ours = found[f"{hospitals}-hospitals-distributed"][1].experiment
        assert ours.secagg.min_survivors == hospitals - max(1, hospitals // 10)


def test_what_is_printed_stands_where_the_paper_prints_it() -> None:
    stated = {(cell.row, cell.column): cell.printed for cell in LAPTOP if cell.printed is not None}
    theirs = {(f"{hospitals} hospitals", column): value for (hospitals, column), value in PRINTED.items()}
    assert stated == theirs | PRINTED_BASELINES
    assert len([cell for cell in LAPTOP if "RQ2" in cell.questions]) == len(HOSPITALS) * len(COLUMNS)


def number(accuracy: float | None, **changes: object) -> Number:
    told = () if accuracy is None else (accuracy,)
    base = Number(
        questions=("RQ2",),
        row="10 hospitals",
        column=COLUMNS[0],
        printed=0.9876,
        how="dpresnet 8",
        accuracies=told,
        best=told,
        split="test",
        validation=(),
        privacy=None,
        short=False,
        cut=False,
        did_not_learn=False,
        seconds=9.0,
        title="cells",
        uploaded=(2.5e6,),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_each_number_tells_its_marks_and_the_printed_one() -> None:
    assert number(0.912).text == "91.20 % (printed 98.76 %)"
    assert number(None).text == "not run"
    assert number(0.2, printed=None, short=True, did_not_learn=True).text == "20.00 % (short, did not learn)"
    two = number(None, accuracies=(0.9, 0.92), printed=None)
    assert two.text == "91.00 ± 1.41 %"
    spent = PrivacySummary("record", "image", "zero_out", 5.994, 1.9e-4, 11.9)
    assert number(0.9, privacy=spent).guarantee == "ε 6.00 at δ 0.00019, each image blanked (11.90 replaced)"
    right = replace(spent, adjacency="replace_one", epsilon_zero_out=2.6)
    assert number(0.9, privacy=right).guarantee == "ε 6.00 at δ 0.00019, each image replaced (2.60 blanked)"
    assert number(0.9).guarantee == "none"


def test_the_baselines_are_what_they_are_called(tmp_path: Path) -> None:
    found = experiments(tmp_path)
    plain, shared, private = (found[f"primia-10-hospitals-{name}"][1] for name in ("plain", "secagg", "dp-sgd"))
    for run in (plain, shared, private):
        experiment = run.experiment
        assert (experiment.model.name, experiment.model.stem) == ("resnet18", "average_pool")
        assert (experiment.federation.local_steps, experiment.federation.weighting) == (3, "equal")
        assert paper.passes(run) == pytest.approx(12, abs=0.1)
    assert [run.experiment.secagg.protocol for run in (plain, shared, private)] == [
        "plain",
        "additive",
        "additive",
    ]
    assert [run.experiment.privacy.epsilon for run in (plain, shared, private)] == [None, None, 6.0]
    fedmic = found["fedmic-20-hospitals-plain"][1]
    assert fedmic.experiment.teacher is not None
    assert (fedmic.experiment.federation.hospitals, paper.passes(fedmic)) == (20, 12)
    assert "taught by resnet18 16" in paper.how(fedmic)
    seconds = paper.gradient_seconds([found["20-hospitals-plain"][1], fedmic])
    assert seconds["fedmic-20-hospitals-plain-42"] > seconds["20-hospitals-plain-42"], "its teacher is trained too"


def test_what_a_run_sent_and_took_stands_beside_its_accuracy() -> None:
    told = number(None, accuracies=(0.9, 0.92), uploaded=(1e6, 3e6), seconds=240.0)
    home = TeacherScores((0.95, None), (0.9, None), 0.95, 0.9)
    assert told.costs == ("2.0 MB", "2.0 min")
    with_teachers = replace(told, teachers=(home,)).text
    assert "teachers: 95.0 % on the test split, 90.0 % on their own images (diagnostic)" in with_teachers
    assert number(None).costs == ("-", "-")


def test_the_tables_and_figures_have_every_number() -> None:
    numbers = [
        number(0.91),
        number(0.3, column=COLUMNS[6], questions=("RQ2", "RQ4")),
        number(0.2, column=COLUMNS[6], questions=("RQ4",), row="epsilon 0.5", printed=None),
        number(None, column=COLUMNS[5], questions=("RQ4",), row="epsilon 0.5", printed=None),
    ]
    told = tables(numbers)
    assert "## RQ3" not in told
    curve = told[told.index("## RQ4") : told.index("Columns differ")].strip().splitlines()
    assert [line.split("|")[1].strip() for line in curve[4:]] == ["0.5", "6"]
    assert "not run" in curve[4]
    assert [len(row) for row in csv_rows(numbers)] == [len(csv_rows(numbers)[0])] * 5
    pictures = {picture.name: picture for picture in draw_paper(numbers)}
    assert set(pictures) == {"rq2", "rq4"}
    assert draw_paper([number(None)]) == []


def test_a_run_that_stands_in_two_tables_runs_once(tmp_path: Path) -> None:
    planned = [paper.plan(cell, 1, tmp_path, []) for cell in LAPTOP]
    found = {one.cell.name: one.runs[0] for one in paper.shared(planned)}
    assert found["dpresnet-without-privacy"] is found["10-hospitals-plain"]
    assert found["dpresnet-record-6-1.9e-4"] is found["10-hospitals-record"]
    assert len({run.experiment.fingerprint for run in found.values()}) == len({id(run) for run in found.values()})


def test_a_wrong_word_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--only", "RQ7"]) == 2
    assert main(["paper", "--privacy.epsilon", "1"]) == 2
    assert main(["paper", "--output", str(tmp_path / "out"), "--data.rot", "x"]) == 2
    assert "data.root" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_question_is_answered_at_the_smallest_size_and_nothing_runs_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["paper", "--only", "RQ2", "--output", str(tmp_path / "out"), *SMALLEST]
    chosen = [cell for cell in LAPTOP if cell.row == "5 hospitals"]
    monkeypatch.setattr(paper, "grid", lambda budget: chosen)
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "7 runs, 0 finished before" in told
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["column"] for row in rows] == list(COLUMNS)
    assert all(row["short"] == "True" and row["data"] == "procedural blood cells" for row in rows)
    by_column = {row["column"]: row for row in rows}
    assert float(by_column[COLUMNS[5]]["epsilon"]) == pytest.approx(6.0, rel=1e-2)
    assert by_column[COLUMNS[2]]["epsilon"] == ""
    assert float(by_column[COLUMNS[3]]["epsilon"]) > 50, "noise as stated guarantees next to nothing"
    assert (tmp_path / "out" / "rq2.svg").exists()
    assert main(words) == 0
    assert "7 runs, 7 finished before" in capsys.readouterr().out


@pytest.mark.slow
def test_the_baselines_run_at_the_smallest_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["paper", "--only", "RQ5", "--output", str(tmp_path / "out"), *SMALLEST]
    words += ["--federation.distillation.teacher_width", "2"]
    assert main([*words, "--dry_run"]) == 0
    assert "CPU-minutes" in capsys.readouterr().out.splitlines()[-1]
    with pytest.MonkeyPatch.context() as patch:
        chosen = [cell for cell in LAPTOP if cell.questions == ("RQ5",)]
        patch.setattr(paper, "grid", lambda budget: chosen)
        assert main(words) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [row["runs"] for row in rows] == ["1"] * 4
    plain, shared, private, fedmic = rows
    sent = [float(row["upload_bytes_per_hospital_mean"]) for row in rows]
    assert sent[1] == sent[2] == pytest.approx(10 * sent[0], rel=1e-3), "a share for each hospital"
    assert float(private["epsilon"]) == pytest.approx(6.0, rel=0.01)
    assert fedmic["diagnostic_teachers_own_mean"]
    assert not plain["diagnostic_teachers_test_mean"]
    assert shared["epsilon"] == ""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from lightning_fed.tracking.console import RunConsole, result_lines, round_line, say
from lightning_fed.tracking.records import FitReport
from lightning_fed.tracking.results import PrivacySummary
from tests.tracking.samples import record, result


def run(terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, highlight=False)
    with RunConsole(2, 2, console=console) as shown:
        for round in (1, 2):
            for hospital in (0, 2):
                shown.fitted(FitReport(hospital, round, 100, 4, 0.5, 1.0))
            shown.round_done(record(round))
    return out.getvalue()


def test_where_there_is_no_terminal_each_round_is_one_plain_line() -> None:
    assert run(terminal=False).splitlines() == [
        "round 1/2  accuracy 62.5 % (validation)  loss 1.250  train 2.0 s  hospitals 2",
        "round 2/2  accuracy 62.5 % (validation)  loss 1.250  train 2.0 s  hospitals 2",
    ]


def test_on_a_terminal_a_display_shows_the_rounds_and_no_line_for_each() -> None:
    shown = run(terminal=True)
    assert "\x1b[" in shown
    assert "2/2" in shown
    assert "train 2.0 s" not in shown


def test_what_is_said_is_one_line_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]not markup[/bold] " + "wider than any console " * 20
    say(text)
    assert capsys.readouterr().out == text + "\n"


def test_round_numbers_are_aligned() -> None:
    assert round_line(record(7), 100).startswith("round   7/100  ")


def test_a_result_tells_accuracy_hospitals_and_that_nothing_is_guaranteed() -> None:
    test, hospitals, privacy = result_lines(result())
    assert test == (
        "completed after 3 rounds in 62 s: test accuracy 91.25 %, balanced 85.00 % "
        "(procedural blood cells, seed 42)"
    )
    assert hospitals.startswith("hospitals' own accuracy: worst 50.0 %, best 90.0 %, mean 70.0 % (diagnostic)")
    assert privacy.startswith("privacy: no guarantee; ")


def test_a_guarantee_is_told_in_words() -> None:
    privacy = PrivacySummary("record", "image", epsilon=5.9997, delta=1.9e-4, accountant="prv", reason=None)
    told = "privacy: epsilon 6.00 at delta 0.00019 for each image, whole run, worst hospital (prv)"
    assert result_lines(replace(result(), privacy=privacy))[-1] == told
    simulated = replace(privacy, reproducible=True)
    assert result_lines(replace(result(), privacy=simulated))[-1] == (
        f"{told}; simulation: the noise can be recomputed from the seed"
    )


def test_each_round_tells_the_worst_hospitals_epsilon_until_then() -> None:
    told = record(1)
    charged = replace(told, trained=replace(told.trained, epsilon_by_hospital=(1.5, 2.301, 0.0)))
    assert round_line(charged, 2).endswith("hospitals 2  epsilon 2.31")


def test_a_spent_budget_is_said_in_words() -> None:
    told = result_lines(replace(result(), status="stopped_on_budget"))[0]
    assert told.startswith(
        "stopped, as too few hospitals' privacy budgets pay for another round, after 3 rounds in 62 s"
    )


def test_a_round_that_was_not_measured_has_a_line_without_scores() -> None:
    line = round_line(replace(record(1), released=None), 3)
    assert line.startswith("round 1/3  train ")
    assert "accuracy" not in line

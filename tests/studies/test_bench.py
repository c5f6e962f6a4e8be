"""`lightning-fed bench federation` at the smallest size: its figures, not its speed."""

from __future__ import annotations

import json

import pytest

from lightning_fed.cli import main
from lightning_fed.studies.bench_federation import FederationJob, _images
from lightning_fed.studies.bench_floor import floor_rounds

pytestmark = pytest.mark.slow


def test_the_last_line_holds_every_promised_figure(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "federation", "--hospitals", "2", "--images", "32", "--width", "2", "--rounds", "3"]
    assert main(words) == 0
    figures = json.loads(capfd.readouterr().out.splitlines()[-1])
    wanted = {"round_seconds", "floor_seconds", "ratio", "startup_seconds", "hospital_pss_bytes"}
    for part in (figures, figures["packed"], figures["unpacked"]):
        assert wanted <= part.keys()
        assert all(part[name] > 0 for name in wanted)
    assert figures["ratio"] == figures["unpacked"]["ratio"]
    assert figures["ratio"] == pytest.approx(figures["round_seconds"] / figures["floor_seconds"])


def test_the_floor_takes_longer_for_more_hospitals() -> None:
    data = _images(FederationJob(hospitals=1, images=64, width=8, rounds=2, threads=1))

    def seconds(hospitals: int) -> float:
        shares = [data.train] * hospitals
        options = {"width": 8, "batch_size": 32, "rounds": 3, "processes": 1, "threads": 1}
        return min(floor_rounds(shares, data.validation, **options))

    assert seconds(12) > 2 * seconds(1)


@pytest.mark.parametrize(
    "words", [["federatoin"], ["federation", "--rounds", "1"], ["federation", "--widht", "3"]]
)
def test_a_wrong_benchmark_or_option_is_one_line_and_exit_code_two(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

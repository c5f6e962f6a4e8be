"""What the page and its figures say of privacy, and that they say nothing where there is none."""

import html
import re
import warnings
from pathlib import Path

import pytest

from lightning_fed.report.figures import draw_all
from lightning_fed.report.load import read_run
from lightning_fed.report.page import write_report
from lightning_fed.report.privacy import SIMULATION
from tests.report import folders

FIGURES = {"epsilon", "accuracy_for_epsilon", "price", "clipping"}


def text_of(folder: Path) -> str:
    """The words of the page without its figures, tags or line breaks; cells are parted by a bar."""
    page = re.sub(
        r"<svg.*?</svg>|<style.*?</style>|<pre.*?</pre>", "", write_report(folder).read_text(), flags=re.S
    )
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.replace("</td><td>", "|"))))


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_a_guarantee_is_said_in_the_head_rounded_up(tmp_path: Path) -> None:
    told = text_of(folders.protected(tmp_path))
    assert "ε = 5.44, δ = 0.00019 for each image, over the whole run" in told
    assert "The worst hospital's ε; nobody needs to be trusted" in told
    assert "No privacy guarantee" not in told
    assert SIMULATION not in told


def test_the_card_of_record_tells_every_epsilon_with_its_delta(tmp_path: Path) -> None:
    told = text_of(folders.protected(tmp_path))
    for row in (
        "guaranteed (prv): an image is blanked|0.00019|5.44",
        "budget|0.00019|6.00",
        "an image is replaced by any other|0.00019|12.90",
        "at δ = 1/(10 n), n the images of all hospitals|8.4e-06|7.70",
        "second opinion, RDP|0.00019|6.10",
        "second opinion, PLD|0.00019|5.40",
    ):
        assert row in told
    assert "clipping to a norm of C = 7" in told
    for limit in ("add/remove adjacency", "numbers of images are public", "floating-point", "timing"):
        assert limit in told


@pytest.mark.parametrize(
    ("adjacency", "guaranteed", "beside"),
    [
        (
            "zero_out",
            "a hospital is blanked (sensitivity C)",
            "a hospital is replaced by any other (sensitivity 2 C)",
        ),
        (
            "replace_one",
            "a hospital is replaced by any other (sensitivity 2 C)",
            "a hospital is blanked (sensitivity C)",
        ),
    ],
)
def test_the_card_of_update_tells_a_blanked_and_a_replaced_hospital(
    tmp_path: Path, adjacency: str, guaranteed: str, beside: str
) -> None:
    if adjacency == "zero_out":
        values = {"epsilon": 6.0, "epsilon_zero_out": 6.0, "epsilon_replace_one": 14.65}
    else:
        values = {"epsilon": 14.65, "epsilon_zero_out": 6.0, "epsilon_replace_one": 14.65}
    told = text_of(folders.protected(tmp_path, "update", adjacency=adjacency, **values))
    first, second = ("6.00", "14.65") if adjacency == "zero_out" else ("14.65", "6.00")
    assert f"guaranteed (exact Gaussian): {guaranteed}|0.00019|{first}" in told
    assert f"{beside}|0.00019|{second}" in told
    assert "for each hospital, over the whole run" in told
    assert "second opinion" not in told
    assert "images (diagnostic)" in told, "a hospital's number of images is private under update"
    assert "numbers of images are public" not in told


def test_a_reproducible_run_says_that_its_noise_can_be_recomputed(tmp_path: Path) -> None:
    assert text_of(folders.protected(tmp_path, reproducible=True)).count(SIMULATION) == 2


def test_features_that_cost_nothing_are_told_in_the_head_and_on_the_card(tmp_path: Path) -> None:
    told = "pretrained on 20 procedural cells (bloodcells): no cost in privacy"
    page = text_of(folders.protected(tmp_path, features=told))
    assert page.count(told) == 2
    assert f"Features: {told}." in page
    assert "Features" not in text_of(folders.protected(tmp_path))


def test_features_are_told_of_a_run_without_a_mechanism_too(tmp_path: Path) -> None:
    result = folders.summary()
    result["privacy"]["features"] = "ScatterNet (fixed): no cost in privacy"
    assert text_of(folders.write(tmp_path, result=result)).count("ScatterNet (fixed)") == 1


def test_the_table_tells_what_each_hospital_was_charged_for(tmp_path: Path) -> None:
    told = text_of(folders.protected(tmp_path))
    assert "hospitalimagessampling ratesteps chargednoise multiplierε" in told
    assert "0|100|0.250|1,234|1.125|5.44" in told
    assert "2|300|0.250|1,234|1.125|5.19" in told


def test_the_rounds_table_has_a_column_of_epsilon(tmp_path: Path) -> None:
    told = text_of(folders.protected(tmp_path))
    assert "ε (released)" in told
    assert "0.5678|3.50|0.4321" in told
    assert "ε (released)" not in text_of(folders.write(tmp_path, result=folders.summary()))


def test_updates_without_noise_have_no_guarantee_and_what_clipping_did(tmp_path: Path) -> None:
    told = text_of(folders.noiseless(tmp_path))
    assert "No privacy guarantee" in told
    assert "everybody who sees an update or the model must be trusted" in told
    assert "not covered by the guarantee" not in told, "there is none"
    drawn = draw_all(read_run(tmp_path))
    assert FIGURES & set(drawn) == {"clipping"}
    assert "signal over noise" not in texts(drawn["clipping"].svg)
    assert "not covered by the guarantee" not in drawn["clipping"].svg


def test_a_run_without_a_mechanism_has_no_section_of_privacy(tmp_path: Path) -> None:
    folder = folders.write(tmp_path, result=folders.summary())
    assert "<h2>Privacy</h2>" not in write_report(folder).read_text()
    assert not FIGURES & {figure.stem for figure in (folder / "figures").iterdir()}


def test_an_unfinished_run_tells_what_is_spent_until_now(tmp_path: Path) -> None:
    (folders.protected(tmp_path) / "summary.json").unlink()
    told = text_of(tmp_path)
    assert "ε = 3.50, δ = 0.00019 so far" in told
    assert "until round 2 of a budget of 6, by mechanism record" in told
    (tmp_path / "rounds.jsonl").unlink()
    assert "Privacy not known yet" in text_of(tmp_path)


@pytest.mark.parametrize("mechanism", ["record", "update"])
@pytest.mark.parametrize(("hospitals", "rounds"), [(1, 1), (3, 2), (100, 3), (3, 300)])
def test_figures_of_every_size_are_drawn_without_a_warning(
    tmp_path: Path, mechanism: str, hospitals: int, rounds: int
) -> None:
    run = read_run(folders.protected(tmp_path, mechanism, hospitals, rounds))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_all(run)
    assert FIGURES & set(drawn) == FIGURES - ({"price"} if mechanism == "update" else set())
    for name in FIGURES & set(drawn):
        assert len(drawn[name].svg) < 200_000, name


def test_the_worst_hospital_stands_out_against_the_budget(tmp_path: Path) -> None:
    drawn = draw_all(read_run(folders.protected(tmp_path)))
    assert {"hospital 2, the worst in the end", "other hospitals", "budget, 6"} <= set(texts(drawn["epsilon"].svg))
    assert "budget, 6" in texts(drawn["accuracy_for_epsilon"].svg)
    assert "2.00 after the first round, 3.50 after the last" in drawn["epsilon"].alt
    assert "81.2% at 2.00, 81.2% at 3.50" in drawn["accuracy_for_epsilon"].alt


def test_hospitals_that_spend_alike_are_one_line_and_without_a_budget_none_is_drawn(tmp_path: Path) -> None:
    folder = folders.protected(tmp_path, hospitals=1)
    planned = folders.experiment(1) | {"privacy": {"mechanism": "record", "epsilon": None}}
    folders.write(folder, planned, [folders.protected_line(1, 1)])
    told = texts(draw_all(read_run(folder))["epsilon"].svg)
    assert "every hospital" in told
    assert not [text for text in told if text.startswith(("budget", "other"))]


def test_the_smallest_hospital_is_named_with_the_noise_in_its_mean_gradient(tmp_path: Path) -> None:
    price = draw_all(read_run(folders.protected(tmp_path)))["price"]
    assert texts(price.svg).count("0, the smallest") == 2
    assert price.alt == "The smallest hospital, 0, has 100 images and noise 0.045 C", "1.125 / (0.25 * 100)"


def test_what_a_simulator_sees_is_tagged_as_not_covered(tmp_path: Path) -> None:
    drawn = draw_all(read_run(folders.protected(tmp_path)))["clipping"]
    assert "diagnostic: not covered by the guarantee" in drawn.svg
    assert "C, the clipping norm" in texts(drawn.svg)


def test_norms_and_ratios_that_are_missing_or_infinite_are_left_out(tmp_path: Path) -> None:
    line = folders.protected_line(1)
    for fit, value in zip(line["diagnostic"]["fits"], (None, float("inf"), float("nan")), strict=True):
        fit |= {"signal_to_noise": value, "median_norm": 0.01, "clipped": None}
    folder = folders.protected(tmp_path)
    folders.write(
        folder, folders.experiment() | {"privacy": {"mechanism": "record", "max_grad_norm": 7.0}}, [line]
    )
    told = texts(draw_all(read_run(folder))["clipping"].svg)
    assert "median norm before clipping" in told
    assert not {"signal over noise", "share that was clipped", "C, the clipping norm"} & set(told)

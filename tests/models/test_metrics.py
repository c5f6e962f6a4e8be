import math
import warnings

import pytest
import torch

from lightning_fed.models.metrics import score

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]])
LABELS = torch.tensor([0, 0, 1, 2, 2])


def area(scores: list[float], positive: list[bool]) -> float:
    """Share of pairs of a positive and a negative that stand in the right order, ties by half."""
    pairs = [
        (one > other) + 0.5 * (one == other)
        for one, is_one in zip(scores, positive, strict=True)
        for other, is_other in zip(scores, positive, strict=True)
        if is_one and not is_other
    ]
    return sum(pairs) / len(pairs)


def test_scores_are_those_computed_by_hand() -> None:
    found = score(PROBABILITIES, LABELS)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.per_class_accuracy == pytest.approx((1 / 2, 1, 1 / 2))
    assert found.balanced_accuracy == pytest.approx(2 / 3)
    assert found.loss == pytest.approx(-sum(map(math.log, (0.7, 0.4, 0.6, 0.6, 0.4))) / 5, rel=1e-6)
    areas = [
        area(PROBABILITIES[:, label].tolist(), [own == label for own in LABELS.tolist()]) for label in range(3)
    ]
    assert found.auroc == pytest.approx(sum(areas) / 3)


def test_a_class_without_images_is_none_and_stays_out_of_the_means() -> None:
    keep = LABELS != 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(PROBABILITIES[keep], LABELS[keep])
    assert found.per_class_accuracy == (pytest.approx(1 / 2), None, pytest.approx(1 / 2))
    assert found.balanced_accuracy == pytest.approx(1 / 2)
    areas = [
        area(PROBABILITIES[keep][:, label].tolist(), [own == label for own in LABELS[keep].tolist()])
        for label in (0, 2)
    ]
    assert found.auroc == pytest.approx(sum(areas) / 2)


def test_where_one_class_alone_is_present_there_is_no_auroc() -> None:
    found = score(PROBABILITIES[:2], LABELS[:2])
    assert found.auroc is None
    assert found.per_class_accuracy == (pytest.approx(1 / 2), None, None)
    assert found.balanced_accuracy == pytest.approx(1 / 2)


def test_a_probability_of_zero_for_the_truth_gives_a_finite_loss() -> None:
    found = score(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert found.loss == pytest.approx(-math.log(1e-12) / 2, rel=1e-3)


def test_a_perfect_model_scores_one_everywhere() -> None:
    found = score(torch.eye(4), torch.arange(4))
    assert (found.accuracy, found.balanced_accuracy, found.auroc, found.loss) == (1, 1, 1, 0)
    assert found.per_class_accuracy == (1, 1, 1, 1)


def test_a_model_that_diverged_is_scored_and_not_an_error() -> None:
    found = score(torch.full((3, 2), math.nan), torch.tensor([0, 1, 1]))
    assert math.isnan(found.loss)
    assert 0 <= found.accuracy <= 1

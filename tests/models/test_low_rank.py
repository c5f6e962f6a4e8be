import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_fed.models.dpresnet import DPResNet
from lightning_fed.models.low_rank import decompose, shapes_of
from lightning_fed.models.vector import to_vector

NETWORK = DPResNet(3, 8, 8)
SHAPES = shapes_of(NETWORK)
UPDATE = to_vector(NETWORK)


def low_rank_layer(rows: int, columns: int, rank: int, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return (draws.normal(size=(rows, rank)) @ draws.normal(size=(rank, columns))).astype(np.float32)


def test_the_shapes_are_those_of_the_networks_vector_in_its_order() -> None:
    assert SHAPES[0] == (8, 3, 3, 3)
    assert sum(int(np.prod(shape)) for shape in SHAPES) == len(UPDATE)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_layer_of_low_rank_is_sent_as_two_thin_factors_and_comes_back(rank: int) -> None:
    layer = low_rank_layer(40, 90, rank)
    sent = decompose(layer.ravel(), [(40, 10, 3, 3)], energy=1 - 1e-6)
    assert [factor.shape for factor in sent.parts[0]] == [(40, rank), (rank, 90)]
    assert sent.bytes == 4 * rank * 130
    np.testing.assert_allclose(sent.expand(), layer.ravel(), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(energy=st.floats(0.05, 1.0), seed=st.integers(0, 100))
def test_the_error_is_within_the_energy_and_no_smaller_rank_would_do(energy: float, seed: int) -> None:
    layer = np.random.default_rng(seed).normal(size=(12, 50)).astype(np.float32)
    layer[:, :] *= np.linspace(3, 0.01, 12, dtype=np.float32)[:, None]
    sent = decompose(layer.ravel(), [(12, 50)], energy)
    lost = np.sum((sent.expand().reshape(12, 50) - layer) ** 2, dtype=np.float64) / np.sum(
        layer**2, dtype=np.float64
    )
    assert lost <= 1 - energy + 1e-4
    if len(sent.parts[0]) == 2:
        squares = np.linalg.svd(layer.astype(np.float64), compute_uv=False) ** 2
        rank = sent.parts[0][0].shape[1]
        assert squares[: rank - 1].sum() < (energy + 1e-5) * squares.sum()


def test_the_more_energy_is_kept_the_more_is_sent_and_never_more_than_the_update() -> None:
    sizes = [decompose(UPDATE, SHAPES, energy).bytes for energy in (0.3, 0.6, 0.9, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2] <= sizes[3] <= UPDATE.nbytes


def test_what_is_one_dimensional_zero_or_small_stays_as_it_is() -> None:
    vector, zero, small = np.ones(7, np.float32), np.zeros(64, np.float32), np.eye(3, dtype=np.float32).ravel()
    update = np.concatenate([vector, zero, small])
    sent = decompose(update, [(7,), (8, 8), (3, 3)], 0.99)
    assert [len(part) for part in sent.parts] == [1, 2, 1]
    assert np.array_equal(sent.expand(), update)


def test_running_statistics_travel_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40))
    draws = np.random.default_rng(0)
    update = draws.normal(size=len(to_vector(network))).astype(np.float32)
    found = decompose(update, shapes_of(network), 0.1).expand()
    weights = 40 * 27
    assert not np.allclose(found[:weights], update[:weights])
    assert np.array_equal(found[weights:], update[weights:])


@pytest.mark.parametrize("shape", [(5, 0), (0, 4), (), (1,), (3, 1)])
def test_odd_layers_come_back(shape: tuple[int, ...]) -> None:
    update = np.arange(int(np.prod(shape)), dtype=np.float32)
    assert np.array_equal(decompose(update, [shape], 0.5).expand(), update)


def test_the_result_does_not_depend_on_the_processs_threads() -> None:
    layer = np.random.default_rng(0).normal(size=200 * 300).astype(np.float32)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(decompose(layer, [(200, 300)], 0.5).expand())
        assert torch.get_num_threads() == threads
    assert np.array_equal(*found)

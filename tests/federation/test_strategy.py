import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment, Federation, Model
from lightning_fed.federation.strategy import GlobalModel, UpdateServer, choose_cohort, mean_update
from lightning_fed.models.registry import build_network
from lightning_fed.models.vector import to_vector, trainable_entries

WEIGHTS = np.array([1.0, -2.0, 0.5, 4.0], np.float32)
UPDATE = np.array([0.25, 0.5, -1.0, 0.0], np.float32)
ALL = np.ones(4, bool)


def vectors(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, np.float32) for row in rows]


def test_the_mean_weighs_updates_by_images() -> None:
    first, second = vectors([1, 0], [5, 8])
    assert mean_update([(3, first), (1, second)]).tolist() == [2, 2]


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 2**32 - 1)), min_size=1, max_size=6))
def test_the_mean_is_the_float64_mean_rounded_once(parts: list[tuple[int, int]]) -> None:
    updates = [
        (images, np.random.default_rng(seed).standard_normal(7).astype(np.float32)) for images, seed in parts
    ]
    wanted = np.average([update for _, update in updates], axis=0, weights=[images for images, _ in updates])
    found = mean_update(updates)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_updates_are_summed_in_the_order_in_which_they_come() -> None:
    small, large, minus = vectors([1.0], [2.0**80], [-(2.0**80)])
    assert mean_update([(1, large), (1, minus), (1, small)])[0] == pytest.approx(1 / 3)
    assert mean_update([(1, small), (1, large), (1, minus)])[0] == 0


def test_updates_are_read_one_by_one_and_left_as_they_were() -> None:
    update = np.ones(3, np.float32)
    update.flags.writeable = False
    assert mean_update((5, update) for _ in range(3)).tolist() == [1, 1, 1]


def test_no_update_at_all_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no update"):
        mean_update([])


def test_without_a_server_optimizer_the_mean_is_added_as_it_is() -> None:
    server = UpdateServer(Federation(server_lr=0.1), ALL)
    assert server.apply(WEIGHTS, UPDATE, 1).tolist() == (WEIGHTS + UPDATE).tolist()
    assert server.state() == {}


def test_sgd_at_a_rate_of_one_is_the_plain_mean() -> None:
    server = UpdateServer(Federation(server_optimizer="SGD", server_lr=1.0), ALL)
    assert server.apply(WEIGHTS, UPDATE, 1).tolist() == (WEIGHTS + UPDATE).tolist()


def test_momentum_on_the_server_is_fedavgm() -> None:
    server = UpdateServer(Federation(server_optimizer="SGD", server_options={"momentum": 0.5}), ALL)
    once = server.apply(WEIGHTS, UPDATE, 1)
    twice = server.apply(once, UPDATE, 1)
    np.testing.assert_allclose(twice, WEIGHTS + UPDATE + 1.5 * UPDATE)


def test_adam_takes_the_steps_computed_by_hand() -> None:
    betas, eps, rate = (0.9, 0.99), 1e-3, 0.1
    server = UpdateServer(
        Federation(server_optimizer="Adam", server_lr=rate, server_options={"betas": list(betas), "eps": eps}), ALL
    )
    weights = WEIGHTS.astype(np.float64)
    found, mean, square = WEIGHTS, 0.0, 0.0
    for step, update in enumerate((UPDATE, -2 * UPDATE), 1):
        gradient = -update.astype(np.float64)
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        size = np.sqrt(square / (1 - betas[1] ** step)) + eps
        weights = weights - rate * mean / (1 - betas[0] ** step) / size
        found = server.apply(found, update, 1)
        np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_running_statistics_take_the_mean_and_not_the_optimizer() -> None:
    trainable = np.array([True, False, True, False])
    server = UpdateServer(Federation(server_optimizer="Adam", server_lr=0.1), trainable)
    found = server.apply(WEIGHTS, UPDATE, 1)
    assert found[~trainable].tolist() == (WEIGHTS + UPDATE)[~trainable].tolist()
    np.testing.assert_allclose(found[trainable], (WEIGHTS + 0.1 * np.sign(UPDATE))[trainable], rtol=1e-5)


@pytest.mark.parametrize("name", [None, "SGD", "Adam"])
def test_applying_leaves_the_weights_that_were_given_as_they_were(name: str | None) -> None:
    weights, update = WEIGHTS.copy(), UPDATE.copy()
    new = UpdateServer(Federation(server_optimizer=name), ALL).apply(weights, update, 1)
    new += 1
    assert weights.tolist() == WEIGHTS.tolist()
    assert update.tolist() == UPDATE.tolist()


def test_a_restored_server_goes_on_as_the_first_would_have() -> None:
    federation = Federation(server_optimizer="Adam", server_lr=0.1)
    first, second = UpdateServer(federation, ALL), UpdateServer(federation, ALL)
    weights = first.apply(WEIGHTS, UPDATE, 1)
    second.restore(copy.deepcopy(first.state()))
    assert second.apply(weights, -UPDATE, 1).tolist() == first.apply(weights, -UPDATE, 1).tolist()


def test_weights_that_came_from_a_checkpoint_may_be_read_only() -> None:
    weights = WEIGHTS.copy()
    weights.flags.writeable = False
    assert UpdateServer(Federation(server_optimizer="SGD"), ALL).apply(weights, UPDATE, 1).tolist() == [
        1.25,
        -1.5,
        -0.5,
        4,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server_optimizer": "Adm"}, r"federation\.server_optimizer is 'Adm': did you mean 'Adam'"),
        (
            {"server_optimizer": "Adam", "server_options": {"epsilon": 1}},
            r"federation\.server_options do not fit Adam: .*epsilon",
        ),
        (
            {"server_optimizer": "Adam", "server_options": {"betas": [2, 3]}},
            r"federation\.server_options do not fit Adam: .*beta",
        ),
    ],
)
def test_an_optimizer_or_option_that_torch_does_not_have_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        UpdateServer(Federation(**changes), ALL)


def test_the_global_model_starts_as_the_network_and_advances_by_the_weighted_mean() -> None:
    network = build_network(Model(name="resnet9", width=2, norm="batch"), 1, 2, 0)
    model = GlobalModel.first(Experiment(), network)
    start = to_vector(network)
    assert np.array_equal(model.weights, start)
    assert np.array_equal(model.server.trainable.numpy(), trainable_entries(network))
    model.advance(mean_update([(1, np.ones_like(start)), (3, np.zeros_like(start))]), 1)
    np.testing.assert_allclose(model.weights, start + 0.25)
    assert torch.equal(torch.from_numpy(to_vector(network)), torch.from_numpy(start))


@given(hospitals=st.integers(1, 40), participation=st.floats(0.001, 1), seed=st.integers(0, 2**32 - 1))
def test_a_cohort_has_its_share_of_different_hospitals_in_order(
    hospitals: int, participation: float, seed: int
) -> None:
    federation = Federation(hospitals=hospitals, participation=participation)
    cohort = choose_cohort(federation, np.random.default_rng(seed))
    assert len(cohort) == max(1, round(participation * hospitals))
    assert cohort == sorted(set(cohort))
    assert set(cohort) <= set(range(hospitals))
    assert cohort == choose_cohort(federation, np.random.default_rng(seed))


def test_cohorts_differ_and_every_hospital_is_chosen_equally_often() -> None:
    federation = Federation(hospitals=10, participation=0.3)
    generator = np.random.default_rng(0)
    counts = np.zeros(10)
    for _ in range(2000):
        counts[choose_cohort(federation, generator)] += 1
    assert counts.sum() == 6000
    assert counts.min() > 500
    assert counts.max() < 700

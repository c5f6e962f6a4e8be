import dataclasses
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_fed.data.datamodule import HospitalData
from lightning_fed.data.images import ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Evaluation, Experiment, Federation, Model, Training
from lightning_fed.federation import local_work
from lightning_fed.federation.hospital import Hospital
from lightning_fed.federation.local_training import FollowSchedule
from lightning_fed.federation.state import HospitalStates
from lightning_fed.models.classifier import Classifier
from lightning_fed.models.schedule import Schedule
from lightning_fed.models.vector import load_vector, to_vector

GENERATOR = np.random.default_rng(0)
SHARED = ImageSet(GENERATOR.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), GENERATOR.integers(0, 8, 60))
BATCH_NORM = Model(name="resnet9", width=2, norm="batch")


def experiment(**changes: Any) -> Experiment:
    """A small one; changes are spread over the sections by their keys."""
    values: dict[str, Any] = {
        "model": Model(width=2),
        "evaluation": Evaluation(batch_size=16),
        "data": Data(validation=0.2),
    }
    for kind, name, base in (
        (Training, "training", {"batch_size": 8, "lr": 0.01, "schedule": "constant", "warmup_rounds": 0.0}),
        (Federation, "federation", {"rounds": 4, "local_epochs": 1}),
    ):
        known = {field.name for field in dataclasses.fields(kind)}
        values[name] = kind(**base | {key: changes.pop(key) for key in list(changes) if key in known})
    return Experiment(**values | changes)


def hospital(
    settings: Experiment, states: HospitalStates | None = None, seed: int = 5, held: int = 10
) -> Hospital:
    images = HospitalData(SHARED, np.arange(10, 40), np.arange(40, 40 + held), settings.training)
    return Hospital(1, settings, images, Classifier(settings.model, settings.training, seed=seed), states)


def first_weights(settings: Experiment) -> np.ndarray:
    weights = to_vector(Classifier(settings.model, settings.training, seed=99).network)
    weights.flags.writeable = False  # as under Ray
    return weights


def update_of(settings: Experiment, round: int = 1) -> np.ndarray:
    own = hospital(settings)
    own.fit(round, first_weights(settings))
    assert own.update is not None
    return own.update


def rounds(own: Hospital, weights: np.ndarray, numbers: range) -> np.ndarray:
    """Fit round after round, with the hospital's own update taken as the federation's."""
    for number in numbers:
        own.fit(number, weights)
        weights = weights + own.update
    return weights


@pytest.mark.parametrize("model", [Model(width=2), BATCH_NORM], ids=["dpresnet", "batch norm"])
def test_the_same_seed_and_weights_give_the_same_update_to_the_bit(model: Model) -> None:
    settings = experiment(model=model)
    first = update_of(settings)
    torch.rand(3)  # the global generator's state plays no part
    second = hospital(settings, seed=6)  # nor do the first weights of its own module
    second.fit(1, first_weights(settings))
    assert first.any()
    assert second.update.tobytes() == first.tobytes()


@pytest.mark.parametrize("change", [{"seed": 43}, {"augment": False}, {"batch_size": 9}, {"lr": 0.02}])
def test_another_setting_gives_another_update(change: dict[str, Any]) -> None:
    assert not np.array_equal(update_of(experiment()), update_of(experiment(**change)))


def test_another_round_gives_another_update() -> None:
    settings = experiment()
    assert not np.array_equal(update_of(settings, 1), update_of(settings, 2))


def test_the_report_tells_images_steps_and_loss() -> None:
    settings = experiment(local_epochs=2)
    own = hospital(settings)
    report = own.fit(3, first_weights(settings))
    assert (report.hospital, report.round, report.images, report.steps) == (1, 3, 30, 8)
    assert report.loss == pytest.approx(np.log(8), abs=0.7)
    assert report.seconds > 0
    assert own.fit(3, first_weights(settings)).steps == 8


def test_local_steps_take_the_place_of_epochs() -> None:
    settings = experiment(local_steps=3, local_epochs=5)
    assert hospital(settings).fit(1, first_weights(settings)).steps == 3


def test_one_step_of_sgd_is_the_rate_times_the_gradient_of_that_batch() -> None:
    settings = experiment(optimizer="SGD", local_steps=1, lr=0.5, augment=False)
    found = update_of(settings)
    reference = Classifier(settings.model, settings.training)
    load_vector(reference.network, first_weights(settings))
    (batch,) = hospital(settings).plan(1).batches()
    rows = 10 + batch.positions
    reference.training_step(
        (torch.from_numpy(SHARED.images[rows]), torch.from_numpy(SHARED.labels[rows])), 0
    ).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in reference.network.parameters()])
    np.testing.assert_allclose(found, -0.5 * gradient.numpy(), atol=1e-6)


def test_fedprox_without_its_term_is_fedavg_to_the_bit() -> None:
    assert np.array_equal(update_of(experiment()), update_of(experiment(strategy="fedprox", proximal_mu=0.0)))


def test_fedprox_pulls_the_update_towards_zero_the_more_the_greater_its_weight() -> None:
    sizes = [
        np.linalg.norm(update_of(experiment(optimizer="SGD", strategy="fedprox", proximal_mu=mu, local_epochs=3)))
        for mu in (0.0, 10.0, 50.0)
    ]
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * 1.2 * sizes[2] > 0


def moments(own: Hospital) -> list[torch.Tensor]:
    return [state["exp_avg"].clone() for state in own.optimizer.state.values()]


def test_moments_live_on_from_round_to_round_unless_they_are_reset() -> None:
    settings = experiment()
    keeps, forgets = hospital(settings), hospital(experiment(reset_optimizer_state=True))
    for own in (keeps, forgets):
        own.fit(1, first_weights(settings))
    assert np.array_equal(keeps.update, forgets.update)
    fresh = hospital(settings)
    for own in (keeps, forgets, fresh):
        own.fit(2, first_weights(settings))
    assert np.array_equal(forgets.update, fresh.update)
    assert not np.array_equal(keeps.update, fresh.update)
    assert all(state["step"] == 4 for state in forgets.optimizer.state.values())
    assert all(state["step"] == 8 for state in keeps.optimizer.state.values())


@pytest.mark.parametrize("model", [Model(width=2), BATCH_NORM], ids=["dpresnet", "batch norm"])
@pytest.mark.parametrize("optimizer", [{"optimizer": "Adam"}, {"optimizer": "SGD", "momentum": 0.9}])
def test_a_hospital_restored_after_a_round_goes_on_to_the_bit(
    tmp_path: Path, model: Model, optimizer: dict[str, Any]
) -> None:
    settings = experiment(model=model, **optimizer)
    whole = hospital(settings, HospitalStates(tmp_path / "whole", 1))
    wanted = rounds(whole, first_weights(settings), range(1, 4))
    killed = hospital(settings, HospitalStates(tmp_path / "killed", 1))
    weights = rounds(killed, first_weights(settings), range(1, 2))
    rounds(killed, weights, range(2, 3))  # a round that the driver did not finish
    resumed = hospital(settings, HospitalStates(tmp_path / "killed", 1), seed=77)
    resumed.restore(1)
    assert rounds(resumed, weights, range(2, 4)).tobytes() == wanted.tobytes()
    assert states_equal(resumed, whole)


def states_equal(one: Hospital, other: Hospital) -> bool:
    pairs = zip(one.classifier.state_dict().items(), other.classifier.state_dict().items(), strict=True)
    return all(name == same and torch.equal(value, like) for (name, value), (same, like) in pairs)


def test_a_hospital_whose_state_is_missing_is_refused_and_not_started_afresh(tmp_path: Path) -> None:
    own = hospital(experiment(), HospitalStates(tmp_path, 1))
    with pytest.raises(InputError, match=r"state-00005\.pt"):
        own.restore(5)


def test_moments_that_the_next_round_forgets_are_not_written(tmp_path: Path) -> None:
    settings = experiment(reset_optimizer_state=True)
    states = HospitalStates(tmp_path, 1)
    rounds(hospital(settings, states), first_weights(settings), range(1, 2))
    assert states.load(1) == {"optimizer": None, "counters": {}}


def test_an_optimizer_that_makes_its_state_at_once_can_be_reset() -> None:
    settings = experiment(reset_optimizer_state=True, optimizer="Adagrad")
    own = hospital(settings)
    own.fit(1, first_weights(settings))
    once = own.update.copy()
    own.fit(1, first_weights(settings))
    assert np.array_equal(own.update, once)


class Watch(FollowSchedule):
    """Notes the rate that each step is really taken at."""

    seen: list[float]

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_every_step_is_taken_at_the_federations_rate(monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    settings = experiment(schedule=schedule, warmup_rounds=1.0, rounds=4)
    Watch.seen = []
    monkeypatch.setattr(local_work, "FollowSchedule", Watch)
    rounds(hospital(settings), first_weights(settings), range(1, 5))
    rate = Schedule(settings.training, 4).rate
    assert Watch.seen == [rate(round + (step + 0.5) / 4) for round in range(4) for step in range(4)]
    assert len(set(Watch.seen)) > 4


def test_the_first_step_of_a_warm_up_and_the_last_of_a_cosine_move_something() -> None:
    settings = experiment(warmup_rounds=1.0, local_steps=1, schedule="cosine", rounds=2)
    assert update_of(settings, round=1).any()
    assert update_of(settings, round=2).any()


def test_half_precision_trains_and_stays_near_single_precision() -> None:
    single, half = (update_of(experiment(precision=precision)) for precision in ("32-true", "bf16-mixed"))
    assert half.dtype == np.float32
    assert 0 < np.linalg.norm(single - half) < np.linalg.norm(single)

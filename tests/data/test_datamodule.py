import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.data.datamodule import (
    DrawnPlan,
    HospitalData,
    Plan,
    PlannedBatch,
    PlannedBatches,
    flip_and_turn,
)
from lightning_fed.data.images import ImageSet
from lightning_fed.experiment import Training

PLAN = Plan(images=50, batch_size=8, epochs=2, steps=None, seed=1, hospital=2, round=3)


def positions(plan: Plan) -> list[list[int]]:
    return [batch.positions.tolist() for batch in plan.batches()]


@pytest.fixture
def shared() -> ImageSet:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    images.flags.writeable = False  # as under Ray
    return ImageSet(images, np.arange(80) % 8)


def hospital_data(shared: ImageSet, augment: bool = False) -> HospitalData:
    data = HospitalData(shared, np.arange(10, 60), np.arange(60, 70), Training(batch_size=8, augment=augment))
    data.plan = PLAN
    return data


def test_flip_and_turn_gives_exactly_the_eight_symmetries_of_the_square() -> None:
    picture = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    found = {image.tobytes() for image in flip_and_turn(np.stack([picture] * 8), np.arange(8))}
    wanted = set()
    for transposed, down, right in itertools.product((False, True), repeat=3):
        image = picture.transpose(1, 0, 2) if transposed else picture
        wanted.add(image[:: -1 if down else 1, :: -1 if right else 1].tobytes())
    assert len(wanted) == 8
    assert found == wanted


def test_flip_and_turn_by_choice_zero_changes_nothing_and_leaves_its_input_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    before = images.copy()
    turned = flip_and_turn(images, np.array([0, 1, 0, 5, 7, 0]))
    assert np.array_equal(images, before)
    assert np.array_equal(turned[[0, 2, 5]], images[[0, 2, 5]])
    assert not np.shares_memory(turned, images)


@given(images=st.integers(1, 60), batch_size=st.integers(1, 70), epochs=st.integers(1, 3))
def test_every_epoch_covers_every_image_once(images: int, batch_size: int, epochs: int) -> None:
    plan = replace(PLAN, images=images, batch_size=batch_size, epochs=epochs)
    batches = positions(plan)
    assert len(batches) == plan.length
    a_pass = plan.length // epochs
    for epoch in range(epochs):
        dealt = list(itertools.chain(*batches[epoch * a_pass : (epoch + 1) * a_pass]))
        assert sorted(dealt) == list(range(images))
    assert all(len(batch) <= batch_size for batch in batches)


@given(images=st.integers(1, 60), batch_size=st.integers(1, 70), steps=st.integers(1, 30))
def test_the_steps_mode_gives_exactly_so_many_and_repeats_no_image_before_all_were_seen(
    images: int, batch_size: int, steps: int
) -> None:
    plan = replace(PLAN, images=images, batch_size=batch_size, steps=steps)
    batches = positions(plan)
    assert len(batches) == plan.length == steps
    seen = list(itertools.chain(*batches))
    counts = np.bincount(seen, minlength=images)
    assert counts.max() - counts.min() <= 1
    assert [batch.step for batch in plan.batches()] == list(range(steps))


def test_the_same_seed_hospital_and_round_give_the_same_batches() -> None:
    assert positions(PLAN) == positions(replace(PLAN))


@pytest.mark.parametrize("change", [{"round": 4}, {"hospital": 3}, {"seed": 2}])
def test_another_round_hospital_or_seed_gives_other_batches(change: dict[str, int]) -> None:
    assert positions(PLAN) != positions(replace(PLAN, **change))


def test_two_epochs_of_a_round_are_dealt_in_different_orders() -> None:
    batches = positions(PLAN)
    assert batches[:7] != batches[7:]


def test_construction_copies_none_of_the_shared_pixels(shared: ImageSet) -> None:
    data = hospital_data(shared)
    loader = data.train_dataloader()
    assert np.shares_memory(data.shared.images, shared.images)
    assert np.shares_memory(loader.dataset.shared.images, shared.images)


def test_the_loader_gives_the_hospitals_own_images_and_no_others(shared: ImageSet) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of tensors over read-only arrays
        batches = list(hospital_data(shared).train_dataloader())
    rows = [10 + position for batch in positions(PLAN) for position in batch]
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert images.dtype == torch.uint8
    assert np.array_equal(images.numpy(), shared.images[rows])
    assert labels.tolist() == shared.labels[rows].tolist()


def test_augmented_images_are_symmetries_of_the_plain_ones_and_labels_stay(shared: ImageSet) -> None:
    plain = list(hospital_data(shared).train_dataloader())
    augmented = list(hospital_data(shared, augment=True).train_dataloader())
    moved = 0
    for (images, labels), (others, other_labels) in zip(plain, augmented, strict=True):
        assert labels.tolist() == other_labels.tolist()
        for image, other in zip(images.numpy(), others.numpy(), strict=True):
            symmetries = flip_and_turn(np.stack([image] * 8), np.arange(8))
            assert any(np.array_equal(symmetry, other) for symmetry in symmetries)
            moved += not np.array_equal(image, other)
    assert moved > 70, "of 100 images seven in eight should have moved"


def test_augmentation_is_the_same_in_whatever_order_the_steps_are_asked_for(shared: ImageSet) -> None:
    batches = PlannedBatches(shared, np.arange(50), PLAN, Training(augment=True))
    dealt = list(PLAN.batches())
    forwards = [batches[batch][0] for batch in dealt]
    backwards = [batches[batch][0] for batch in reversed(dealt)][::-1]
    assert all(torch.equal(one, other) for one, other in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize(
    ("change", "step"), [({"round": 4}, 0), ({"hospital": 3}, 0), ({"seed": 2}, 0), ({}, 1)], ids=str
)
def test_another_round_hospital_seed_or_step_augments_the_same_images_in_another_way(
    shared: ImageSet, change: dict[str, int], step: int
) -> None:
    first = PlannedBatches(shared, np.arange(50), PLAN, Training(augment=True))[PlannedBatch(0, np.arange(50))][0]
    another = PlannedBatches(shared, np.arange(50), replace(PLAN, **change), Training(augment=True))
    second = another[PlannedBatch(step, np.arange(50))][0]
    assert not torch.equal(first, second)


def test_held_out_images_are_a_copy_of_the_validation_rows(shared: ImageSet) -> None:
    held = hospital_data(shared).held_out()
    assert np.array_equal(held.images, shared.images[60:70])
    assert held.labels.tolist() == shared.labels[60:70].tolist()
    assert not np.shares_memory(held.images, shared.images)


def test_training_without_a_plan_is_refused(shared: ImageSet) -> None:
    data = HospitalData(shared, np.arange(10), np.arange(0), Training())
    with pytest.raises(RuntimeError, match="set the round's plan"):
        data.train_dataloader()


def test_distorted_views_of_an_image_differ_and_do_not_depend_on_which_others_were_drawn(shared: ImageSet) -> None:
    training = Training(augment=False, distort=1.0, views=3)
    few, many = (
        DrawnPlan((np.array(drawn),), images=50, load=16, views=3, seed=1, hospital=2, round=3)
        for drawn in ([4, 9], [1, 4, 7, 9])
    )
    (one,) = few.batches()
    (other,) = many.batches()
    found = PlannedBatches(shared, np.arange(50), few, training)[one][0].numpy().astype(int)
    among = PlannedBatches(shared, np.arange(50), many, training)[other][0].numpy().astype(int)
    assert np.abs(found - among[[3, 4, 5, 9, 10, 11]]).max() <= 1
    assert np.abs(found[0] - found[1]).mean() > 1

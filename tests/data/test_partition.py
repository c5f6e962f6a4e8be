from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_fed.data.partition import PARTITIONS, Dirichlet, Iid, Quantity, Shards, hold_out, share_out
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data

AUTHORS_TEN_HOSPITALS = [1093, 1298, 761, 1631, 926, 1466, 1090, 1302, 1125, 1267]


def authors_ranges(images: int, hospitals: int, seed: int) -> Iterator[list[int]]:
    """The rule once more, in plain Python, from facts.md section 4."""
    floor, rest = images // hospitals, images % hospitals
    sizes = [floor + (hospital >= hospitals - rest) for hospital in range(hospitals)]
    generator = np.random.RandomState(seed)
    for pair in range(hospitals // 2):
        moved = int(generator.randint(0, 0.5 * floor))
        sizes[2 * pair] -= moved
        sizes[2 * pair + 1] += moved
    start = 0
    for size in sizes:
        yield list(range(start, start + size))
        start += size


def labels_of(images: int, classes: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, images)


def test_quantity_gives_ten_hospitals_the_authors_numbers() -> None:
    shares = Quantity()(labels_of(11_959), 10)
    assert [len(share) for share in shares] == AUTHORS_TEN_HOSPITALS


@pytest.mark.parametrize("images", [11_959, 1_000, 97])
@pytest.mark.parametrize("hospitals", [1, 2, 3, 5, 7, 10, 13, 20])
@pytest.mark.parametrize("seed", [42, 7])
def test_quantity_follows_the_authors_rule_for_any_number_of_hospitals(
    images: int, hospitals: int, seed: int
) -> None:
    shares = Quantity(seed)(labels_of(images), hospitals)
    assert [share.tolist() for share in shares] == list(authors_ranges(images, hospitals, seed))


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    hospitals=st.integers(1, 12),
    name=st.sampled_from(sorted(PARTITIONS)),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 4),
)
def test_every_image_goes_to_exactly_one_hospital(
    labels: list[int], hospitals: int, name: str, seed: int, classes: int
) -> None:
    data = Data(partition=name, partition_seed=seed, classes_per_hospital=classes, alpha=100.0, min_images=1)
    array = np.array(labels)
    try:
        shares = share_out(data, array, min(hospitals, len(labels)))
    except InputError:  # a hospital would be left without an image
        assume(False)
    assert len(shares) == min(hospitals, len(labels))
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(labels)))


@given(images=st.integers(1, 200), hospitals=st.integers(1, 20), seed=st.integers(0, 1000))
def test_iid_sizes_differ_by_one_image_at_most(images: int, hospitals: int, seed: int) -> None:
    sizes = [len(share) for share in Iid(seed)(labels_of(images), hospitals)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_mixes_the_order_of_the_file() -> None:
    shares = Iid(0)(labels_of(1000), 2)
    assert 400 < np.mean(shares[0]) < 600


@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_the_same_seed_splits_the_same_way_and_another_seed_another_way(name: str) -> None:
    labels = labels_of(400)

    def split(seed: int) -> list[list[int]]:
        data = Data(partition=name, partition_seed=seed, min_images=1)
        return [share.tolist() for share in share_out(data, labels, 4)]

    assert split(1) == split(1)
    assert split(1) != split(2)


def test_a_split_leaves_the_global_random_state_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    Quantity()(labels_of(100), 4)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("name", ["iid", "quantity", "shards"])
def test_a_hospital_below_the_fewest_images_is_refused_with_its_number_and_size(name: str) -> None:
    data = Data(partition=name, min_images=26)
    with pytest.raises(InputError, match=r"data\.min_images is 26, but hospital \d would hold \d+ of 100 images"):
        share_out(data, labels_of(100), 4)


def test_more_hospitals_than_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"federation\.hospitals is 6: there are only 5 training images"):
        share_out(Data(min_images=1), labels_of(5), 6)


def test_a_small_alpha_that_empties_hospitals_is_refused_with_both_keys() -> None:
    with pytest.raises(InputError, match=r"data\.alpha is 0\.001: .*data\.min_images = 30.*raise alpha or lower"):
        share_out(Data(partition="dirichlet", alpha=0.001, min_images=30), labels_of(200), 5)


def test_dirichlet_draws_again_until_every_hospital_holds_enough() -> None:
    labels = labels_of(600)
    needy, easy = Dirichlet(5, 0.5, 60)(labels, 5), Dirichlet(5, 0.5, 1)(labels, 5)
    assert min(map(len, easy)) < 60 <= min(map(len, needy))


def test_a_smaller_alpha_makes_hospitals_less_alike() -> None:
    labels = labels_of(4000)

    def unlikeness(alpha: float) -> float:
        shares = Dirichlet(0, alpha, 1)(labels, 5)
        counts = np.array([np.bincount(labels[share], minlength=8) / len(share) for share in shares])
        return float(counts.std(axis=0).mean())

    assert unlikeness(0.1) > 2 * unlikeness(1.0) > 4 * unlikeness(100.0)


@given(classes_per_hospital=st.integers(1, 4), hospitals=st.integers(2, 8), seed=st.integers(0, 99))
def test_shards_that_fit_the_classes_give_a_hospital_so_many_classes_at_most(
    classes_per_hospital: int, hospitals: int, seed: int
) -> None:
    classes = hospitals * classes_per_hospital
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), 6))
    shares = Shards(seed, classes_per_hospital)(labels, hospitals)
    assert {len(np.unique(labels[share])) for share in shares} == {classes_per_hospital}
    assert {len(share) for share in shares} == {6 * classes_per_hospital}


@given(
    images=st.integers(1, 200),
    validation=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
    hospital=st.integers(0, 20),
)
def test_hold_out_takes_the_share_and_leaves_at_least_one_image_to_train_on(
    images: int, validation: float, seed: int, hospital: int
) -> None:
    share = np.arange(1000, 1000 + 3 * images, 3)
    train, held = hold_out(share, validation, seed, hospital)
    assert sorted([*train, *held]) == share.tolist()
    assert len(train) >= 1
    assert len(held) == min(round(validation * images), images - 1)


def test_hold_out_is_seeded_and_each_hospital_has_its_own_draw() -> None:
    share = np.arange(50)
    held = hold_out(share, 0.2, 1, 0)[1].tolist()
    assert held == hold_out(share, 0.2, 1, 0)[1].tolist()
    assert held != hold_out(share, 0.2, 2, 0)[1].tolist()
    assert held != hold_out(share, 0.2, 1, 1)[1].tolist()

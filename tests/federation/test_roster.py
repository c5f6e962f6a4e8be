import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.data.images import ImageData, ImageSet
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Ray
from lightning_fed.federation.roster import Member, Roster, make_roster


def roster_of(sizes: list[int], per_site: int) -> Roster:
    members = (Member(number, np.arange(size), np.arange(0)) for number, size in enumerate(sizes))
    return Roster(tuple(members), per_site)


def images(count: int) -> ImageData:
    split = ImageSet(np.zeros((count, 8, 8, 3), np.uint8), np.arange(count) % 4)
    return ImageData("name", "title", False, ("a", "b", "c", "d"), split, split, split)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=25), per_site=st.integers(1, 30))
def test_every_hospital_has_one_site_and_no_site_too_many_hospitals(sizes: list[int], per_site: int) -> None:
    roster = roster_of(sizes, per_site)
    numbers = [member.hospital for group in roster.groups for member in group]
    assert sorted(numbers) == list(range(len(sizes)))
    assert all(1 <= len(group) <= per_site for group in roster.groups)
    assert len(roster.groups) == -(-len(sizes) // per_site)
    for number, site in roster.site_of.items():
        assert number in [member.hospital for member in roster.groups[site]]


def test_large_and_small_hospitals_are_mixed() -> None:
    groups = roster_of([10, 60, 20, 50, 30, 40], 2).groups
    assert [[len(member.train) for member in group] for group in groups] == [[60, 30], [50, 20], [40, 10]]


def test_the_largest_hospital_of_a_cohort_starts_first_and_ties_keep_their_order() -> None:
    roster = roster_of([10, 60, 20, 60, 30], 1)
    assert roster.largest_first([0, 1, 3, 4]) == [1, 3, 4, 0]
    assert roster.largest_first([2]) == [2]


def test_a_roster_covers_the_training_images_once() -> None:
    experiment = Experiment(data=Data(validation=0.2, min_images=1), federation=Federation(hospitals=5))
    roster = make_roster(experiment, images(200))
    rows = np.concatenate([np.concatenate([member.train, member.validation]) for member in roster.members])
    assert sorted(rows.tolist()) == list(range(200))
    assert [member.hospital for member in roster.members] == list(range(5))
    for member in roster.members:
        assert len(member.validation) == round(0.2 * (len(member.train) + len(member.validation)))


def test_the_runs_seed_does_not_move_the_images_and_the_partitions_does() -> None:
    def rows(**changes: object) -> list[list[int]]:
        seed = changes.pop("seed", 42)
        experiment = Experiment(data=Data(min_images=1, **changes), federation=Federation(hospitals=3), seed=seed)
        return [member.train.tolist() for member in make_roster(experiment, images(100)).members]

    assert rows() == rows(seed=7)
    assert rows() != rows(partition_seed=7)


def test_without_ray_all_hospitals_share_one_site() -> None:
    experiment = Experiment(
        data=Data(min_images=1), federation=Federation(hospitals=7), ray=Ray(enabled=False, hospitals_per_actor=2)
    )
    assert len(make_roster(experiment, images(100)).groups) == 1


def test_hospitals_are_packed_as_ray_hospitals_per_actor_says() -> None:
    experiment = Experiment(
        data=Data(min_images=1), federation=Federation(hospitals=7), ray=Ray(hospitals_per_actor=3)
    )
    assert sorted(len(group) for group in make_roster(experiment, images(100)).groups) == [2, 2, 3]


def test_a_split_that_does_not_fit_the_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"data\."):
        make_roster(Experiment(data=Data(min_images=90)), images(100))

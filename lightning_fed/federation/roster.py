"""Which hospital holds which images, and which hospitals share a process.

Light on purpose: an actor unpickles these before it imports Lightning leanly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lightning_fed.data.images import ImageData, Indices
from lightning_fed.data.partition import hold_out, share_out
from lightning_fed.experiment import Experiment
from lightning_fed.privacy.dose import Dose


@dataclass(frozen=True)
class Member:
    """A hospital's place in the data, and its noise.

    Args:
        hospital: from 0. train, validation: its rows of the training images, and those that it holds out.
        dose: its noise and privacy budget for the whole run; None without a mechanism.
    """

    hospital: int
    train: Indices
    validation: Indices
    dose: Dose | None = None

    def images_in_a_round(self, experiment: Experiment) -> float:
        """Images of all steps of a round, in the mean, each view of one counted."""
        federation, training = experiment.federation, experiment.training
        if self.dose is not None and self.dose.unit == "image":
            return self.dose.batch * self.dose.steps * training.views
        if federation.local_steps is not None:
            return float(federation.local_steps * training.batch_size)
        return float(federation.local_epochs * len(self.train))


@dataclass(frozen=True)
class Roster:
    """Which hospital holds which images, and which hospitals share a site.

    Args:
        members: by hospital. per_site: hospitals of one site.
    """

    members: tuple[Member, ...]
    per_site: int

    @cached_property
    def groups(self) -> list[tuple[Member, ...]]:
        """The members of each site: large and small hospitals mixed, so that sites have like loads."""
        sites = -(-len(self.members) // self.per_site)
        by_size = sorted(self.members, key=lambda member: -len(member.train))
        return [tuple(by_size[site::sites]) for site in range(sites)]

    @cached_property
    def site_of(self) -> dict[int, int]:
        """Hospital -> site."""
        return {member.hospital: site for site, group in enumerate(self.groups) for member in group}

    @property
    def doses(self) -> tuple[Dose, ...] | None:
        """Each hospital's, None without a mechanism."""
        found = tuple(member.dose for member in self.members if member.dose is not None)
        return found or None

    def with_doses(self, doses: Sequence[Dose] | None) -> Roster:
        """The same hospitals with their noise."""
        if doses is None:
            return self
        pairs = zip(self.members, doses, strict=True)
        return replace(self, members=tuple(replace(member, dose=dose) for member, dose in pairs))

    def largest_first(self, cohort: list[int]) -> list[int]:
        """The cohort in the order in which to start: the longest work first leaves the shortest tail."""
        return sorted(cohort, key=lambda hospital: -len(self.members[hospital].train))


def make_roster(experiment: Experiment, data: ImageData) -> Roster:
    """Share out the training images of an experiment.

    Raises:
        InputError: the partition does not fit the images.
    """
    seed, hospitals = experiment.data.partition_seed, experiment.federation.hospitals
    shares = share_out(experiment.data, data.train.labels, hospitals)
    members = tuple(
        Member(hospital, *hold_out(share, experiment.data.validation, seed, hospital))
        for hospital, share in enumerate(shares)
    )
    per_site = experiment.ray.hospitals_per_actor if experiment.ray.enabled else hospitals
    return Roster(members, per_site)

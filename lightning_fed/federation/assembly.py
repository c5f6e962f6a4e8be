"""From an experiment and its images to hospitals that are ready to work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_fed.data.images import ImageData
from lightning_fed.data.partition import hold_out, share_out
from lightning_fed.experiment import Experiment
from lightning_fed.federation.crew import Crew, LocalCrew
from lightning_fed.federation.site import Member, Site


@dataclass(frozen=True)
class Roster:
    """Which hospital holds which images, and which hospitals share a site.

    Args:
        members: by hospital. per_site: hospitals of one site.
    """

    members: tuple[Member, ...]
    per_site: int

    @property
    def groups(self) -> list[tuple[Member, ...]]:
        """The members of each site: large and small hospitals mixed, so that sites have like loads."""
        sites = -(-len(self.members) // self.per_site)
        by_size = sorted(self.members, key=lambda member: -len(member.train))
        return [tuple(by_size[site::sites]) for site in range(sites)]

    @property
    def site_of(self) -> dict[int, int]:
        """Hospital -> site."""
        return {member.hospital: site for site, group in enumerate(self.groups) for member in group}

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
        Member(hospital, *hold_out(np.asarray(share), experiment.data.validation, seed, hospital))
        for hospital, share in enumerate(shares)
    )
    per_site = experiment.ray.hospitals_per_actor if experiment.ray.enabled else hospitals
    return Roster(members, per_site)


def open_crew(experiment: Experiment, data: ImageData, roster: Roster, output: Path | None) -> Crew:
    """The sites of an experiment, built and placed: Ray actors, or one in this process.

    Raises:
        InputError: the cluster cannot be reached or cannot hold the hospitals.
    """
    if not experiment.ray.enabled:
        return LocalCrew(Site(experiment, data, roster.members, output))
    from lightning_fed.federation.actors import ActorCrew  # Ray is not needed where it is switched off
    from lightning_fed.federation.cluster import Cluster

    cluster = Cluster(experiment.ray)
    try:
        return ActorCrew(cluster, experiment, data, roster.groups, output)
    except BaseException:
        cluster.close()
        raise

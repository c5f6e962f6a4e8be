"""From an experiment and its images to hospitals that are ready to work."""

from __future__ import annotations

from pathlib import Path

from lightning_fed.data.images import ImageData
from lightning_fed.experiment import Experiment
from lightning_fed.federation.crew import Crew, LocalCrew
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.site import Site


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

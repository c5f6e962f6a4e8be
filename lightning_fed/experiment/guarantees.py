"""What a guarantee asks of the rest of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_fed.errors import InputError

if TYPE_CHECKING:
    from lightning_fed.experiment.whole import Experiment


def check_privacy(experiment: Experiment) -> None:
    """Raise where the mechanism does not go with the rest."""
    privacy = experiment.privacy
    if not privacy.by_images and experiment.training.views > 1:
        raise InputError(
            "training.views: only privacy.mechanism 'record' and 'distributed' average views; set it to 1"
        )
    if not privacy.guarantees:
        return
    if experiment.data.validation:
        raise InputError(
            f"data.validation is {experiment.data.validation:g}: under a guarantee hospitals hold no images back; "
            "set it to 0 (the set's own validation split measures the rounds)"
        )
    if experiment.model.norm == "batch" and experiment.model.name in ("resnet9", "resnet18"):
        raise InputError("model.norm is 'batch': it mixes the images of a batch; set it to group under privacy")
    federation = experiment.federation
    if privacy.mechanism == "update" and federation.weighting == "images" and not federation.weights:
        raise InputError(
            "federation.weighting is 'images': under update-level privacy a hospital's count is private too; "
            "set it to equal, or give federation.weights"
        )
    if privacy.mechanism == "distributed":
        _check_step(experiment)
        _check_sum(experiment)
    if privacy.clipping == "ghost" and experiment.training.precision != "32-true":
        raise InputError("privacy.clipping 'ghost' takes norms in half precision; use one_pass, or 32-true")
    if privacy.clipping == "ghost" and experiment.training.views > 1:
        raise InputError("privacy.clipping 'ghost' clips single rows; use one_pass or hooks with training.views")


def _check_step(experiment: Experiment) -> None:
    """Raise unless a round of `distributed` is one step at its public weights, inside a masked sum."""
    federation, secagg = experiment.federation, experiment.secagg
    if not secagg.masked:
        raise InputError(
            f"secagg.protocol is '{secagg.protocol}': under privacy.mechanism 'distributed' a hospital's own "
            "noise is a share only; set it to secagg_plus"
        )
    if federation.local_steps is None:
        raise InputError(
            "federation.local_steps: under privacy.mechanism 'distributed' a round takes its gradients at the "
            "round's public weights; set it to 1 (more adds further samples at the same weights)"
        )
    if federation.strategy != "fedavg" or federation.server_optimizer is not None:
        raise InputError(
            "federation.strategy, federation.server_optimizer: under privacy.mechanism 'distributed' the "
            "server takes the step by training.optimizer; leave them out"
        )
    if federation.weights or experiment.training.reset_optimizer_state:
        raise InputError(
            "federation.weights, training.reset_optimizer_state: under privacy.mechanism 'distributed' sums "
            "are added as they are and hospitals have no optimizer; leave them out"
        )


def _check_sum(experiment: Experiment) -> None:
    """Raise unless every sum of `distributed` that may be opened holds the noise that is counted on."""
    federation, secagg = experiment.federation, experiment.secagg
    parameters = secagg.parameters(federation)
    if not parameters.complete:
        raise InputError(
            f"secagg.degree is {parameters.degree}: under privacy.mechanism 'distributed' all must agree on "
            f"who is in the sum; set it to {parameters.hospitals - 1}, every other hospital"
        )
    warning = secagg.warning(federation)
    if warning is not None:
        raise InputError(f"{warning}; under privacy.mechanism 'distributed' leave allow_unsafe out")
    colluding = experiment.privacy.colluding_hospitals
    assumed = max(secagg.assumption(federation).corrupt(parameters.hospitals), 1)
    if colluding > assumed:
        raise InputError(
            f"privacy.colluding_hospitals is {colluding}, but secagg.adversary_rate counts on {assumed} of "
            f"{parameters.hospitals}; set that to {colluding / parameters.hospitals:.3g} or more"
        )
    least = secagg.least_survivors(federation)
    if parameters.threshold + least <= federation.hospitals + assumed:
        raise InputError(
            f"federation.participation: two sums of {least} of the {federation.hospitals} hospitals could be "
            f"opened in one round, by {parameters.threshold} each, and be paid for once; under "
            "privacy.mechanism 'distributed' let all take part"
        )
    if experiment.counted_survivors < 1:
        raise InputError(
            f"privacy.colluding_hospitals is {colluding}: nobody's noise is left of the "
            f"{least} that a sum must hold; raise secagg.min_survivors"
        )

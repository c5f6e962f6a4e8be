"""What of one section does not go with another's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_fed.errors import InputError
from lightning_fed.secagg.parameters import SMALLEST_COHORT

if TYPE_CHECKING:
    from lightning_fed.experiment.whole import Experiment


def check_secagg(experiment: Experiment) -> None:
    """Raise where a sum could not be opened, or would be opened of too few."""
    secagg, federation = experiment.secagg, experiment.federation
    if secagg.identities and len(secagg.identities) != federation.hospitals:
        raise InputError(
            f"secagg.identities: {len(secagg.identities)} keys for {federation.hospitals} hospitals; "
            "give one for each, or none"
        )
    if len(set(secagg.identities)) < len(secagg.identities):
        raise InputError("secagg.identities: two hospitals have the same key; give each its own")
    if secagg.protocol == "additive" and federation.cohort_size < SMALLEST_COHORT:
        raise InputError(
            f"secagg.protocol additive: {federation.cohort_size} hospitals in a round; the sum of two tells "
            f"each the other's, so let {SMALLEST_COHORT} or more take part"
        )
    if not secagg.masked:
        return
    if secagg.degree is not None and secagg.degree >= federation.cohort_size:
        raise InputError(
            f"secagg.degree is {secagg.degree}: {federation.cohort_size} hospitals take part, so each has "
            f"{federation.cohort_size - 1} neighbours at most"
        )
    parameters = secagg.parameters(federation)
    if secagg.min_survivors is not None and secagg.min_survivors > parameters.hospitals:
        raise InputError(
            f"secagg.min_survivors is {secagg.min_survivors}: only {parameters.hospitals} hospitals take part"
        )
    least = secagg.least_survivors(federation)
    if federation.over_selection > 1 and least > federation.enough:
        raise InputError(
            f"federation.over_selection: a round closes with {federation.enough} hospitals, but a sum is "
            f"opened of {least} or more; raise federation.participation, or lower over_selection or "
            "secagg.min_survivors"
        )
    if secagg.rounds_per_setup > 1 and federation.cohort_size < federation.hospitals:
        raise InputError(
            "secagg.rounds_per_setup: with federation.participation below 1 the cohort changes from round to "
            "round; set one of the two to 1"
        )


def check_fedmic(experiment: Experiment) -> None:
    """Raise where FedMIC's updates would have to be masked or protected."""
    if experiment.federation.strategy != "fedmic":
        return
    if experiment.secagg.protocol != "plain":
        raise InputError(
            f"secagg.protocol is '{experiment.secagg.protocol}': fedmic's hospitals send factors, and a sum of "
            "factors is no update; set it to plain"
        )
    if experiment.privacy.mechanism != "none":
        raise InputError(
            f"privacy.mechanism is '{experiment.privacy.mechanism}': the size of fedmic's updates tells of the "
            "images; set it to none"
        )
    if not experiment.evaluation.diagnostics:
        raise InputError(
            "evaluation.diagnostics is false: what fedmic's models are worth, which stay in the hospitals, "
            "is a diagnostic; set it to true"
        )


def check_robustness(experiment: Experiment) -> None:
    """Raise where a defence, or an attack, cannot work as it is asked for."""
    federation, poison = experiment.federation, experiment.faults.poison
    if federation.aggregator != "mean" and experiment.secagg.protocol != "plain":
        raise InputError(
            f"federation.aggregator is '{federation.aggregator}': the server must see each update, and "
            f"secagg.protocol '{experiment.secagg.protocol}' hides them; set one of the two to mean or plain"
        )
    if federation.aggregator == "trimmed_mean" and federation.trim * federation.enough < 1 - 1e-9:
        least = math.ceil(1e3 / federation.enough) / 1e3
        raise InputError(
            f"federation.trim is {federation.trim:g}: of {federation.enough} hospitals in a round it "
            f"leaves out none; set it to {least:g} or more, or take the median"
        )
    strangers = [hospital for hospital in poison.hospitals if not 0 <= hospital < federation.hospitals]
    if strangers:
        raise InputError(
            f"faults.poison.hospitals: {strangers[0]} is none of the hospitals 0 to {federation.hospitals - 1}"
        )
    if experiment.privacy.mechanism == "distributed" and (poison.hospitals or federation.norm_bound is not None):
        raise InputError(
            "faults.poison, federation.norm_bound: under privacy.mechanism 'distributed' hospitals send whole "
            "numbers of clipped gradients and no update; leave them out"
        )


def check_faults(experiment: Experiment) -> None:
    """Raise where faults are asked for that cannot happen."""
    if experiment.secagg.rounds_per_setup > 1 and experiment.faults.availability.mean < 1:
        raise InputError(
            "secagg.rounds_per_setup: with faults.availability.mean below 1 the cohort changes from round to "
            "round; set one of the two to 1"
        )
    federation = experiment.federation
    for loss in experiment.faults.dropout.losses:
        if loss.round > federation.rounds or loss.hospital >= federation.hospitals:
            raise InputError(
                f"faults.dropout.losses: hospital {loss.hospital} in round {loss.round}, but there are "
                f"hospitals 0 to {federation.hospitals - 1} and rounds 1 to {federation.rounds}"
            )

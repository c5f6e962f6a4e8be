"""What hospitals agree on before a run: terms, and identities that nobody can swap later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.roster import Roster
from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.client import Client, Self
from lightning_fed.secagg.keys import Directory, Identity
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.wire import packed_bytes

Identities = Mapping[int, Identity]


def enrol(experiment: Experiment, roster: Roster) -> tuple[Experiment, Identities]:
    """Settle what secure aggregation needs and the experiment leaves open: W, and new identities.

    Returns:
        The experiment with `secagg.max_weight` set and public keys pinned, and the secret keys made for it:
        none where the experiment pins keys that hospitals have.

    Raises:
        InputError: a hospital is larger than `secagg.max_weight`, or a sum could wrap.
    """
    if experiment.secagg.protocol == "plain":
        return experiment, {}
    largest = max(roster.members, key=lambda member: len(member.train))
    weight = experiment.secagg.max_weight or len(largest.train)
    if len(largest.train) > weight:
        raise InputError(
            f"secagg.max_weight is {weight}, but hospital {largest.hospital} has {len(largest.train)} images; "
            "raise it, or leave it out"
        )
    identities: dict[int, Identity] = {}
    pinned = experiment.secagg.identities
    if experiment.secagg.protocol == "secagg_plus" and not pinned:
        identities = {member.hospital: Identity() for member in roster.members}
        pinned = [identity.public.hex() for identity in identities.values()]
    settled = replace(experiment, secagg=replace(experiment.secagg, max_weight=weight, identities=pinned))
    encoding_of(settled)
    return settled, identities


def unsafe_choice(experiment: Experiment) -> str | None:
    """What is wrong with degree and threshold that run by `secagg.allow_unsafe`; None where nothing is."""
    if experiment.secagg.protocol != "secagg_plus":
        return None
    return experiment.secagg.warning(experiment.federation)


def encoding_of(experiment: Experiment) -> Encoding:
    """How this experiment's updates become integers.

    Raises:
        InputError: the sum of a cohort could wrap.
    """
    secagg = experiment.secagg
    assert secagg.max_weight is not None, "enrol the experiment first"
    try:
        return Encoding(experiment.federation.cohort_size, secagg.clip, secagg.bits, secagg.max_weight)
    except ValueError as error:
        raise InputError(str(error)) from error


def terms_of(experiment: Experiment, parameters: int) -> Terms:
    """What every party of this experiment knows without being told.

    Args:
        parameters: length of an update.
    """
    encoding, secagg, federation = encoding_of(experiment), experiment.secagg, experiment.federation
    agreed = secagg.parameters(federation)
    dropped = secagg.assumption(federation).dropped(agreed.hospitals)
    return Terms(
        agreed,
        encoding,
        encoding.length(parameters),
        secagg.min_survivors or agreed.threshold,
        secagg.rounds_per_setup,
        least_advertised=0 if agreed.complete else agreed.hospitals - dropped,
        rounds=federation.rounds,
    )


def directory_of(experiment: Experiment) -> Directory:
    """The public keys that the experiment pins.

    Raises:
        InputError: one of them is no Ed25519 key.
    """
    try:
        return Directory({place: bytes.fromhex(key) for place, key in enumerate(experiment.secagg.identities)})
    except ValueError as error:
        raise InputError(f"secagg.identities: {error}; leave them out to have them made") from error


def save_identities(output: Path, identities: Identities) -> None:
    """Each secret key to its hospital's own folder, for its owner's eyes only."""
    for hospital, identity in identities.items():
        identity.save(_identity_file(output, hospital))


def client_of(
    experiment: Experiment, hospital: int, terms: Terms, directory: Directory, output: Path | None
) -> Client:
    """A hospital's SecAgg+ client, with its own secret key.

    Args:
        experiment: the whole run's. terms, directory: its. output: run folder, which holds the hospital's own.

    Raises:
        InputError: the key is missing, damaged, or not the one that the experiment pins.
    """
    assert output is not None, "a hospital of SecAgg+ needs a folder for its key"
    path = _identity_file(output, hospital)
    try:
        identity = Identity.load(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: hospital {hospital}'s signing key cannot be read ({error}); put it back"
        ) from error
    if identity.public.hex() != experiment.secagg.identities[hospital]:
        raise InputError(f"{path}: not the key that secagg.identities pins for hospital {hospital}; put that back")
    marks = path.with_name("answered.txt")
    try:
        answered = AnsweredRounds(marks)
    except (OSError, ValueError) as error:
        raise InputError(f"{marks}: the rounds opened before cannot be read ({error}); put it back") from error
    return Client(Self(hospital, terms, identity, directory, answered))


def _identity_file(output: Path, hospital: int) -> Path:
    return output / "hospitals" / str(hospital) / "identity.key"


def upload_bytes(experiment: Experiment, parameters: int) -> int:
    """Bytes of vectors that one hospital sends in a round."""
    if experiment.secagg.protocol == "plain":
        return 4 * parameters
    encoding = encoding_of(experiment)
    length = encoding.length(parameters)
    if experiment.secagg.protocol == "secagg_plus":
        return packed_bytes(length, encoding.ring_bits)
    return 4 * length * experiment.federation.cohort_size  # a share to each other hospital, and the shares' sum

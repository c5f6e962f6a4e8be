"""What hospitals agree on before a run: terms, and identities that nobody can swap later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightning_fed.errors import FederationError, InputError
from lightning_fed.experiment import Experiment
from lightning_fed.federation.roster import Roster
from lightning_fed.federation.state import HospitalStates
from lightning_fed.privacy.dose import Dose
from lightning_fed.secagg.answers import AnsweredRounds
from lightning_fed.secagg.client import Client, Self
from lightning_fed.secagg.integers import IntegerSum
from lightning_fed.secagg.keys import Directory, Identity
from lightning_fed.secagg.messages import Terms
from lightning_fed.secagg.quantise import Encoding
from lightning_fed.secagg.wire import packed_bytes
from lightning_fed.tracking.files import write_text_whole

Identities = Mapping[int, Identity]


def enrol(experiment: Experiment, roster: Roster, output: Path | None = None) -> tuple[Experiment, Identities]:
    """Settle what secure aggregation needs and the experiment leaves open: W, and new identities.

    Args:
        experiment, roster: the run's. output: folder of a run that goes on, which has its public keys.

    Returns:
        The experiment with `secagg.max_weight` set and public keys pinned, and the secret keys made for it:
        none where the experiment, or the run that goes on, pins keys that hospitals have.

    Raises:
        InputError: a hospital is larger than `secagg.max_weight`, a sum could wrap, or the keys of the run that
            goes on cannot be read.
    """
    if experiment.secagg.protocol == "plain":
        return experiment, {}
    weights = [experiment.federation.weight(member.hospital, len(member.train)) for member in roster.members]
    greatest = experiment.secagg.max_weight or max(weights)
    if max(weights) > greatest:
        raise InputError(
            f"secagg.max_weight is {greatest}, but hospital {weights.index(max(weights))} counts {max(weights)} "
            "in the mean; raise it, or leave it out"
        )
    identities: dict[int, Identity] = {}
    pinned = experiment.secagg.identities
    if experiment.secagg.masked and not pinned and output is not None:
        pinned = _read_pinned(output)
    if experiment.secagg.masked and not pinned:
        identities = {member.hospital: Identity() for member in roster.members}
        pinned = [identity.public.hex() for identity in identities.values()]
    settled = replace(experiment, secagg=replace(experiment.secagg, max_weight=greatest, identities=pinned))
    ring_of(settled, roster.doses[0] if roster.doses else None)
    return settled, identities


def unsafe_choice(experiment: Experiment) -> str | None:
    """What is wrong with degree and threshold that run by `secagg.allow_unsafe`; None where nothing is."""
    if not experiment.secagg.masked:
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


def ring_of(experiment: Experiment, dose: Dose | None = None) -> Encoding | IntegerSum:
    """How what this experiment's hospitals send becomes numbers of a ring.

    Args:
        dose: of any hospital, None without a mechanism.

    Raises:
        InputError: the sum of a cohort could wrap.
    """
    if dose is None or dose.joint is None:
        return encoding_of(experiment)
    from lightning_fed.privacy.joint import greatest_sum  # SciPy, which other mechanisms do not need

    greatest = greatest_sum(dose, experiment.federation.rounds)
    try:
        return IntegerSum(dose.joint.hospitals, greatest)
    except ValueError as error:
        raise InputError(
            f"privacy.mechanism 'distributed': {error}; take smaller batches, less noise or a smaller network"
        ) from error


def terms_of(experiment: Experiment, parameters: int, dose: Dose | None = None) -> Terms:
    """What every party of this experiment knows without being told.

    Args:
        parameters: length of an update. dose: of any hospital, None without a mechanism.
    """
    encoding, secagg, federation = ring_of(experiment, dose), experiment.secagg, experiment.federation
    agreed = secagg.parameters(federation)
    dropped = secagg.assumption(federation).dropped(agreed.hospitals)
    return Terms(
        agreed,
        encoding,
        encoding.length(parameters),
        secagg.least_survivors(federation),
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
    """Each secret key to its hospital's own folder, for its owner's eyes only; all public keys to the run's.

    Raises:
        FederationError: they cannot be written.
    """
    try:
        for hospital, identity in identities.items():
            # Of a run that was killed before it told anybody: its public keys are in no list.
            _identity_file(output, hospital).unlink(missing_ok=True)
            identity.save(_identity_file(output, hospital))
        if identities:
            lines = (f"{hospital} {identity.public.hex()}\n" for hospital, identity in sorted(identities.items()))
            write_text_whole(_pinned_file(output), "".join(lines))
    except OSError as error:
        raise FederationError(f"{output}: identities cannot be written ({error.strerror})") from error


def _pinned_file(output: Path) -> Path:
    return output / "identities.txt"


def _read_pinned(output: Path) -> list[str]:
    """The public keys that a run made for itself, by hospital; none where it was killed before it had any."""
    path = _pinned_file(output)
    if not path.exists() and not (output / "checkpoints").exists():
        return []
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        keys = [key for _, key in lines]
        if not keys or [int(hospital) for hospital, _ in lines] != list(range(len(lines))):
            raise ValueError("hospitals are missing")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: the hospitals' public keys cannot be read ({reason}); put it back") from error
    return keys


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
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: hospital {hospital}'s signing key cannot be read ({reason}); put it back"
        ) from error
    if identity.public.hex() != experiment.secagg.identities[hospital]:
        raise InputError(f"{path}: not the key that secagg.identities pins for hospital {hospital}; put that back")
    marks = path.with_name("answered.txt")
    if not marks.exists() and HospitalStates(output, hospital).rounds():
        raise InputError(f"{marks}: the rounds that hospital {hospital} opened are missing; put it back")
    try:
        answered = AnsweredRounds(marks)
    except (OSError, ValueError) as error:
        raise InputError(f"{marks}: the rounds opened before cannot be read ({error}); put it back") from error
    return Client(Self(hospital, terms, identity, directory, answered))


def _identity_file(output: Path, hospital: int) -> Path:
    return output / "hospitals" / str(hospital) / "identity.key"


def upload_bytes(experiment: Experiment, parameters: int, dose: Dose | None = None) -> int:
    """Bytes of vectors that one hospital sends in a round."""
    if experiment.secagg.protocol == "plain":
        return 4 * parameters
    encoding = ring_of(experiment, dose)
    length = encoding.length(parameters)
    if experiment.secagg.masked:
        return packed_bytes(length, encoding.ring_bits)
    return 4 * length * experiment.federation.cohort_size  # a share to each other hospital, and the shares' sum

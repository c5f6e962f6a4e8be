"""What a hospital has spent: charges on disk before the releases that they pay for.

A ledger is a file of lines that are only ever appended. Each line is an object of JSON with the head of SHA-256
over the line before it and its own content, so that a changed, missing or swapped line is noticed; a last line
that was cut off by a crash was never acted upon and is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_fed.errors import FederationError, InputError
from lightning_fed.paths import sync_folder
from lightning_fed.privacy.dose import Dose

DIGITS = 32


class BudgetSpentError(Exception):
    """The next release would exceed the hospital's budget; nothing was charged."""


@dataclass(frozen=True)
class Charge:
    """Releases that are paid for.

    Args:
        hospital, round: whose and when. attempt: counted from 0; another one has noise of its own.
        steps: releases. rate: of Poisson sampling. noise_multiplier: deviation over sensitivity.
        inputs: digest of all that the releases depend on beside the images and the noise.
        nonce: drawn for this charge, so that a copy of the ledger that goes its own way has noise of its own;
            empty where the noise must repeat from the seed. unit, adjacency: of the guarantee.
    """

    hospital: int
    round: int
    attempt: int
    steps: int
    rate: float
    noise_multiplier: float
    inputs: str
    nonce: str = ""
    unit: str = "image"
    adjacency: str = "zero_out"


@dataclass(frozen=True)
class Release:
    """What left the hospital for a charge: `output` is the digest of it."""

    round: int
    attempt: int
    inputs: str
    output: str


class Ledger:
    """One hospital's charges and releases.

    Args:
        path: the file, or None to keep them in memory alone. hospital: whose. dose: its noise and its budget.
        reproducible: whether noise must repeat from the seed alone.

    Raises:
        InputError: the file is damaged, or was charged for another noise.
    """

    def __init__(self, path: Path | None, hospital: int, dose: Dose, reproducible: bool = False) -> None:
        self.path, self.hospital, self.dose, self.reproducible = path, hospital, dose, reproducible
        self.charges: list[Charge] = []
        self.releases: list[Release] = []
        self.checks = [""]
        self._size = self._cut_off = 0
        self._kept = True
        if path is not None and path.exists():
            self._read(path)
            self._kept = False

    @property
    def spent(self) -> int:
        """Releases that were charged so far."""
        return sum(charge.steps for charge in self.charges)

    @property
    def affords_a_round(self) -> bool:
        """Whether the budget pays for one more whole round."""
        return self.dose.affords(self.spent, self.dose.steps)

    def affords(self, round: int) -> bool:
        """Whether a round can be trained: it was charged before, or the budget pays for it."""
        return self.affords_a_round or any(charge.round == round for charge in self.charges)

    def charge(self, round: int, inputs: str, anew: bool = False) -> Charge:
        """Pay for a round; when this returns, the charge is on disk.

        A round that was charged for the same inputs is not charged again: its noise is the same, so that what
        is released is the same, which `release` makes sure of.

        Args:
            round: counted from 1. inputs: digest of what goes in. anew: charge in any case, for fresh noise.

        Raises:
            BudgetSpentError: the budget does not pay for it. FederationError: it cannot be written.
        """
        same = [charge for charge in self.charges if (charge.round, charge.inputs) == (round, inputs)]
        self._keep()
        if same and not anew:
            return same[-1]
        if not self.affords_a_round:
            raise BudgetSpentError(f"hospital {self.hospital} has spent its privacy budget")
        dose = self.dose
        charge = Charge(
            self.hospital,
            round,
            len(same),
            dose.steps,
            dose.rate,
            dose.noise_multiplier,
            inputs,
            "" if self.reproducible else secrets.token_hex(16),
            dose.unit,
            dose.adjacency,
        )
        self._append({"charge": asdict(charge)})
        self.charges.append(charge)
        return charge

    def release(self, charge: Charge, output: bytes) -> bool:
        """Note what is about to leave; False where something else left for the same charge, so that it must not.

        Raises:
            FederationError: the note cannot be written.
        """
        release = Release(charge.round, charge.attempt, charge.inputs, hashlib.sha256(output).hexdigest())
        key = (release.round, release.attempt, release.inputs)
        before = [found for found in self.releases if (found.round, found.attempt, found.inputs) == key]
        if before:
            return before[-1] == release
        self._append({"release": asdict(release)})
        self.releases.append(release)
        return True

    @property
    def head(self) -> str:
        """The check of the last line, which stands for all lines before it."""
        return self.checks[-1]

    def require(self, round: int, head: str | None = None) -> None:
        """Raise `InputError` unless a round is charged here, and the line of `head`, if given, is not lost."""
        charged = any(charge.round == round for charge in self.charges)
        if not charged or (head is not None and head not in self.checks):
            raise InputError(f"{self.path}: round {round} is not charged in it; put the hospital's ledger back")

    def _append(self, content: dict[str, Any]) -> None:
        """Write a line and wait until it is on disk."""
        line, check = self._sealed(content)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                new = not self.path.exists()
                with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
                    if os.fstat(file.fileno()).st_size != self._size + self._cut_off:
                        raise FederationError(f"{self.path}: another process writes it; end that one and resume")
                    if self._cut_off:  # not before, as whoever only reads it may not be the one who writes it
                        file.truncate(self._size)
                        self._cut_off = 0
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                if new:  # and so may be the hospital's folder, and that of all hospitals
                    for folder in self.path.parents[:3]:
                        sync_folder(folder)
            except OSError as error:
                raise FederationError(f"{self.path}: cannot be written ({error.strerror})") from error
        self.checks.append(check)
        self._size += len(line.encode())

    def _keep(self) -> None:
        """Wait until what was found is on disk: whoever wrote it may have died before it had waited."""
        if self._kept or self.path is None:
            return
        try:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            for folder in self.path.parents[:3]:
                sync_folder(folder)
        except OSError as error:
            raise FederationError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._kept = True

    def _sealed(self, content: dict[str, Any]) -> tuple[str, str]:
        """A line with its check, which covers the line before."""
        body = json.dumps(content, sort_keys=True)
        check = hashlib.sha256(f"{self.head}{body}".encode()).hexdigest()[:DIGITS]
        return f"{json.dumps({**content, 'check': check}, sort_keys=True)}\n", check

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(
                f"{path}: the ledger cannot be read ({error.strerror}); put the hospital's ledger back"
            ) from error
        whole, rest = lines[:-1], lines[-1]
        for place, line in enumerate(whole, 1):
            try:
                self._take(line)
            except InputError:
                raise
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(f"{path}: line {place} is damaged; put the hospital's ledger back") from error
        if rest and not _is_cut_off(rest):
            raise InputError(f"{path}: line {len(lines)} is damaged; put the hospital's ledger back")
        self._size, self._cut_off = sum(len(line) + 1 for line in whole), len(rest)

    def _take(self, line: bytes) -> None:
        content = json.loads(line)
        check = content.pop("check")
        if self._sealed(content)[1] != check:
            raise ValueError("another check")
        if "charge" in content:
            charge = Charge(**content["charge"])
            self._check(charge)
            self.charges.append(charge)
        else:
            self.releases.append(Release(**content["release"]))
        self.checks.append(check)

    def _check(self, charge: Charge) -> None:
        if charge.hospital != self.hospital:
            raise InputError(
                f"{self.path}: the ledger of hospital {charge.hospital}; put that of {self.hospital} back"
            )
        dose = self.dose
        if (charge.unit, charge.adjacency) != (dose.unit, dose.adjacency):
            raise InputError(
                f"{self.path}: charged for each {charge.unit} under {charge.adjacency}, and now it would be each "
                f"{dose.unit} under {dose.adjacency}; a run cannot change what it protects, "
                "so put its own settings back"
            )
        if (charge.rate, charge.noise_multiplier) != (dose.rate, dose.noise_multiplier):
            raise InputError(
                f"{self.path}: charged for noise {charge.noise_multiplier:g} at rate {charge.rate:g}, and now it "
                f"would be {dose.noise_multiplier:g} at {dose.rate:g}; a run cannot change its noise, "
                "so put its own settings back"
            )


def _is_cut_off(line: bytes) -> bool:
    """Whether it is the head of a line, and not a whole one whose end was changed."""
    text = line.decode("latin-1")
    try:
        return json.JSONDecoder().raw_decode(text)[1] == len(text)
    except ValueError:
        return True

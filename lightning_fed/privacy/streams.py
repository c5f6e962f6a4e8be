"""Secret random streams: bits from AES in counter mode, and the uniform and Gaussian numbers made of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from torch import Tensor

from lightning_fed.errors import InputError

KEY_BYTES = 32


class Stream:
    """Numbers from the keystream of AES-256-CTR: as unpredictable as its key, and the same for the same key.

    Args:
        key: 32 bytes that are used for this stream alone.
    """

    def __init__(self, key: bytes) -> None:
        self._keystream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` words of 64 random bits."""
        return np.frombuffer(self._keystream.update(bytes(8 * count)), np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Independent numbers (count,), uniform on the multiples of 2^-53 in [0, 1)."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> Tensor:
        """Independent standard normal numbers float64 (count,), by Box and Muller 1958.

        The greatest magnitude is 8.57: what is cut off has a probability of 1e-17 each. That numbers of floating
        point are no real Gaussian noise (Mironov 2012, CCS) is not covered here.
        """
        half = (count + 1) // 2
        uniform = torch.from_numpy(self.uniform(2 * half))
        radius = (1 - uniform[:half]).log_().mul_(-2).sqrt_()
        angle = uniform[half:] * (2 * torch.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]


@dataclass(frozen=True)
class Secret:
    """A hospital's secret, from which each of its streams is derived by name.

    Args:
        key: from the operating system, or from the experiment's seed for a simulation that must repeat.
    """

    key: bytes

    def __repr__(self) -> str:
        return "Secret(...)"

    @property
    def mark(self) -> str:
        """Tells two secrets apart and nothing of either: 64 bits of a stream of its own, in hexadecimal."""
        return f"{int(self.stream('mark').words(1)[0]):016x}"

    def stream(self, *purpose: str | int) -> Stream:
        """The stream of one purpose (HKDF-SHA256, RFC 5869): another purpose gives an independent one."""
        info = "/".join(map(str, purpose)).encode()
        return Stream(HKDF(SHA256(), KEY_BYTES, salt=b"lightning-fed privacy", info=info).derive(self.key))

    @staticmethod
    def of_seed(seed: int, hospital: int) -> Secret:
        """For a simulation only: whoever knows the seed can take the noise off again."""
        return Secret(f"seed {seed} hospital {hospital}".encode())

    @staticmethod
    def of_system() -> Secret:
        """A new one from the operating system."""
        return Secret(os.urandom(KEY_BYTES))

    @staticmethod
    def kept(path: Path, may_make: bool) -> Secret:
        """The secret in a file for its owner's eyes only, made where there is none.

        Args:
            path: the file. may_make: False where noise was drawn from it before.

        Raises:
            InputError: it is missing though it was used, or damaged.
        """
        if not path.exists() and may_make:
            path.parent.mkdir(parents=True, exist_ok=True)
            secret, part = Secret.of_system(), path.with_suffix(".part")
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret.key)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            return secret
        try:
            key = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: the hospital's noise key cannot be read ({error.strerror}); put it back"
            ) from error
        if len(key) != KEY_BYTES:
            raise InputError(f"{path}: {len(key)} bytes instead of {KEY_BYTES}; put the hospital's noise key back")
        return Secret(key)

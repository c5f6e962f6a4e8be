"""Key agreement, key derivation, sealed messages and signatures, all of them from `cryptography`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lightning_fed.secagg.errors import ProtocolError

SECRET_BYTES = 32
NONCE_BYTES = 12


def derive_key(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869): `length` bytes bound to what `info` says they are for."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


class KeyPair:
    """An X25519 pair (RFC 7748), fresh unless its secret is given.

    Args:
        secret: 32 bytes, or None to draw them.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self.secret = os.urandom(SECRET_BYTES) if secret is None else secret
        self._key = X25519PrivateKey.from_private_bytes(self.secret)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def agree(self, other: bytes) -> bytes:
        """The 32-byte secret shared with the holder of public key `other`.

        Raises:
            ProtocolError: `other` is no public key of full order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError as error:
            raise ProtocolError("an advertised key is no X25519 public key") from error

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"


def seal(secret: bytes, salt: bytes, info: bytes, message: bytes) -> bytes:
    """AES-256-GCM under a key derived from an agreed secret; `info` is bound as associated data too.

    Returns:
        nonce, ciphertext and tag: 28 bytes more than the message.
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(derive_key(secret, salt, info, 32)).encrypt(nonce, message, info)


def unseal(secret: bytes, salt: bytes, info: bytes, sealed: bytes) -> bytes:
    """The message that `seal` sealed with the same secret, salt and info.

    Raises:
        ProtocolError: it is damaged, or was sealed for another session, round, sender or receiver.
    """
    try:
        key = derive_key(secret, salt, info, 32)
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], info)
    except (InvalidTag, ValueError) as error:
        raise ProtocolError("a sealed message is damaged or was meant for something else") from error


def sync_folder(folder: Path) -> None:
    """Make a new file survive a power loss; this room stands alone, so it is written here too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Identity:
    """A hospital's Ed25519 signing key (RFC 8032), which outlives sessions.

    Args:
        secret: 32 bytes, or None to draw them.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = os.urandom(SECRET_BYTES) if secret is None else secret
        self._key = Ed25519PrivateKey.from_private_bytes(self._secret)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """A 64-byte signature."""
        return self._key.sign(statement)

    def save(self, path: Path) -> None:
        """Write the secret to a new file that only its owner can read; when this returns, it is on disk."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._secret)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)

    @staticmethod
    def load(path: Path) -> Identity:
        """The identity that `save` wrote.

        Raises:
            OSError: the file cannot be read. ValueError: it does not hold 32 bytes.
        """
        secret = path.read_bytes()
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"{path}: an identity is {SECRET_BYTES} bytes long, this file {len(secret)}")
        return Identity(secret)

    def __repr__(self) -> str:
        return f"Identity(public={self.public.hex()})"


class Directory:
    """The hospitals' public signing keys, pinned before any session and never taken from the aggregator.

    Args:
        keys: 32-byte Ed25519 public keys by hospital.
    """

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = {hospital: Ed25519PublicKey.from_public_bytes(key) for hospital, key in keys.items()}

    def __contains__(self, hospital: int) -> bool:
        return hospital in self._keys

    def verify(self, hospital: int, signature: bytes, statement: bytes) -> bool:
        """Whether that hospital, as pinned here, signed the statement."""
        key = self._keys.get(hospital)
        if key is None:
            return False
        try:
            key.verify(signature, statement)
        except InvalidSignature:
            return False
        return True

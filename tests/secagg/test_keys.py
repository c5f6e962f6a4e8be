from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.secagg.errors import ProtocolError
from lightning_fed.secagg.keys import Directory, Identity, KeyPair, derive_key, seal, unseal
from lightning_fed.secagg.messages import SealedShares
from tests.secagg.make_vectors import hkdf

SESSION, OTHER_SESSION = b"s" * 32, b"t" * 32
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def test_key_derivation_is_that_of_rfc_5869() -> None:
    output = derive_key(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert output.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=64), st.binary(), st.integers(1, 100))
def test_key_derivation_is_hmac_of_the_standard_library(
    secret: bytes, salt: bytes, info: bytes, length: int
) -> None:
    assert derive_key(secret, salt, info, length) == hkdf(secret, salt, info, length)
    first = hmac.new(hmac.new(salt, secret, hashlib.sha256).digest(), info + b"\x01", hashlib.sha256).digest()
    assert derive_key(secret, salt, info, 32) == first


def test_key_agreement_is_that_of_rfc_7748() -> None:
    alice = KeyPair(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert alice.agree(bob.public).hex() == bob.agree(alice.public).hex() == shared


def test_signatures_are_those_of_rfc_8032() -> None:
    identity = Identity(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert identity.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert identity.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


@pytest.mark.parametrize("key", [*LOW_ORDER, b"", bytes(31), bytes(33)], ids=lambda key: key.hex()[:8] or "empty")
def test_a_key_that_is_none_or_of_low_order_is_refused(key: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"no X25519 public key"):
        KeyPair().agree(key)


def test_fresh_pairs_and_identities_differ() -> None:
    assert len({KeyPair().public for _ in range(50)} | {Identity().public for _ in range(50)}) == 100


@given(message=st.binary(max_size=200))
def test_a_sealed_message_opens_for_its_receiver(message: bytes) -> None:
    sender, receiver = KeyPair(), KeyPair()
    info = SealedShares.context(SESSION, 1, 1, 1, 3, 4)
    sealed = seal(sender.agree(receiver.public), SESSION, info, message)
    assert len(sealed) == len(message) + 28
    assert unseal(receiver.agree(sender.public), SESSION, info, sealed) == message


SENT = {"session": SESSION, "attempt": 1, "first_round": 7, "rounds": 2, "sender": 3, "receiver": 4}


@pytest.mark.parametrize(
    "change",
    [
        {"session": OTHER_SESSION},
        {"attempt": 2},
        {"first_round": 8},
        {"rounds": 3},
        {"sender": 5},
        {"receiver": 5},
        {"sender": 4, "receiver": 3},
    ],
    ids=str,
)
def test_a_sealed_message_for_another_session_round_or_way_does_not_open(change: dict[str, int]) -> None:
    secret = KeyPair().agree(KeyPair().public)
    sealed = seal(secret, SESSION, SealedShares.context(**SENT), b"shares")
    assert unseal(secret, SESSION, SealedShares.context(**SENT), sealed) == b"shares"
    with pytest.raises(ProtocolError, match="damaged or was meant for something else"):
        unseal(secret, SESSION, SealedShares.context(**{**SENT, **change}), sealed)


def test_a_sealed_message_does_not_open_under_another_salt_or_secret() -> None:
    secret, info = KeyPair().agree(KeyPair().public), b"info"
    sealed = seal(secret, SESSION, info, b"shares")
    for other, salt in [(secret, OTHER_SESSION), (KeyPair().agree(KeyPair().public), SESSION)]:
        with pytest.raises(ProtocolError, match="damaged"):
            unseal(other, salt, info, sealed)


@given(bit=st.integers(0, 8 * (28 + 6) - 1))
def test_a_flipped_bit_anywhere_is_noticed(bit: int) -> None:
    secret = bytes(range(32))
    sealed = bytearray(seal(secret, SESSION, b"info", b"shares"))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError, match="damaged"):
        unseal(secret, SESSION, b"info", bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27, 33])
def test_a_sealed_message_that_was_cut_short_is_refused(length: int) -> None:
    sealed = seal(bytes(range(32)), SESSION, b"info", b"shares")
    with pytest.raises(ProtocolError, match="damaged"):
        unseal(bytes(range(32)), SESSION, b"info", sealed[:length])


def test_the_same_message_is_never_sealed_the_same_way_twice() -> None:
    secret = bytes(range(32))
    assert len({seal(secret, SESSION, b"info", b"shares") for _ in range(100)}) == 100


def test_an_identity_file_is_for_its_owner_only_and_gives_the_identity_back(tmp_path: Path) -> None:
    path, identity = tmp_path / "hospitals" / "3" / "identity.key", Identity()
    identity.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path).public == identity.public
    assert Identity.load(path).sign(b"x") == identity.sign(b"x")


def test_an_identity_file_is_never_overwritten(tmp_path: Path) -> None:
    path, identity = tmp_path / "identity.key", Identity()
    identity.save(path)
    with pytest.raises(FileExistsError):
        Identity().save(path)
    assert Identity.load(path).public == identity.public


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_damaged_identity_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"identity\.key: an identity is 32 bytes long, this file {len(content)}"
    ):
        Identity.load(path)


def test_a_directory_takes_signatures_of_the_pinned_identity_alone() -> None:
    one, other, stranger = Identity(), Identity(), Identity()
    directory = Directory({1: one.public, 2: other.public})
    assert directory.verify(1, one.sign(b"statement"), b"statement")
    assert not directory.verify(1, one.sign(b"statement"), b"statemenT")
    assert not directory.verify(2, one.sign(b"statement"), b"statement")
    assert not directory.verify(1, stranger.sign(b"statement"), b"statement")
    assert not directory.verify(3, stranger.sign(b"statement"), b"statement")
    assert not directory.verify(1, b"", b"statement")
    assert not directory.verify(1, one.sign(b"statement")[:-1], b"statement")
    assert 1 in directory
    assert 3 not in directory

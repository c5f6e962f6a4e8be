"""Secret streams: the numbers of a key, their distribution, and where the key is kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lightning_fed.errors import InputError
from lightning_fed.privacy.streams import KEY_BYTES, Secret, Stream

KEY = bytes(range(32))
MANY = 200_000


def test_the_same_key_gives_the_numbers_that_it_always_gave() -> None:
    """Known answers: a run must repeat under a later version."""
    assert [hex(word) for word in Stream(KEY).words(2)] == ["0xd09f492ab60090f2", "0x80772edd6a9af3a9"]
    assert Stream(KEY).uniform(3).tolist() == pytest.approx(
        [0.8149305085444232, 0.5018185892646263, 0.8969684417083611], abs=0
    )
    assert Stream(KEY).normal(3).tolist() == pytest.approx(
        [1.4652155719430058, 0.08066108131898186, -1.107786584873791], rel=1e-12
    )
    derived = Secret.of_seed(42, 3).stream("noise", 3, 1, 0, "ab").words(4).tobytes()
    assert hashlib.sha256(derived).hexdigest()[:16] == "e8688d539c5dcdb1"


def test_words_are_the_keystream_of_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A's mode: block i is the cipher of the number i."""
    blocks = b"".join(place.to_bytes(16, "big") for place in range(4))
    wanted = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor().update(blocks)
    assert Stream(KEY).words(8).tobytes() == wanted


@given(st.lists(st.integers(0, 50), max_size=5))
def test_words_drawn_in_parts_are_those_drawn_at_once(counts: list[int]) -> None:
    stream = Stream(KEY)
    parts = [stream.words(count) for count in counts]
    whole = Stream(KEY).words(sum(counts))
    assert np.array_equal(np.concatenate([*parts, whole[:0]]), whole)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 1001])
def test_any_count_of_normal_numbers_can_be_had(count: int) -> None:
    found = Stream(KEY).normal(count)
    assert found.shape == (count,)
    assert found.dtype == torch.float64
    assert torch.isfinite(found).all()


def test_uniform_numbers_are_uniform_and_below_one() -> None:
    found = Stream(KEY).uniform(MANY)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert found.min() >= 0
    assert found.max() < 1
    assert np.array_equal(found * 2**53, np.floor(found * 2**53))


def test_normal_numbers_are_normal_and_neighbours_are_not_related() -> None:
    found = Stream(KEY).normal(MANY).numpy()
    assert stats.kstest(found, "norm").pvalue > 1e-3
    assert found.std() == pytest.approx(1, rel=5 / np.sqrt(2 * MANY))
    assert abs(found.mean()) < 5 / np.sqrt(MANY)
    assert stats.kurtosis(found) == pytest.approx(0, abs=5 * np.sqrt(24 / MANY))
    halves = found[: MANY // 2], found[MANY // 2 :]  # of one radius and one angle
    for power in (1, 2):
        pairs = [(halves[0], halves[1]), (found[1:], found[:-1])]
        assert all(abs(np.corrcoef(a**power, b**power)[0, 1]) < 5 / np.sqrt(MANY / 2) for a, b in pairs)


class Extreme(Stream):
    """The smallest and the greatest words."""

    word = 0

    def words(self, count: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.full(count, self.word, np.uint64)


@pytest.mark.parametrize(("word", "greatest"), [(0, 0.0), (2**64 - 1, 8.572)])
def test_the_greatest_magnitude_is_8_57_and_finite(word: int, greatest: float) -> None:
    stream = Extreme(KEY)
    stream.word = word
    assert float(stream.normal(2).abs().max()) == pytest.approx(greatest, abs=1e-3)


def test_every_purpose_has_a_stream_of_its_own() -> None:
    secret = Secret(KEY)
    purposes: list[tuple[str | int, ...]] = [
        ("noise", 0, 1, 0, "ab"),
        ("sampling", 0, 1, 0, "ab"),
        ("noise", 1, 1, 0, "ab"),
        ("noise", 0, 2, 0, "ab"),
        ("noise", 0, 1, 1, "ab"),
        ("noise", 0, 1, 0, "ac"),
        ("noise", 0, 11, 0, "ab"),
        ("noise", 0, 1, 10, "ab"),
    ]
    numbers = np.stack([secret.stream(*purpose).normal(40_000).numpy() for purpose in purposes])
    correlations = np.corrcoef(numbers)[np.triu_indices(len(purposes), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(40_000)


def test_a_seed_gives_each_hospital_its_own_secret() -> None:
    secrets = {Secret.of_seed(seed, hospital).key for seed in (1, 2, 12) for hospital in (0, 1, 10, 21)}
    assert len(secrets) == 12
    assert Secret.of_seed(7, 1) == Secret.of_seed(7, 1)


def test_the_operating_system_gives_another_secret_each_time() -> None:
    assert Secret.of_system().key != Secret.of_system().key
    assert len(Secret.of_system().key) == KEY_BYTES


def test_a_secret_is_never_shown() -> None:
    secret = Secret(KEY)
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert KEY.hex() not in shown
        assert "\\x01" not in shown


def test_a_secret_is_kept_for_its_owners_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "hospitals" / "0" / "noise.key"
    old = os.umask(0)
    try:
        secret = Secret.kept(path, may_make=True)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == secret.key
    assert [found.name for found in path.parent.iterdir()] == ["noise.key"]
    assert Secret.kept(path, may_make=True) == secret
    assert Secret.kept(path, may_make=False) == secret


def test_a_secret_that_was_used_and_is_missing_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"noise\.key: the hospital's noise key cannot be read .* put it back"):
        Secret.kept(tmp_path / "noise.key", may_make=False)
    assert not (tmp_path / "noise.key").exists()


@pytest.mark.parametrize("content", [b"", KEY[:31], KEY + b"\n"])
def test_a_damaged_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "noise.key").write_bytes(content)
    with pytest.raises(InputError, match=f"{len(content)} bytes instead of 32"):
        Secret.kept(tmp_path / "noise.key", may_make=False)


def test_killed_while_it_makes_its_secret_a_hospital_can_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lightning_fed.privacy.streams.os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            Secret.kept(tmp_path / "noise.key", may_make=True)
    assert not (tmp_path / "noise.key").exists()
    assert len(Secret.kept(tmp_path / "noise.key", may_make=True).key) == 32

"""Keys, seeds and shares appear in nothing that a run leaves or says, but in the files that are made for them."""

from __future__ import annotations

import base64
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_fed.cli import main
from lightning_fed.privacy.streams import Secret
from lightning_fed.secagg import client, shamir
from lightning_fed.secagg.keys import Identity, KeyPair

OWN = {"identity.key", "noise.key"}
SECRET_MAKERS = {  # functions of the package whose draws from the operating system must stay secret
    ("lightning_fed.secagg.keys", "__init__"),
    ("lightning_fed.secagg.client", "fresh"),
    ("lightning_fed.privacy.streams", "of_system"),
    ("lightning_fed.federation.outbox", "_rounding_key"),
}
WORDS = {
    **{"data.name": "bloodcells", "data.images": 150, "data.partition": "iid", "data.min_images": 4},
    **{"data.validation": 0, "model.width": 2, "federation.hospitals": 3, "federation.rounds": 2},
    **{"federation.local_steps": 1, "training.optimizer": "SGD", "training.batch_size": 30},
    **{"privacy.mechanism": "record", "privacy.epsilon": 8, "secagg.protocol": "secagg_plus"},
    **{"secagg.threshold": 3, "ray.enabled": "false", "tracking.wandb": "offline"},
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """All secrets of a run as they are made, by a name."""
    found: dict[str, bytes] = {}
    urandom, split = os.urandom, shamir.split

    def noting(size: int) -> bytes:
        value, frame = urandom(size), sys._getframe(1)
        maker = (frame.f_globals.get("__name__"), frame.f_code.co_name)
        if maker in SECRET_MAKERS:
            found[f"{maker[0]}.{maker[1]} {len(found)}"] = value
        return value

    def noting_split(secret: bytes, *arguments: Any) -> dict[int, int]:
        shares = split(secret, *arguments)
        for holder, share in shares.items():
            found[f"share of {holder} {len(found)}"] = share.to_bytes(33, "big")
        return shares

    monkeypatch.setattr(os, "urandom", noting)
    for module in (shamir, client):
        if hasattr(module, "split"):
            monkeypatch.setattr(module, "split", noting_split)
    return found


def spellings(secret: bytes) -> Iterator[bytes]:
    """A secret as bytes, hexadecimal, base64, a decimal number and Python's own text for bytes."""
    bare = secret.lstrip(b"\0")
    yield bare
    yield bare.hex().encode()
    yield bare.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield str(int.from_bytes(secret, "big")).encode()
    yield str(int.from_bytes(secret, "little")).encode()
    yield repr(secret)[2:-1].encode()


def outputs(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in OWN:
            yield str(path.relative_to(folder)), path.read_bytes()


def shown(secrets: dict[str, bytes], told: dict[str, bytes]) -> list[str]:
    """Which secrets can be read where."""
    return [
        f"{name} in {where}"
        for name, secret in secrets.items()
        for where, content in told.items()
        if any(spelling in content for spelling in spellings(secret))
    ]


def test_no_secret_of_a_run_is_in_anything_that_it_leaves_or_says(
    tmp_path: Path, drawn: dict[str, bytes], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    output = tmp_path / "run"
    assert main(["run", *(f"--{key}={value}" for key, value in WORDS.items()), f"--output={output}"]) == 0
    said = capfd.readouterr()
    kinds = {name.rpartition(" ")[0].split(" of ")[0] for name in drawn}
    assert kinds == {*(".".join(maker) for maker in SECRET_MAKERS), "share"}, "every kind of secret was made"
    told = dict(outputs(output)) | {
        "standard output": said.out.encode(),
        "standard error": said.err.encode(),
        "log": caplog.text.encode(),
    }
    assert {"rounds.jsonl", "summary.json", "report.html", "model.ckpt", "experiment.yaml"} <= told.keys()
    assert any(name.startswith("wandb/") for name in told)
    assert any(name.startswith("hospitals/0/state") for name in told)
    assert shown(drawn, told) == []
    kept = {path.read_bytes() for path in output.rglob("*.key")}
    assert kept & set(drawn.values()), "the search would find them where they are"


def test_the_search_finds_a_secret_in_every_spelling() -> None:
    secret = bytes(range(1, 33))
    for spelling in spellings(secret):
        assert shown({"secret": secret}, {"file": b"before " + spelling + b" after"}) == ["secret in file"]
    assert shown({"secret": secret}, {"file": b"nothing"}) == []


def test_no_secret_shows_in_a_representation_or_a_traceback() -> None:
    secret = os.urandom(32)
    holders = [KeyPair(secret), Identity(secret), Secret(secret), client.RoundSecrets(KeyPair(secret), secret)]
    told = {str(place): f"{holder!r} {holder!s}".encode() for place, holder in enumerate(holders)}
    assert shown({"secret": secret}, told) == []


def test_what_a_hospital_keeps_is_its_owners_alone(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert main(["run", *(f"--{key}={value}" for key, value in WORDS.items()), f"--output={output}"]) == 0
    assert (output / "hospitals").stat().st_mode & 0o077 == 0
    for path in [*output.rglob("*.key"), *output.rglob("*.pt"), *output.rglob("ledger.jsonl")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("text", ["tracking: {api_key: x}", "tracking: {wandb_api_key: x}", "wandb: {key: x}"])
def test_a_key_of_wandb_in_a_yaml_is_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert main(["run", "--config", str(tmp_path / "a.yaml")]) == 2
    assert "is not a key of the experiment" in capsys.readouterr().err

from pathlib import Path

import pytest

from lightning_fed.paths import cache_folder


@pytest.mark.parametrize(
    ("own", "users", "expected"),
    [
        ("/own", "/users", "/own"),
        ("~/own", None, "/home/me/own"),
        (None, "/users", "/users/lightning-fed"),
        ("", "/users", "/users/lightning-fed"),
        (None, "relative", "/home/me/.cache/lightning-fed"),
        (None, None, "/home/me/.cache/lightning-fed"),
    ],
)
def test_the_cache_is_ones_own_then_the_users_then_that_of_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, own: str | None, users: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("LIGHTNING_FED_CACHE", own), ("XDG_CACHE_HOME", users)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_fed.studies import chaos_search
from lightning_fed.studies.chaos_search import Search


@given(data=st.data())
def test_it_finds_what_a_plain_search_finds(data: st.DataObject) -> None:
    """Of few different bytes, so that much is nearly found."""
    letters = st.sampled_from(b"ab\x00\xff")
    content = bytes(data.draw(st.lists(letters, max_size=60)))
    stretches = [bytes(one) for one in data.draw(st.lists(st.lists(letters, min_size=8, max_size=12), max_size=5))]
    assert Search(stretches).found_in(content) == any(stretch in content for stretch in stretches)


@pytest.mark.parametrize("place", [*range(9), *range(90, 105), 187, 188])
def test_it_finds_across_the_pieces_that_it_reads(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_search, "CHUNK", 96)
    content = bytearray(200)
    content[place : place + 12] = stretch = b"twelve bytes"
    assert Search([b"other bytes", stretch]).found_in(bytes(content))


def test_it_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "clean").write_bytes(np.random.default_rng(0).bytes(100_000))
    search = Search([b"an update in clear"])
    assert search.first_of([tmp_path, tmp_path / "gone"]) is None
    (tmp_path / "deep" / "log").write_bytes(b"xyz an update in clear")
    assert search.first_of([tmp_path]) == tmp_path / "deep" / "log"

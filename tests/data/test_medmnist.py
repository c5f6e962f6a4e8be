import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from medmnist.info import INFO

from lightning_fed.data.medmnist import load_medmnist
from lightning_fed.data.npz import read_npz
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data
from tests.data.archives import arrays, save

REBUILT = Path(__file__).resolve().parents[3] / "shared" / "data" / "bloodmnist.npz"
TRAIN_BY_CLASS = [852, 2181, 1085, 2026, 849, 993, 2330, 1643]


def blood(root: Path, **changes: object) -> Data:
    return Data(**{"name": "bloodmnist", "root": str(root), "download": False, **changes})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save(tmp_path / "bloodmnist.npz", arrays(size=28, classes=8))
    return tmp_path


def test_the_rebuilt_file_is_told_from_the_official_one() -> None:
    if not REBUILT.exists():
        pytest.skip(f"the real images are not at {REBUILT}")
    data = load_medmnist(blood(REBUILT.parent))
    assert data.rebuilt
    assert data.title == "BloodMNIST rebuilt from PBC"
    assert [len(part) for part in (data.train, data.validation, data.test)] == [11_959, 1_712, 3_421]
    assert np.bincount(data.train.labels).tolist() == TRAIN_BY_CLASS
    assert (data.size, data.channels, len(data.class_names)) == (28, 3, 8)


def test_the_images_are_those_of_the_file_and_the_class_names_those_of_the_set(root: Path) -> None:
    data = load_medmnist(blood(root))
    train, _, test = read_npz(root / "bloodmnist.npz")
    assert np.array_equal(data.train.images, train.images)
    assert np.array_equal(data.test.labels, test.labels)
    assert data.class_names[:3] == ("basophil", "eosinophil", "erythroblast")
    assert "immature granulocytes" in data.class_names


def test_a_file_that_is_not_the_official_one_is_called_so(root: Path) -> None:
    data = load_medmnist(blood(root))
    assert data.rebuilt
    assert data.title == "BloodMNIST, not the official file"


def test_the_official_file_keeps_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.md5((root / "bloodmnist.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", digest)
    data = load_medmnist(blood(root))
    assert not data.rebuilt
    assert data.title == "BloodMNIST"


def test_a_larger_size_is_read_from_its_own_file(root: Path) -> None:
    save(root / "bloodmnist_64.npz", arrays(size=64, classes=8))
    assert load_medmnist(blood(root, size=64)).size == 64


def test_a_grey_set_has_one_channel(tmp_path: Path) -> None:
    save(tmp_path / "breastmnist.npz", arrays(size=28, channels=None, classes=2))
    assert load_medmnist(blood(tmp_path, name="breastmnist")).channels == 1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("bloodmnst", "did you mean 'bloodmnist'"),
        ("BloodMNIST", "did you mean 'bloodmnist'"),
        ("bloodcell", "did you mean 'bloodcells'"),
        ("zzz", "choose one of bloodcells, bloodmnist"),
        ("organmnist3d", "organamnist|organcmnist|organsmnist"),
        ("chestmnist", "did you mean|choose one of"),
    ],
)
def test_an_unknown_set_is_refused_with_the_nearest_name(tmp_path: Path, name: str, advice: str) -> None:
    with pytest.raises(InputError, match=rf"data\.name is '{name}': .*({advice})"):
        load_medmnist(blood(tmp_path, name=name))


def test_a_size_that_medmnist_does_not_have_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"data\.size is 32: MedMNIST has 28, 64, 128, 224"):
        load_medmnist(blood(root, size=32))


def test_a_missing_file_is_not_fetched_where_downloads_are_off(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bloodmnist\.npz is missing; put it there, or set data\.download"):
        load_medmnist(blood(tmp_path))


@pytest.mark.parametrize(
    ("size", "channels", "classes", "message"),
    [
        (32, 3, 8, r"images of shape \(32, 32, 3\) instead of \(28, 28, 3\)"),
        (28, None, 8, r"images of shape \(28, 28, 1\) instead of \(28, 28, 3\)"),
        (28, 3, 8, "label 8 where there are 8 classes"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    tmp_path: Path, size: int, channels: int | None, classes: int, message: str
) -> None:
    content = arrays(size=size, channels=channels, classes=classes)
    content["test_labels"] = content["test_labels"] + 5  # 5, 6, 7 and 8
    save(tmp_path / "bloodmnist.npz", content)
    with pytest.raises(InputError, match=rf"bloodmnist\.npz: {message}; fetch it anew"):
        load_medmnist(blood(tmp_path))


def test_a_root_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"data\.root: .*file/sub cannot be written \(.+\); name another"):
        load_medmnist(blood(tmp_path / "file" / "sub", download=True))


def test_a_failed_download_names_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", unreachable)
    with pytest.raises(InputError) as caught:
        load_medmnist(blood(tmp_path, download=True))
    assert INFO["bloodmnist"]["url"] in str(caught.value)
    assert str(tmp_path / "bloodmnist.npz") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_of_a_larger_size_names_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda **kwargs: 1 / 0)
    with pytest.raises(InputError) as caught:
        load_medmnist(blood(tmp_path, download=True, size=64))
    assert INFO["bloodmnist"]["url_64"] in str(caught.value)
    assert str(tmp_path / "bloodmnist_64.npz") in str(caught.value)


def test_a_download_is_moved_into_place_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "source.npz", arrays(size=28, classes=8))
    asked = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        shutil.copy(source, Path(root) / filename)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    root = tmp_path / "made" / "anew"
    assert len(load_medmnist(blood(root, download=True)).train) == 6
    assert len(load_medmnist(blood(root, download=True)).train) == 6
    assert [path.name for path in root.iterdir()] == ["bloodmnist.npz"]
    assert len(asked) == 1

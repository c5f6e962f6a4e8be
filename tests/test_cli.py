import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lightning_fed import Experiment, __version__, cli
from lightning_fed.cli import main
from lightning_fed.errors import FederationError, InputError

BAD = {
    "an unknown command": ["rnu"],
    "an unknown key": ["run", "--data.nmae=x"],
    "a wrong type": ["run", "--seed=abc"],
    "a value out of range": ["run", "--data.alpha=-1"],
    "a missing value": ["run", "--data.alpha"],
    "a stray word": ["run", "stray"],
    "a missing file": ["run", "--config", "nowhere.yaml"],
    "an empty file": ["run", "--config", "empty.yaml"],
    "a file that is not YAML": ["run", "--config", "broken.yaml"],
    "an unknown key in a file": ["run", "--config", "unknown.yaml"],
    "a section that is none": ["run", "--config", "flat.yaml"],
    "a folder without a run": ["run", "--resume", "."],
    "too many hospitals": ["run", "--dry_run", "--data.images=3"],
    "an unknown data set": ["run", "--dry_run", "--data.name=bloodcels"],
    "a missing data file": ["run", "--dry_run", "--data.name=path", "--data.root=nowhere.npz"],
    "a missing root": ["run", "--dry_run", "--data.name=path"],
    "an unknown network": ["run", "--dry_run", "--data.images=300", "--model.name=resnet"],
    "an unknown class": ["run", "--dry_run", "--data.images=300", "--model.class_path=no.such.Net"],
    "an unknown optimizer": ["run", "--dry_run", "--data.images=300", "--training.optimizer=Adm"],
    "a momentum for Adam": ["run", "--dry_run", "--data.images=300", "--training.momentum=0.5"],
    "an unknown server optimizer": ["run", "--dry_run", "--data.images=300", "--federation.server_optimizer=Adm"],
    "a report of nothing": ["report"],
    "a report of two": ["report", "one", "two"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"empty": "", "broken": "data: [", "unknown": "data: {nmae: 1}", "flat": "data: 3"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("words", BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_on_standard_error_and_code_two(
    folder: Path, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    before = sorted(folder.iterdir())
    assert main(words) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert said.err.startswith("lightning-fed: ")
    assert sorted(folder.iterdir()) == before, "nothing is written"


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2
    assert capsys.readouterr().err == "lightning-fed: no command 'rnu': did you mean 'run'?\n"


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_no_command_and_help_tell_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "usage: lightning-fed COMMAND" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_debug_shows_the_error_itself() -> None:
    with pytest.raises(InputError, match="no command"):
        main(["rnu", "--debug"])


@pytest.mark.parametrize(("error", "code"), [(InputError("two\nlines"), 2), (FederationError("two\nlines"), 3)])
def test_each_kind_of_error_has_its_code_and_one_line(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert main(["run"]) == code
    assert capsys.readouterr().err == "lightning-fed: two lines\n"


def test_help_of_report_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    assert "RUN [RUN ...]" in capsys.readouterr().out


def test_what_print_config_prints_is_a_config_of_the_same_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(["run", *words, "--print_config"])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    first = printed("--data.alpha=0.25", "--federation.server_options.eps=0.5")
    (tmp_path / "printed.yaml").write_text(first)
    assert printed("--config", str(tmp_path / "printed.yaml")) == first
    values = yaml.safe_load(first)
    assert (values["data"]["alpha"], values["federation"]["server_options"]) == (0.25, {"eps": 0.5})
    assert values["training"] == Experiment().as_dict()["training"]


def test_the_module_is_the_command_and_bad_input_has_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_fed", "run", "--data.nmae=x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == "lightning-fed: --data.nmae is not a key of the experiment: did you mean 'data.name'?\n"


def test_the_rule_s_degree_and_threshold_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--hospitals", "100", "--adversaries", "0.1", "--dropouts", "0.1", "--server", "semi_malicious"]
    assert main(["secagg-parameters", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"hospitals": 100, "degree": 32, "threshold": 22}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hospitals", "100", "--adversaries", "0.5", "--dropouts", "0.5"], "no graph of 100 hospitals holds"),
        (["--hospitals", "100", "--server", "honest"], "secagg-parameters.server is 'honest': did you mean"),
        (["--hospitals", "2"], "the sum of two tells each the other's"),
        ([], "secagg-parameters: the following arguments are required: --hospitals"),
    ],
)
def test_parameters_that_cannot_be_are_one_line_and_exit_code_two(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secagg-parameters", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lightning_fed.arguments import check_keys, known_keys, read_experiment
from lightning_fed.errors import InputError
from lightning_fed.experiment import Data, Experiment, Federation, Model, Ray, Training


def read(*words: str) -> Experiment:
    return read_experiment(words)


def written(folder: Path, text: str, name: str = "some.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_no_words_are_the_defaults() -> None:
    assert read() == Experiment()


def test_words_in_either_form_reach_their_keys() -> None:
    found = read("--data.alpha=0.25", "--training.optimizer", "SGD", "--data.root=null", "--seed", "7")
    assert found == Experiment(data=Data(alpha=0.25), training=Training(optimizer="SGD"), seed=7)


@pytest.mark.parametrize("text", ["0.001", "1e-3", "1.0e-3"])
def test_a_rate_may_be_written_as_an_exponent(tmp_path: Path, text: str) -> None:
    assert read(f"--training.lr={text}").training.lr == 0.001
    assert read_experiment(["--config", str(written(tmp_path, f"training: {{lr: {text}}}"))]).training.lr == 0.001


def test_several_files_and_words_are_merged_in_their_order(tmp_path: Path) -> None:
    first = written(tmp_path, "seed: 1\ndata: {alpha: 0.1, images: 500}\ntraining: {lr: 0.5}", "first.yaml")
    second = written(tmp_path, "data: {alpha: 0.2}\nfederation: {rounds: 3}", "second.yaml")
    found = read("--config", first, f"--config={second}", "--data.min_images=5")
    assert found.data == Data(alpha=0.2, images=500, min_images=5)
    assert (found.seed, found.training.lr, found.federation.rounds) == (1, 0.5, 3)
    assert read("--config", second, "--config", first).data.alpha == 0.1
    assert read("--config", first, "--data.alpha=0.3", "--config", second).data.alpha == 0.2


def test_free_form_dictionaries_take_dotted_keys_and_whole_values(tmp_path: Path) -> None:
    options = {"eps": 0.001, "betas": [0.9, 0.99]}
    wanted = Federation(server_optimizer="Adam", server_options=options)
    chosen = "--federation.server_optimizer=Adam"
    dotted = ["--federation.server_options.eps=0.001", "--federation.server_options.betas=[0.9, 0.99]"]
    assert read(chosen, *dotted).federation == wanted
    assert read(chosen, f"--federation.server_options={options}").federation == wanted
    file = written(tmp_path, yaml.safe_dump({"federation": dataclasses.asdict(wanted)}))
    assert read("--config", file).federation == wanted
    assert read("--model.init_args.hidden=3").model == Model(init_args={"hidden": 3})


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("--data.nmae=x", "data.name"),
        ("--dat.name=x", "data.name"),
        ("--training.learning_rate=1", "training"),
        ("--federation.hospital=3", "federation.hospitals"),
        ("--sed=3", "seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(word: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"{word.split('=')[0]} is not a key of the experiment: .*'?{nearest}"):
        read(word)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("sed: 3", "sed", "seed"),
        ("data: {nmae: x}", "data.nmae", "data.name"),
        ("seed: 3\nfederation:\n  rounds: 2\n  hospital: 3", "federation.hospital", "federation.hospitals"),
        ("data: {name: {first: 1}}", "data.name.first", "data.name"),
        ("data.nmae: x", "data.nmae", "data.name"),
        ("3: x", "3", "choose one of"),
    ],
)
def test_an_unknown_key_in_a_file_is_refused_with_file_key_and_nearest(
    tmp_path: Path, text: str, key: str, nearest: str
) -> None:
    with pytest.raises(InputError, match=rf"some\.yaml: {key} is not a key of the experiment: .*{nearest}"):
        read("--config", written(tmp_path, text))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--seed=abc", "seed is abc: it must be a whole number"),
        ("--seed=1.5", "seed is 1.5: it must be a whole number"),
        ("--seed=true", "seed is True: it must be a whole number"),
        ("--training.lr=fast", r"training\.lr is fast: it must be a finite number"),
        ("--data.download=perhaps", r"data\.download is perhaps: it must be true or false"),
        ("--data.partition=dirichlett", r"data\.partition is 'dirichlett': did you mean 'dirichlet'"),
        ("--federation.server_options=3", r"'federation\.server_options'.*3"),
        ("--data.alpha=-1", r"data\.alpha is -1.0: it must be finite and greater than 0"),
        ("--model.width=3", r"model\.width is 3: it must be even"),
        ("--seed=-1", "seed is -1: it must lie between"),
        ("--data={alpha: -1}", r"data\.alpha is -1"),
        ("--data.alpha", r"data\.alpha: expected one argument"),
        ("--config", "--config .*name a YAML file"),
        ("stray", "stray"),
        ("-x", "-x"),
    ],
)
def test_a_wrong_type_or_value_is_refused_by_its_key_in_one_line(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(word)
    assert "\n" not in str(caught.value)
    assert "usage" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a mapping of keys"),
        ("- data", "not a mapping of keys"),
        ("just words", "not a mapping of keys"),
        ("data: [", r"not YAML \(.*line 1.*\); mend the file"),
        ("data: {alpha: fast}", r"data\.alpha is fast: it must be a finite number"),
        ("data: {alpha: -1}", r"data\.alpha is -1"),
        ("training: {lr: .inf}", r"training\.lr is inf"),
        ("training: {lr: .nan}", r"training\.lr is nan"),
        ("data:", "data is None: it is a section; give it keys or leave it out"),
        ("data: 3", "data is 3: it is a section"),
        ("data:\n  alpha: 1\n  alpha: 2", r"some\.yaml, line 3: alpha is given twice; keep one of them"),
        ("data: bloodmnist", "data is 'bloodmnist': it is a section"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read("--config", written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    for name, message in (("none.yaml", "No such file"), ("bytes.yaml", "not YAML"), (".", "directory")):
        with pytest.raises(InputError, match=message):
            read("--config", str(tmp_path / name))


def test_known_keys_are_every_dotted_name_of_the_experiment() -> None:
    def names(values: dict[str, Any], prefix: str = "") -> set[str]:
        found = set()
        for key, value in values.items():
            found.add(prefix + key)
            if isinstance(value, dict):
                found |= names(value, f"{prefix}{key}.")
        return found

    assert set(known_keys()) == names(Experiment().as_dict())
    check_keys([f"--{key}=1" for key in known_keys()])


@settings(
    max_examples=15,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    data=st.builds(
        Data,
        name=st.sampled_from(["bloodmnist", "3", "yes"]),
        root=st.none() | st.sampled_from(["/a b", "~/x", "3", "yes", "", "é: #", "[a"]),
        alpha=st.floats(1e-6, 1e6),
        download=st.booleans(),
    ),
    training=st.builds(Training, lr=st.floats(1e-12, 1e3), warmup_rounds=st.floats(0, 9)),
    federation=st.builds(
        Federation,
        local_steps=st.none() | st.integers(1, 10**6),
        server_optimizer=st.just("Adam"),
        server_options=st.dictionaries(
            st.sampled_from(["eps", "betas", "amsgrad"]),
            st.floats(0, 1) | st.booleans() | st.lists(st.floats(0, 1), max_size=2),
        ),
    ),
    ray=st.builds(Ray, address=st.none() | st.sampled_from(["auto", "10.0.0.1:6379"])),
    seed=st.integers(0, 2**63 - 1),
)
def test_an_experiment_written_as_yaml_loads_as_itself(tmp_path: Path, **parts: Any) -> None:
    experiment = Experiment(**parts)
    path = Path(written(tmp_path, yaml.safe_dump(experiment.as_dict(), sort_keys=False)))
    assert read_experiment(["--config", str(path)]) == experiment


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--privacy.epsilon=nan", "privacy.epsilon is nan: it must be a finite number"),
        ("--training.lr=inf", "training.lr is inf: it must be a finite number"),
        ("--federation.rounds=1.5", "federation.rounds is 1.5: it must be a whole number"),
        ("--ray.enabled=maybe", "ray.enabled is maybe: it must be true or false"),
        ("--privacy.mechanism=recrod", "privacy.mechanism is 'recrod': did you mean 'record'?"),
        ("--secagg.server=x", "secagg.server is 'x': choose one of semi_honest, semi_malicious"),
    ],
)
def test_a_value_of_another_kind_is_told_in_the_projects_words(word: str, told: str) -> None:
    with pytest.raises(InputError) as raised:
        read(word)
    assert str(raised.value) == told


def test_a_key_that_is_near_no_other_is_told_the_sections() -> None:
    with pytest.raises(
        InputError, match=r"choose one of config, data, evaluation, faults, federation, help, model"
    ):
        check_keys(["--zzz", "3"])

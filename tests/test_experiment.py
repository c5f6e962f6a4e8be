import copy
import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from lightning_fed.arguments import read_experiment
from lightning_fed.errors import InputError
from lightning_fed.experiment import (
    PLACES,
    Availability,
    Data,
    Distillation,
    Dropout,
    Experiment,
    Faults,
    Federation,
    Loss,
    Model,
    Poison,
    Privacy,
    SecAgg,
    Stragglers,
    Training,
    may_change,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SECTIONS = {
    field.name: field.default_factory
    for field in dataclasses.fields(Experiment)
    if dataclasses.is_dataclass(field.default_factory)
}


def hints(kinds: tuple[Any, ...]) -> list[tuple[str, str, Any]]:
    """(section, key, type) of every key that takes one of the kinds."""
    found = []
    for section, settings in SECTIONS.items():
        for key, hint in get_type_hints(settings).items():
            inside = get_args(hint)[:1] if get_origin(hint) not in (dict, list) else ()
            if hint in kinds or (inside and inside[0] in kinds):
                found.append((section, key, hint))
    return found


NUMBERS = hints((int, float))
LITERALS = [
    (section, key)
    for section, settings in SECTIONS.items()
    for key, hint in get_type_hints(settings).items()
    if get_origin(hint) is Literal
]
UPPER = [
    ("data", "size", 1025),
    ("data", "partition_seed", 2**32),
    ("data", "validation", 0.91),
    ("model", "width", 4098),
    ("training", "momentum", 1.01),
    ("federation", "participation", 1.01),
    ("ray", "gpus_per_hospital", 1.5),
]
ZERO_IS_FINE = {
    "data.partition_seed",
    "data.validation",
    "training.distort",
    "training.momentum",
    "training.weight_decay",
    "training.warmup_rounds",
    "federation.proximal_mu",
    "federation.trim",
    "ray.gpus_per_hospital",
    "secagg.adversary_rate",
    "secagg.dropout_rate",
    "faults.max_failed_rounds",
}


def test_the_quickstart_names_every_key_with_its_default() -> None:
    assert yaml.safe_load((CONFIGS / "quickstart.yaml").read_text()) == Experiment().as_dict()
    assert read_experiment(["--config", str(CONFIGS / "quickstart.yaml")]) == Experiment()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_file_loads(path: Path) -> None:
    assert isinstance(read_experiment(["--config", str(path)]), Experiment)


def test_the_numeric_keys_are_all_found() -> None:
    found = {f"{section}.{key}" for section, key, _ in NUMBERS}
    assert {"data.alpha", "federation.local_steps", "ray.startup_timeout", "model.width"} <= found
    assert len(found) >= 25


@pytest.mark.parametrize(("section", "key", "hint"), NUMBERS)
def test_a_number_below_its_range_is_refused_by_its_key(section: str, key: str, hint: Any) -> None:
    with pytest.raises(InputError, match=rf"^{section}\.{key} is -1: it must "):
        SECTIONS[section](**{key: -1})


@pytest.mark.parametrize(("section", "key", "hint"), NUMBERS)
def test_zero_is_refused_where_it_makes_no_sense(section: str, key: str, hint: Any) -> None:
    if f"{section}.{key}" in ZERO_IS_FINE:
        assert getattr(SECTIONS[section](**{key: 0}), key) == 0
    else:
        with pytest.raises(InputError, match=rf"^{section}\.{key} is 0: it must "):
            SECTIONS[section](**{key: 0})


@pytest.mark.parametrize(("section", "key", "value"), UPPER)
def test_a_number_above_its_range_is_refused_by_its_key(section: str, key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{section}\.{key} is {value}: it must lie between"):
        SECTIONS[section](**{key: value})


@pytest.mark.parametrize(("section", "key", "hint"), [entry for entry in NUMBERS if entry[2] is float])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(section: str, key: str, hint: Any, value: float) -> None:
    with pytest.raises(InputError, match=rf"^{section}\.{key} is {value}: it must "):
        SECTIONS[section](**{key: value})


@pytest.mark.parametrize(("section", "key"), LITERALS)
def test_a_word_that_is_no_choice_is_refused_in_python_too(section: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"^{section}\.{key} is 'neither': "):
        SECTIONS[section](**{key: "neither"})


def test_what_pretrains_is_a_known_name_or_nothing_and_excludes_another_start() -> None:
    assert Model(pretrained="bloodcells").pretrained == "bloodcells"
    with pytest.raises(InputError, match=r"model\.pretrained is 'bloodcell': did you mean 'bloodcells'\?"):
        Model(pretrained="bloodcell")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"model\.start: model\.pretrained gives weights to start from too"):
        Model(pretrained="bloodcells", start="model.ckpt")


@pytest.mark.parametrize(("name", "refused"), [("resnet9", True), ("dpresnet", False), ("scatternet_cnn", False)])
def test_batch_norm_is_refused_under_a_guarantee_where_the_network_would_have_it(name: str, refused: bool) -> None:
    def build() -> Experiment:
        privacy = Privacy(mechanism="record", epsilon=6.0)
        return Experiment(data=Data(validation=0.0), model=Model(name=name, norm="batch"), privacy=privacy)

    if not refused:
        assert build().model.name == name
        return
    with pytest.raises(InputError, match=r"model\.norm is 'batch'"):
        build()


def test_settings_of_another_mechanism_are_refused() -> None:
    with pytest.raises(InputError, match=r"privacy\.sensitivity 'replace_one' is of an update"):
        Privacy(mechanism="record", epsilon=6.0, sensitivity="replace_one")
    with pytest.raises(InputError, match=r"privacy\.sample_rate: mechanism 'update' samples no images"):
        Privacy(mechanism="update", epsilon=6.0, sample_rate=0.1)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.width is 15: it must be even"):
        Model(width=15)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=rf"seed is {seed}: it must lie between 0 and"):
        Experiment(seed=seed)


def test_an_experiment_cannot_be_changed_after_its_checks() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Experiment().training.lr = -1  # type: ignore[misc]


def test_plain_values_rebuild_the_same_experiment() -> None:
    experiment = Experiment(data=Data(alpha=0.25), training=Training(lr=0.5), federation=Federation(rounds=3))
    values = experiment.as_dict()
    for name, kind in (
        ("dropout", Dropout),
        ("stragglers", Stragglers),
        ("availability", Availability),
        ("poison", Poison),
    ):
        values["faults"][name] = kind(**values["faults"][name])
    values["federation"]["distillation"] = Distillation(**values["federation"]["distillation"])
    rebuilt = {key: SECTIONS[key](**value) if key in SECTIONS else value for key, value in values.items()}
    assert Experiment(**rebuilt) == experiment
    assert list(values) == [field.name for field in dataclasses.fields(Experiment)]


TEN = Federation(hospitals=10)


def masked(hospitals: int = 10, participation: float = 1.0, **settings: Any) -> Experiment:
    federation = Federation(hospitals=hospitals, participation=participation)
    return Experiment(federation=federation, secagg=SecAgg(protocol="secagg_plus", **settings))


def test_a_degree_and_threshold_that_do_not_hold_are_refused_with_the_nearest_that_do() -> None:
    with pytest.raises(InputError, match=r"secagg: degree 4 and threshold 4 are unsafe .* degree 4, threshold 3"):
        masked(degree=4, threshold=4)
    assert masked(degree=4, threshold=4, dropout_rate=0.0).secagg.warning(TEN) is None


def test_an_unsafe_choice_that_is_asked_for_runs_with_a_warning_that_says_where_it_would_hold() -> None:
    secagg = masked(degree=4, threshold=4, allow_unsafe=True).secagg
    assert (secagg.parameters(TEN).degree, secagg.parameters(TEN).threshold) == (4, 4)
    warning = secagg.warning(TEN)
    assert warning is not None
    assert "only 3 shares are sure to come together" in warning
    assert "a dropout rate up to 0 " in warning


def test_the_papers_degree_and_threshold_are_in_its_config() -> None:
    secagg = read_experiment(["--config", str(CONFIGS / "paper.yaml")]).secagg
    assert (secagg.protocol, secagg.degree, secagg.threshold, secagg.max_weight) == ("secagg_plus", 4, 4, 10000)


@pytest.mark.parametrize("hospitals", [1, 2])
def test_secure_aggregation_of_two_is_refused_since_each_would_learn_the_other_s(hospitals: int) -> None:
    with pytest.raises(InputError, match=f"secagg: {hospitals} hospitals: the sum of two tells each the other's"):
        masked(hospitals)


def test_the_cohort_and_not_the_hospitals_has_to_hold() -> None:
    with pytest.raises(InputError, match="secagg: 2 hospitals"):
        masked(10, participation=0.2)


def test_a_set_up_for_several_rounds_needs_one_cohort() -> None:
    with pytest.raises(InputError, match=r"secagg\.rounds_per_setup: with federation\.participation below 1"):
        masked(participation=0.5, rounds_per_setup=2)


def test_more_survivors_than_take_part_are_refused() -> None:
    with pytest.raises(InputError, match=r"secagg\.min_survivors is 11: only 10 hospitals take part"):
        masked(min_survivors=11)


@pytest.mark.parametrize("keys", [["ab" * 32], ["zz" * 32] * 10])
def test_identities_that_are_not_one_key_for_each_hospital_are_refused(keys: list[str]) -> None:
    with pytest.raises(InputError, match=r"secagg\.identities: "):
        masked(identities=keys)


def test_faults_are_checked_by_their_keys() -> None:
    with pytest.raises(InputError, match=r"faults\.dropout\.rate is 2: it must lie between 0 and 1"):
        Faults(dropout=Dropout(rate=2))
    with pytest.raises(InputError, match=r"faults\.dropout\.stage is 'after_key': did you mean 'after_keys'"):
        Dropout(stage="after_key")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"faults\.dropout\.losses\.round is 0"):
        Loss(round=0, hospital=1)


def test_losses_are_read_from_yaml_and_from_words(tmp_path: Path) -> None:
    wanted = [Loss(3, 2, "at_unmasking")]
    path = tmp_path / "losses.yaml"
    path.write_text("faults: {dropout: {losses: [{round: 3, hospital: 2, stage: at_unmasking}]}}")
    word = "--faults.dropout.losses=[{round: 3, hospital: 2, stage: at_unmasking}]"
    assert read_experiment(["--config", str(path)]).faults.dropout.losses == wanted
    assert read_experiment([word]).faults.dropout.losses == wanted


def test_the_cohort_is_the_adversary_s_choice() -> None:
    """Of fifty hospitals five may be corrupt, and all five may be in a cohort of ten."""
    experiment = masked(50, participation=0.2)
    assert experiment.secagg.parameters(experiment.federation).threshold == 8
    with pytest.raises(InputError, match=r"secagg: .* with 5 corrupt"):
        masked(50, participation=0.2, threshold=7)


def test_additive_sharing_of_two_is_refused() -> None:
    with pytest.raises(InputError, match=r"secagg\.protocol additive: 2 hospitals in a round"):
        Experiment(federation=Federation(hospitals=2), secagg=SecAgg(protocol="additive"))


def test_a_key_that_two_hospitals_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"secagg\.identities: two hospitals have the same key"):
        masked(identities=["ab" * 32] * 10)


@pytest.mark.parametrize(("round", "hospital"), [(9, 0), (1, 10)])
def test_a_loss_of_a_round_or_hospital_that_is_not_there_is_refused(round: int, hospital: int) -> None:
    with pytest.raises(InputError, match=r"faults\.dropout\.losses: hospital \d+ in round \d, but there are"):
        Experiment(faults=Faults(dropout=Dropout(losses=[Loss(round, hospital)])))


LEAVES = [
    (section, key)
    for section, values in Experiment().as_dict().items()
    if isinstance(values, dict)
    for key in values
]


@pytest.mark.parametrize(("section", "key"), LEAVES, ids=lambda name: str(name))
def test_the_fingerprint_is_of_all_that_a_result_depends_on(section: str, key: str) -> None:
    changed = copy.deepcopy(Experiment())
    object.__setattr__(getattr(changed, section), key, "another")
    free = may_change(f"{section}.{key}") or f"{section}.{key}" in PLACES
    assert (changed.fingerprint == Experiment().fingerprint) is free


def test_what_may_change_when_a_run_goes_on() -> None:
    assert all(map(may_change, ("ray", "ray.address", "tracking.name", "faults.max_failed_rounds")))
    assert not any(map(may_change, ("ray.gpus_per_hospital", "rays", "faults", "faults.dropout.rate", "seed")))
    assert Experiment(seed=7).fingerprint != Experiment().fingerprint
    assert Experiment(output="elsewhere").fingerprint == Experiment().fingerprint


def test_only_resnet18_has_a_stem_to_choose() -> None:
    assert Model(name="resnet18", stem="average_pool").stem == "average_pool"
    with pytest.raises(InputError, match=r"^model\.stem is 'max_pool': only resnet18 has one to choose"):
        Model(name="resnet9", stem="max_pool")

"""Reading an experiment: YAML files and dotted overrides, by jsonargparse, with one-line errors."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.experiment import Experiment
from lightning_fed.paths import user_path

FREE_FORM = ("model.init_args", "federation.server_options", "training.optimizer_options")
KINDS = {"float": "a finite number", "int": "a whole number", "bool": "true or false"}
SWITCHES = ("config", "print_config", "help")
MERGE = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.YAMLError):
    """A mapping gives one key twice; YAML itself would take the last without a word."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(key, line)
        self.key, self.line = key, line


class OnceLoader(yaml.SafeLoader):
    """YAML's safe loader, which takes each key of a mapping once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, unless a key is there twice."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise RepeatedKeyError(key.value, key.start_mark.line + 1)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file of the user holds.

    Raises:
        InputError: a key is given twice.
        OSError, UnicodeDecodeError, yaml.YAMLError: it cannot be read.
    """
    try:
        return yaml.load(path.read_text(), OnceLoader)  # a safe loader
    except RepeatedKeyError as error:
        raise InputError(f"{path}, line {error.line}: {error.key} is given twice; keep one of them") from error


class ExperimentParser(ArgumentParser):
    """jsonargparse's parser, whose errors are one line and an `InputError`."""

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(_one_line(message))


class CommandParser(argparse.ArgumentParser):
    """A command's own words, whose errors are one line and an `InputError`.

    Args:
        command: such as `sweep`. description, epilog: of `--help`.
    """

    def __init__(self, command: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(f"lightning-fed {command}", description=description, epilog=epilog, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(f"{self.command}: {message}; see 'lightning-fed {self.command} --help'")


def experiment_parser(epilog: str = "") -> ExperimentParser:
    """A parser of `--config FILE` and every key of the experiment."""
    parser = ExperimentParser(prog="lightning-fed run", allow_abbrev=False, description="Train one federation.")
    parser.epilog = epilog
    parser.add_argument("--config", action=ActionConfigFile, help="YAML experiment; several are merged in order")
    parser.add_class_arguments(Experiment)
    return parser


def read_experiment(words: Sequence[str], epilog: str = "") -> Experiment:
    """The experiment that words such as `--config FILE --model.width 16` describe.

    Args:
        words: `--config`, dotted keys, `--print_config`, `--help`. epilog: further words that `--help` tells.

    Raises:
        InputError: an unknown key, a wrong type, a value out of range, a file that cannot be read.
    """
    check_keys(words)
    parser = experiment_parser(epilog)
    try:
        built = parser.instantiate(parser.parse_args(list(words)))
    except argparse.ArgumentError as error:
        raise InputError(_one_line(str(error))) from error
    return Experiment(**{field.name: built[field.name] for field in dataclasses.fields(Experiment)})


def known_keys() -> list[str]:
    """Every dotted key of the experiment, sections too."""
    return sorted(_keys_of(Experiment, ""))


def _keys_of(kind: Any, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(kind):
        yield prefix + field.name
        factory: Any = field.default_factory
        if dataclasses.is_dataclass(factory):
            yield from _keys_of(factory, f"{prefix}{field.name}.")


def check_keys(words: Sequence[str]) -> None:
    """Refuse unknown keys, on the command line and in the files that it names, with the nearest name.

    Raises:
        InputError: an unknown key, or a file that is not a YAML mapping.
    """
    known = {*known_keys(), *SWITCHES}
    for position, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, _, value = word[2:].partition("=")
        _check_key(name.rstrip("+"), known, f"--{name}")
        if name == "config":
            _check_file(value or "".join(words[position + 1 : position + 2]), known)


def _check_file(name: str, known: set[str]) -> None:
    path = user_path(name)
    try:
        content = read_yaml(path)
    except OSError as error:
        raise InputError(f"--config {name}: cannot be read ({error.strerror}); name a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {name}: not YAML ({_one_line(str(error))}); mend the file") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {name}: not a mapping of keys; see configs/quickstart.yaml")
    for key, value in _flatten(content, ""):
        _check_key(key, known, f"{name}: {key}")
        if not isinstance(value, dict) and any(other.startswith(f"{key}.") for other in known):
            raise InputError(f"{name}: {key} is {value!r}: it is a section; give it keys or leave it out")


def _flatten(content: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        yield name, value
        if isinstance(value, dict) and name not in FREE_FORM:
            yield from _flatten(value, f"{name}.")


def _check_key(key: str, known: set[str], shown: str) -> None:
    if key not in known and not key.startswith(tuple(f"{free}." for free in FREE_FORM)):
        raise InputError(f"{shown} is not a key of the experiment: {suggestion(key, known)}")


def _one_line(message: str) -> str:
    """The several lines as one, with the key first."""
    text = " ".join(message.split()).removeprefix("error: ")
    named = re.match(r'(?:Validation failed: )?Parser key "([\w.]+)"', text)
    choices = re.search(r"Expected a typing\.Literal\[(.*?)\].*?[Gg](?:ot|iven) value: (.+?)(?: Given.*)?$", text)
    if named and choices:
        known = [choice.strip(" '\"") for choice in choices[1].split(",")]
        return f"{named[1]} is '{choices[2]}': {suggestion(choices[2], known)}"
    number = re.search(r"Expected a <class '(float|int|bool)'>.*?[Gg](?:ot|iven) value: (.+?)(?: Given.*)?$", text)
    if named and number:
        return f"{named[1]} is {number[2]}: it must be {KINDS[number[1]]}"
    return text.replace('Parser key "', "key '").replace('":', "':").replace(" Got value:", " got")

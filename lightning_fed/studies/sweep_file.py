"""A W&B sweep file read without W&B: which runs it asks for, and with which words each is started.

The file's form is W&B's own, so that `wandb sweep` and `wandb agent` take it too. Its `command` must be our
command line with `${args}`, which stands for the run's parameters as `--key=value`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import yaml

from lightning_fed.arguments import read_yaml
from lightning_fed.checks import suggestion
from lightning_fed.errors import InputError
from lightning_fed.paths import user_path

ARGS = "${args}"
STARTS = ("${env}", "${interpreter}", "${program}", "python", "-m")
"""Words of a command before ours that say how a program is started."""
PROGRAMS = ("lightning-fed", "lightning_fed")
METHODS = ("grid", "random")
OF_WANDB = ("bayes",)
KEYS = {  # of W&B's sweep configuration
    *("command", "controller", "description", "early_terminate", "entity", "image_uri", "job", "method", "metric"),
    *("name", "parameters", "program", "project", "run_cap"),
}
GREATEST = 2**62

Point = dict[str, Any]
"""One run's parameters by dotted key."""
Draw = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file asks for.

    Args:
        path: of the file. name: of the sweep. method: `grid`, `random`, or W&B's own `bayes`.
        words: of `lightning-fed run`, among them `${args}`. parameters: by dotted key, as W&B writes them.
        run_cap: most runs, or None.
    """

    path: Path
    name: str
    method: str
    words: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    run_cap: int | None

    def words_of(self, point: Point) -> list[str]:
        """The words of `lightning-fed run` for one run, as the agent writes them."""
        for key, value in point.items():
            if value is None:
                raise InputError(f"{self.path}: {key} is null, which W&B's agent writes as None; leave it out")
        args = [f"--{key}={value}" for key, value in point.items()]
        return list(itertools.chain.from_iterable(args if word == ARGS else [word] for word in self.words))

    def points(self, runs: int | None, seed: int, method: str | None = None) -> list[Point]:
        """The runs' parameters: every combination for `grid`, drawn ones for `random`, each once.

        Args:
            runs: at most so many; for `random`, so many draws. seed: of the draws. method: instead of the file's.

        Raises:
            InputError: the method needs W&B's server, a parameter has no values to go through or to draw from, or
                nobody says how many runs to draw.
        """
        method, most = method or self.method, runs or self.run_cap
        if method not in METHODS:
            raise InputError(
                f"{self.path}: method '{method}' needs W&B's server ('wandb sweep' and 'wandb agent'); "
                "--method random draws from the same parameters here"
            )
        if method == "grid":
            values = [self._values(key) for key in self.parameters]
            every = [dict(zip(self.parameters, choice, strict=True)) for choice in itertools.product(*values)]
            return every[:most]
        if most is None:
            raise InputError(f"{self.path}: nobody says how many runs to draw; add run_cap, or --runs N")
        generator = np.random.default_rng(seed)
        draws = {key: self._draw(key) for key in self.parameters}
        drawn = [{key: draw(generator) for key, draw in draws.items()} for _ in range(most)]
        return list({repr(point): point for point in drawn}.values())  # the same run twice is no second run

    def _values(self, key: str) -> Sequence[Any]:
        parameter = self.parameters[key]
        if "value" in parameter:
            return [parameter["value"]]
        values = parameter.get("values")
        if not isinstance(values, list) or not values:
            raise InputError(f"{self.path}: {key} has no values to go through; give it values, or method: random")
        return values

    def _draw(self, key: str) -> Draw:
        parameter = self.parameters[key]
        if "value" in parameter or "values" in parameter:
            return self._choice(key)
        low, high = parameter.get("min"), parameter.get("max")
        if not _is_number(low) or not _is_number(high) or low > high:
            raise InputError(f"{self.path}: {key} needs value, values, or min and max to draw from")
        whole = isinstance(low, int) and isinstance(high, int)
        kind = parameter.get("distribution", "int_uniform" if whole else "uniform")
        if kind == "int_uniform":
            return lambda generator: int(generator.integers(int(low), int(high) + 1))
        if kind == "uniform":
            return lambda generator: float(generator.uniform(low, high))
        if kind == "log_uniform_values" and low > 0:
            return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))
        known = ("int_uniform", "uniform", "log_uniform_values")
        raise InputError(f"{self.path}: {key}.distribution '{kind}' is not drawn here: {suggestion(kind, known)}")

    def _choice(self, key: str) -> Draw:
        values, chances = self._values(key), self.parameters[key].get("probabilities")
        if chances is not None and not _are_chances(chances, len(values)):
            raise InputError(f"{self.path}: {key}.probabilities must be as many as the values and add up to 1")
        return lambda generator: values[int(generator.choice(len(values), p=chances))]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < GREATEST


def _are_chances(values: Any, count: int) -> bool:
    listed = isinstance(values, list) and len(values) == count and all(map(_is_number, values))
    return listed and min(values) >= 0 and math.isclose(sum(values), 1)


def read_sweep(name: str | Path) -> SweepFile:
    """Read a sweep file.

    Raises:
        InputError: it cannot be read, or is no sweep of `lightning-fed run`.
    """
    path = user_path(name)
    try:
        content = read_yaml(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a sweep file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML; mend the file") from error
    parameters = content.get("parameters") if isinstance(content, dict) else None
    if not isinstance(parameters, dict) or not all(
        isinstance(key, str) and isinstance(one, dict) for key, one in parameters.items()
    ):
        raise InputError(f"{path}: no parameters with values in it, so this is no sweep; see configs/sweeps")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise InputError(f"{path}: {unknown[0]} is not a key of a sweep: {suggestion(unknown[0], KEYS)}")
    method = str(content.get("method"))
    if method not in (*METHODS, *OF_WANDB):
        raise InputError(f"{path}: method is '{method}': {suggestion(method, (*METHODS, *OF_WANDB))}")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        raise InputError(f"{path}: run_cap is {cap!r}; it must be a whole number above 0")
    return SweepFile(
        path,
        str(content.get("name") or path.stem),
        method,
        _own_words(path, content.get("command")),
        parameters,
        cap,
    )


def _own_words(path: Path, command: Any) -> tuple[str, ...]:
    """The words after `lightning-fed run`."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    while words and words[0] in STARTS:
        words.pop(0)
    if len(words) < 2 or words[0] not in PROGRAMS or words[1] != "run" or ARGS not in words:
        raise InputError(f"{path}: command must be a list: lightning-fed, run, further words, and {ARGS}")
    return tuple(words[2:])

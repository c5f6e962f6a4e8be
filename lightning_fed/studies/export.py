"""`lightning-fed export RUN`: the trained model for other tools, its privacy card beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning_fed.arguments import CommandParser
from lightning_fed.errors import InputError
from lightning_fed.models.deploy import save_onnx, save_safetensors
from lightning_fed.models.export import load_model
from lightning_fed.paths import user_path
from lightning_fed.report.card import card_of
from lightning_fed.report.load import read_run
from lightning_fed.studies.predict import TRUST
from lightning_fed.tracking.console import say
from lightning_fed.tracking.files import write_text_whole


def export_command(words: Sequence[str]) -> int:
    """Write a finished run's model as model.ckpt, model.safetensors and model.onnx, and PRIVACY.md beside them.

    Raises:
        InputError: the run is not finished, a library is missing, the network has no form in ONNX, or the folder
            cannot be written.
    """
    parser = CommandParser("export", description=export_command.__doc__)
    parser.add_argument("run", help="a finished run's folder")
    parser.add_argument("--output", help="folder to write; RUN/export if left out")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    own = parser.parse_args(list(words))
    run = user_path(own.run)
    for path in export(run, user_path(own.output) if own.output else run / "export", own.trust):
        say(str(path))
    return 0


def export(run: Path, target: Path, trust: bool = False) -> list[Path]:
    """Write all forms; their paths.

    Raises:
        InputError: see `export_command`.
    """
    card, model = card_of(read_run(run)), load_model(run / "model.ckpt", trust)
    paths = [target / name for name in ("PRIVACY.md", "model.ckpt", "model.safetensors", "model.onnx")]
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_text_whole(paths[0], card)
        shutil.copyfile(run / "model.ckpt", paths[1])
        save_safetensors(model, paths[2])
        save_onnx(model, paths[3])
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name another --output") from error
    return paths

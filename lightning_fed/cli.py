"""The command line: `lightning-fed run | paper | sweep | report | predict | export | audit | bench | chaos`."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_fed import __version__, interrupts
from lightning_fed.checks import suggestion
from lightning_fed.errors import FederationError, InputError
from lightning_fed.paths import DISK_IS_FULL

USAGE = """usage: lightning-fed COMMAND [options]

  run       train one federation; without options, ten hospitals on procedural blood cells
  paper     the tables of arXiv 2412.00687, each number beside the printed one
  sweep     the runs of a W&B sweep file, side by side on Ray
  report    write a run's page anew from its folder, or a page that compares several runs
  export    a run's model as safetensors and ONNX, with its privacy card
  predict   name the cells in pictures, or in an npz, by a trained model
  secagg-parameters   the degree and threshold that hold for some hospitals and rates, as JSON
  audit     whether a claimed epsilon can be true: audit epsilon --config FILE
  chaos     short runs under random faults: killed processes, lost nodes, full disks, damaged files
  bench     measure this machine: bench federation, bench secagg, bench soak

'lightning-fed COMMAND --help' tells more. --debug shows the traceback of an error."""

REPORT_USAGE = """usage: lightning-fed report RUN
       lightning-fed report RUN RUN [RUN ...] [--output FILE]

Of one run: writes report.html and figures/ into its folder anew.
Of several: writes a page that compares them (comparison.html)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 done, 2 bad input, 3 no end to the federation, 4 a claim that an audit refutes, 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with interrupts.heard(), interrupts.taken_as_such():
            return _dispatch(words)
    except (InputError, FederationError) as error:
        if debug:
            raise
        print("lightning-fed: " + " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, InputError) else 3
    except OSError as error:
        if debug or error.errno not in (*DISK_IS_FULL, errno.EROFS):
            raise
        print(f"lightning-fed: {error.filename or 'a file'}: {error.strerror}; make room for it", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("lightning-fed: stopped", file=sys.stderr)
        return 130


def _dispatch(words: list[str]) -> int:
    commands = {
        "run": _run,
        "paper": _paper,
        "sweep": _sweep,
        "report": _report,
        "predict": _predict,
        "export": _export,
        "bench": _bench,
        "audit": _audit,
        "chaos": _chaos,
        "secagg-parameters": _secagg_parameters,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in commands:
        raise InputError(f"no command '{words[0]}': {suggestion(words[0], commands)}")
    return commands[words[0]](words[1:])


def _run(words: list[str]) -> int:
    from lightning_fed.run_command import run_command

    return run_command(words)


def _paper(words: list[str]) -> int:
    from lightning_fed.studies.paper import paper_command

    return paper_command(words)


def _sweep(words: list[str]) -> int:
    from lightning_fed.studies.sweep import sweep_command

    return sweep_command(words)


def _report(words: list[str]) -> int:
    if words[:1] in (["-h"], ["--help"]):
        print(REPORT_USAGE)
        return 0
    output, folders = "comparison.html", list(words)
    if "--output" in folders[:-1]:
        place = folders.index("--output")
        output = folders[place + 1]
        del folders[place : place + 2]
    if not folders or any(word.startswith("-") for word in folders):
        raise InputError("report takes folders of runs: lightning-fed report RUN [RUN ...] [--output FILE]")
    if len(folders) == 1 and len(words) > 1:
        raise InputError("report: --output is for several runs; the page of one run lies in its own folder")
    if len(folders) == 1:
        from lightning_fed.report.page import write_report

        print(write_report(Path(folders[0])))
    else:
        from lightning_fed.report.compare import write_comparison

        print(write_comparison([Path(folder) for folder in folders], Path(output)))
    return 0


def _predict(words: list[str]) -> int:
    from lightning_fed.studies.predict import predict_command

    return predict_command(words)


def _export(words: list[str]) -> int:
    from lightning_fed.studies.export import export_command

    return export_command(words)


def _bench(words: list[str]) -> int:
    from lightning_fed.studies.bench import bench_command

    return bench_command(words)


def _audit(words: list[str]) -> int:
    from lightning_fed.studies.audit import audit_command

    return audit_command(words)


def _chaos(words: list[str]) -> int:
    from lightning_fed.studies.chaos import chaos_command

    return chaos_command(words)


def _secagg_parameters(words: list[str]) -> int:
    from lightning_fed.parameters_command import parameters_command

    return parameters_command(words)

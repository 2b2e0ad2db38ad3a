"""The command line: adalabel COMMAND [its flags] [-- Beam's own flags]."""

import importlib
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import tyro

from launch.memory import keep_freed_memory
from policy.errors import GIVEN_WRONG, InputError, Stopped, Unavailable, shown

COMMANDS = {
    "demo": ("pipelines.demo", "DemoOptions", "the whole loop on embedded real images"),
    "calibrate": ("pipelines.calibrate", "CalibrateOptions", "measure what each stage costs here"),
    "extract": ("pipelines.extract", "ExtractOptions", "run all networks, keep a table of answers"),
    "import": ("pipelines.import_predictions", "ImportOptions", "a table of recorded predictions"),
    "fit": ("pipelines.fit", "FitOptions", "learn from a table when to stop"),
    "evaluate": ("pipelines.evaluate", "EvaluateOptions", "what a policy costs and gets right"),
    "manifest": ("pipelines.manifest", "ManifestOptions", "write down what shards hold"),
    "classify": ("pipelines.classify", "ClassifyOptions", "label shards with a policy"),
    "nightly": ("pipelines.nightly", "NightlyOptions", "label what is new since the last night"),
    "check": ("pipelines.check", "CheckOptions", "try what a run needs, with one worker"),
    "verify": ("pipelines.verify", "VerifyOptions", "check an output against its manifest"),
    "refit": ("pipelines.refit", "RefitOptions", "fit on new labels, use it if better"),
    "policy publish": (
        "pipelines.policy_publish",
        "PublishOptions",
        "store one, label with it from now on",
    ),
    "policy list": ("pipelines.policy_list", "ListOptions", "the versions of a registry"),
    "policy show": ("pipelines.policy_show", "ShowOptions", "one version, its proof and history"),
    "policy rollback": (
        "pipelines.policy_rollback",
        "RollbackOptions",
        "label with the one before again",
    ),
}
"""Command, of one word or two -> module, options and one line of help.

Modules are imported when they are needed. The first word alone of several commands lists them.
"""

_GROUPS = {"", *(name.partition(" ")[0] for name in COMMANDS if " " in name)}
"""What alone, or with --help, lists commands: nothing, and the first words of those of two."""

_HELP = ("-h", "--help")

EXPLAINED = {
    "extract": "pipelines.explain_extract",
    "classify": "pipelines.explain_classify",
    "nightly": "pipelines.explain_nightly",
}
"""Command -> the module whose `run` tells what the command would do, for --dry-run."""

MOST_PROBLEM = 4_000
"""Characters of a message; those of parts of it, such as a name, are cut much earlier."""

EXIT_USAGE = InputError.exit_code
STDERR = 2
_GO_ON = "; run the same command again to go on where it stopped"

_ENDINGS: list[Callable[[], None]] = []
"""What a run that is told to end has to end elsewhere: its job in a cluster."""

_SIGNALS: dict[int, tuple[str, int]] = {
    signal.SIGINT: ("interrupted", 130),
    signal.SIGTERM: ("terminated", 143),
}
"""Signals that end a run, and the exit codes that shells know them by."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: done. 2 to 7: see `policy.errors`, with a message that says what to do. 130: interrupted.
    143: terminated. 1, with a traceback, is a bug in adalabel.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--version"]:
        _say(f"adalabel {version('adalabel')}")
        return 0
    command, rest = _named(given)
    if command in _GROUPS and (not rest or rest[0] in _HELP):
        _say(_overview(command))
        return 0 if rest else EXIT_USAGE
    keep_freed_memory()
    with _ended_by_signals(command):
        return _told(command, rest)


def _named(given: list[str]) -> tuple[str, list[str]]:
    """The command that the first words name, or all that begin with them; and what comes after.

    A word that continues no command is kept with the first, so that it shows in the refusal.
    """
    if not given or given[0] in _HELP:
        return "", given
    words = 2 if given[0] in _GROUPS and len(given) > 1 and given[1] not in _HELP else 1
    return " ".join(given[:words]), given[words:]


def _told(command: str, arguments: list[str]) -> int:
    """Run a command; what it raises for the user becomes a message and an exit code."""
    logging.getLogger().addFilter(_is_of_use)
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)  # we tell what it raises
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)  # its commands
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("adalabel").setLevel(logging.INFO)
    try:
        return _run(command, arguments)
    except (InputError, Stopped) as error:
        _complain(command, str(error))
        return error.exit_code
    except OSError as error:
        _complain(command, f"{error.filename or 'file system'}: {error.strerror or error}")
        return EXIT_USAGE if isinstance(error, GIVEN_WRONG) else Unavailable.exit_code
    except KeyboardInterrupt:
        how, code = _SIGNALS[signal.SIGINT]
        _complain(command, how + _GO_ON)
        return code


@contextmanager
def _ended_by_signals(command: str) -> Iterator[None]:
    """End the process at once when it is told to while the body runs.

    An exception would have to find its way through a runner that may hold any lock. Nothing is lost
    by not waiting: what is not committed is done again by the next run, as after a SIGKILL.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # or Python will not write to it from a signal's handler
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_when_told, args=(command, reading), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


def _end_when_told(command: str, reading: int) -> None:
    """End the process at the first of the signals that is written to this pipe.

    A thread of its own, as the main one may be inside a library that does not come back for long.
    """
    with open(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] in _SIGNALS:
                how, code = _SIGNALS[number[0]]
                os.write(STDERR, f"\nadalabel {command}: {how}{_GO_ON}\n".encode())
                try:
                    for end in _ENDINGS:
                        end()
                finally:  # whatever is met there, or the process would never end
                    os._exit(code)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Leave out what Beam says of BigQuery at every start, and nobody here needs."""
    return "apitools not found" not in record.getMessage()


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        group = command.partition(" ")[0]
        raise InputError(f"no such command; commands are {', '.join(_those_of(group) or COMMANDS)}")
    module_name, options_name, _ = COMMANDS[command]
    module = importlib.import_module(module_name)
    ours, beam_args = _at_dashes(arguments)
    options = tyro.cli(
        getattr(module, options_name),
        prog=f"adalabel {command}",
        args=ours,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    if getattr(options, "dry_run", False):
        module = importlib.import_module(EXPLAINED[command])
    receipt = module.run(options, *_beam_args(module.run, options, beam_args))
    as_json = json.dumps(asdict(receipt), indent=2, allow_nan=False)
    _say(as_json if options.json else receipt.text())
    return int(getattr(receipt, "exit_code", 0))


def _beam_args(run: Any, options: Any, given: list[str]) -> list[list[str]]:  # noqa: ANN401
    """What `run` takes beside its options: Beam's flags, if it has a pipeline to run."""
    if "beam_args" not in inspect.signature(run).parameters:
        if given:
            raise InputError(f"runs no Beam pipeline, so it takes nothing after --: {given[0]}")
        return []
    from launch.runners import abandon, check, preset  # noqa: PLC0415 - Beam takes a second

    runner = options.runner
    check(runner.on, options)
    flags = preset(replace(runner, beam_flags=(*runner.beam_flags, *given)))
    _ENDINGS.append(partial(abandon, runner.on, flags))
    return [flags]


def _at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What comes before the first --, and what comes after it."""
    if "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _overview(group: str) -> str:
    """The commands that begin with a word; all of them for none."""
    found = _those_of(group) or list(COMMANDS)
    width = max(map(len, found)) + 1
    usage = f"{group} COMMAND [flags]" if group else "COMMAND [flags] [-- Beam's own flags]"
    lines = [f"usage: adalabel {usage}", ""]
    lines += [f"  {name:{width}}{COMMANDS[name][2]}" for name in found]
    return "\n".join([*lines, "", "adalabel COMMAND --help lists its flags."])


def _those_of(group: str) -> list[str]:
    """The commands of two words that begin with this one."""
    return [name for name in COMMANDS if name.startswith(f"{group} ")]


def _complain(command: str, problem: str) -> None:
    sys.stderr.write(f"adalabel {shown(command)}: {shown(problem, MOST_PROBLEM)}\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())

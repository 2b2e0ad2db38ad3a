"""The reference of all commands: python -m launch.reference > docs/commands.md."""

import contextlib
import importlib
import io
import os
import sys
from unittest import mock

import tyro

from launch.cli import COMMANDS

WIDTH = 100


def page() -> str:
    """Every command's --help, as Markdown."""
    parts = [
        "# Commands",
        "",
        "What `adalabel COMMAND --help` prints, made by `python -m launch.reference`.",
        "What comes after `--` goes to Beam.",
    ]
    for command, (_, _, summary) in COMMANDS.items():
        parts += ["", f"## adalabel {command}: {summary}", "", "```", help_of(command), "```"]
    return "\n".join(parts) + "\n"


def help_of(command: str) -> str:
    """What --help prints for one command, without colours and at a fixed width."""
    module, options, _ = COMMANDS[command]
    text = io.StringIO()
    environment = {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
    ):
        kind = getattr(importlib.import_module(module), options)
        tyro.cli(
            kind,
            prog=f"adalabel {command}",
            args=["--help"],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


if __name__ == "__main__":
    sys.stdout.write(page())

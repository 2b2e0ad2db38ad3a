"""Flex templates of Dataflow: their parameters are the options of a command, and become them.

python -m launch.template classify > launch/images/classify.json
"""

import ast
import dataclasses
import importlib
import inspect
import json
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from launch import cli
from policy.errors import InputError

LEFT_OUT = frozenset({"on", "json", "dry_run", "costs", "usd_per_hour"})
"""A template runs on Dataflow, talks to a log, and is not what tells what a run would take."""

_ON_BUCKETS = ("input", "networks", "output", "policy", "shard_manifest")
_REGEXES = {int: r"^\d+$", float: r"^\d*\.?\d+$", bool: "^(true|false)$"}
_IMAGE = {
    "name": "sdk_container_image",
    "label": "sdk_container_image",
    "helpText": "The workers' image, made of launch/images/worker.Dockerfile.",
    "isOptional": False,
    "regexes": [r"^[\w.-]+(:\d+)?/[\w./-]+[:@][\w.:-]+$"],
}


def main(command: str, arguments: Sequence[str]) -> int:
    """Hand a command's job over to the service that started this; returns the exit code.

    `arguments` are --name=value: options of the command, and what else the service gives, Beam's.
    """
    ours, beams = _split(command, arguments)
    return cli.main(
        [command, "--on", "dataflow", *ours, "--", *beams, "--no_wait_until_finish"],
    )


def metadata(command: str) -> str:
    """What the service asks for before it starts a template, as JSON."""
    summary = cli.COMMANDS[command][2]
    fields = {
        "name": f"adalabel {command}",
        "description": f"{summary[0].upper()}{summary[1:]}.",
        "streaming": False,
        "parameters": [_IMAGE, *(_parameter(field) for field in _fields(command))],
    }
    return json.dumps(fields, indent=2) + "\n"


@dataclasses.dataclass(frozen=True)
class _Field:
    """An option of a command; `kind` is its type."""

    name: str
    kind: Any
    help: str
    has_default: bool

    @property
    def regexes(self) -> list[str]:
        """What its text must match."""
        if self.name in _ON_BUCKETS:
            return ["^gs://.+$"]
        if get_origin(self.kind) is Literal:
            return [f"^({'|'.join(get_args(self.kind))})$"]
        return [_REGEXES[self.kind]] if self.kind in _REGEXES else []


def _split(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line of the command, and Beam's."""
    fields = {field.name: field for field in _fields(command)}
    ours, beams = [], []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        field = fields.get(flag.removeprefix("--").replace("-", "_"))
        if field is None:
            beams.append(argument)
        elif field.kind is not bool:
            several = get_origin(field.kind) is tuple
            ours += [_flag(field), *(shlex.split(value) if several else [value])]
        elif value not in ("true", "false"):
            raise InputError(f"{argument}: wanted {flag}=true or {flag}=false")
        else:
            ours += [_flag(field)] if value == "true" else []
    return ours, beams


def _flag(field: _Field) -> str:
    return "--" + field.name.replace("_", "-")


def _parameter(field: _Field) -> dict[str, Any]:
    found = {
        "name": field.name,
        "label": field.name,
        "helpText": field.help,
        "isOptional": field.has_default,
    }
    return found | ({"regexes": field.regexes} if field.regexes else {})


def _fields(command: str) -> Iterator[_Field]:
    """The options of a command that a template has, those that must be given first."""
    module, name, _ = cli.COMMANDS[command]
    options = getattr(importlib.import_module(module), name)
    kinds, helps = get_type_hints(options), _helps(options)
    found = [
        _Field(f.name, kinds[f.name], helps[f.name], f.default is not dataclasses.MISSING)
        for f in dataclasses.fields(options)
        if f.name not in LEFT_OUT
    ]
    yield from sorted(found, key=lambda field: field.has_default)


def _helps(options: type) -> dict[str, str]:
    """The text below each field of a class and of those it is made from."""
    found: dict[str, str] = {}
    for kind in reversed(options.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, text in pairwise(statements):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str() as said)),
                ):
                    found[name] = " ".join(said.split())
    return found


if __name__ == "__main__":
    sys.stdout.write(metadata(sys.argv[1]))

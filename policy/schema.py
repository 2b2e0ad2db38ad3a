"""Strict JSON in and out of frozen dataclasses: unknown, missing or retyped fields are refused."""

import json
import math
from typing import Any, NoReturn, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from policy.errors import InputError

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def from_json(kind: type[T], text: str | bytes, where: str) -> T:
    """Read a value of `kind`; `where` names the source in errors.

    Raises InputError on malformed JSON, NaN or infinity, a field given twice, and everything that
    differs from the fields of `kind`.
    """
    return from_fields(kind, parse_json(text, where), where)


def from_fields(kind: type[T], fields: object, where: str) -> T:
    """Check parsed fields (from JSON or TOML) against `kind`, as `from_json` does."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(fields))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error)}") from error
    except (InputError, TypeError) as error:  # TOML knows dates, JSON does not
        raise InputError(f"{where}: {error}") from error


def to_json(value: object) -> str:
    """Write a dataclass as JSON: two spaces, fields in their declared order, a final newline."""
    fields: Any = TypeAdapter(type(value)).dump_python(value, mode="json")
    return json.dumps(fields, indent=2, allow_nan=False) + "\n"


def parse_json(text: str | bytes, where: str) -> object:
    """Parse JSON, refusing what Python would let pass: NaN, Infinity and repeated fields."""
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is too large for a float")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} appears twice")
    return fields


def _explain(error: ValidationError) -> str:
    """Say each problem as `field.path: what is wrong (found ...)`."""
    problems = []
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "top level"
        found = "" if item["type"] == "missing" else f" (found {str(item['input'])[:80]!r})"
        problems.append(f"{place}: {item['msg'].removeprefix('Value error, ')}{found}")
    return "; ".join(problems)

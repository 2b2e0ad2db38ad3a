"""Strict JSON in and out of frozen dataclasses: unknown, missing or retyped fields are refused."""

import json
import math
import re
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from policy.errors import InputError, shown

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

MOST_BYTES = 100_000_000
"""Of a JSON file, and of the other files of settings; checked before they are read."""

MOST_DEEP = 100
"""Brackets inside brackets; ours are less than ten deep, and parsers recurse."""

_MOST_DIGITS = 30
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]')


def from_json(kind: type[T], text: str | bytes, where: str) -> T:
    """Read a value of `kind`; `where` names the source in errors.

    Raises InputError on malformed JSON, NaN or infinity, a field given twice, a `version` that is
    newer than that of `kind` (1 where it has none), and everything that differs from its fields.
    """
    fields = parse_json(text, where)
    _check_version(kind, fields, where)
    return from_fields(kind, fields, where)


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
    """Parse JSON, refusing what Python would let pass: NaN, Infinity and repeated fields.

    Also refused: more than MOST_DEEP, text that is not UTF-8, half a surrogate pair, and whole
    numbers of very many digits.
    """
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8-sig")
        _check_depth(plain)
        value: object = json.loads(
            plain,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_unique,
        )
        if _SURROGATE.search(plain):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: not valid JSON: a text holds half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {shown(error)}") from error
    return value


def _check_version(kind: type[Any], fields: object, where: str) -> None:
    """Say of a file that is newer than this program just that, not in which fields it differs."""
    found = fields.get("version") if isinstance(fields, dict) else None
    (ours,) = get_args(get_type_hints(kind).get("version")) or (1,)
    if type(found) is int and found > ours:
        raise InputError(
            f"{where}: made by a newer adalabel (version {found}, this one reads {ours}); update "
            "adalabel, or make the file again with this one"
        )


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MOST_DEEP:
        return
    deep = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            deep += 1
        elif found[0] in "]}":
            deep -= 1
        if deep > MOST_DEEP:
            raise ValueError(f"brackets more than {MOST_DEEP} deep at character {found.start()}")


def _whole(number: str) -> int:
    if len(number) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(number)} digits; wanted at most {_MOST_DIGITS}")
    return int(number)


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

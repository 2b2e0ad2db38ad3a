"""What a preflight finds: one line for each thing that was tried, good or bad, and the remedy."""

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import replace

from pydantic.dataclasses import dataclass

from policy.errors import GIVEN_WRONG, InputError, Stopped, Unavailable, shown
from policy.schema import STRICT, from_json, to_json

_MOST_SAID = 2_000
"""Characters of what is said of one check."""

_PACKED = re.compile(r"adalabel-findings:([A-Za-z0-9+/=]+):end")


@dataclass(frozen=True, config=STRICT)
class Finding:
    """Whether a check passed, and what was found; if it failed, also what to do.

    `exit_code` is that of the command line if nothing else failed: 2 where something must be
    changed, 5 where the same may pass later, 7 where a file is damaged, 0 where it passed.
    """

    check: str
    ok: bool
    said: str
    remedy: str = ""
    exit_code: int = 0


@dataclass(frozen=True, config=STRICT)
class Report:
    """What one worker found. `host` names it.

    `clock_seconds` is its clock less that of the output's file system; None where not known.
    """

    host: str
    findings: tuple[Finding, ...]
    clock_seconds: float | None = None


class Told(Stopped):
    """Carries a report in its text, where the output cannot: runners hand on the text of errors."""


def told_by(report: Report) -> Told:
    """The error that carries a report, packed so that no runner's quoting changes it."""
    packed = base64.b64encode(zlib.compress(to_json(report).encode())).decode()
    return Told(f"adalabel-findings:{packed}:end")


def told(text: str) -> list[Report]:
    """The reports that are packed in an error's text, each once."""
    packed = dict.fromkeys(_PACKED.findall(text))
    return [
        from_json(Report, zlib.decompress(base64.b64decode(one)), "a worker's report")
        for one in packed
    ]


def found(check: str, work: Callable[[], str], remedy: str) -> Finding:
    """Try something; `work` says what it found. What it raises for the user becomes a failure."""
    try:
        return Finding(check, ok=True, said=shown(work(), _MOST_SAID))
    except (InputError, Stopped) as error:
        return failed(check, str(error), remedy, error.exit_code)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        wrong = isinstance(error, GIVEN_WRONG)
        code = InputError.exit_code if wrong else Unavailable.exit_code
        return failed(check, said, remedy, code)


def failed(check: str, said: str, remedy: str, exit_code: int = InputError.exit_code) -> Finding:
    """A check that did not pass."""
    return Finding(
        check, ok=False, said=shown(said, _MOST_SAID), remedy=remedy, exit_code=exit_code
    )


def named(finding: Finding, where: str) -> Finding:
    """The same finding, of a check that says where it was made."""
    return replace(finding, check=f"{finding.check} ({where})")

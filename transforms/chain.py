"""A history of numbered steps, each won by exactly one writer, and a pointer to the newest one.

Step n is a file of its own that is created only if it is not there: in gs:// with
if_generation_match=0, on this machine by a link to a file that is written and synced. Who creates
it has made the step; everybody else is told. Then the pointer, a copy of the newest step, is moved:
in gs:// with if_generation_match, so that it never goes back, on this machine by rename. A writer
that is killed between the two leaves a pointer that is a step behind, and one that hangs there may
put it back: so readers look whether there is a step after the one it points to, and follow.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from policy.errors import Damaged, InputError
from policy.schema import parse_json
from transforms import bucket
from transforms.commit import Output

POINTER = "CURRENT"
HISTORY = "history"

_TRIES = 100


@dataclass(frozen=True)
class Chain:
    """The history and the pointer of a folder; every step is a JSON object with its `step`."""

    output: Output

    def read(self, name: str) -> bytes | None:
        """A file of the folder; None where there is none. Raises OSError or Unavailable."""
        path = f"{self.output.path}/{name}"
        if path.startswith(bucket.SCHEME):
            found = bucket.read(path)
            return found[0] if found else None
        with suppress(FileNotFoundError, NotADirectoryError):
            return Path(path).read_bytes()
        return None

    def newest(self) -> tuple[int, bytes | None]:
        """The number of the newest step and its content; 0 and None where nothing happened yet.

        Raises Damaged if the pointer is not a copy of the step it points to.
        """
        content = self.read(POINTER)
        step = 0 if content is None else self._step(content, POINTER)
        if content is not None and self.read(step_name(step)) != content:
            raise Damaged(
                f"{self.output.path}/{POINTER}: is not what {step_name(step)} says; it was changed "
                f"or damaged. If the history is right, copy its newest file to {POINTER}."
            )
        while (later := self.read(step_name(step + 1))) is not None:
            step, content = step + 1, later
        return step, content

    def follow(self) -> None:
        """Move the pointer to the newest step, if its writer did not live to do so."""
        step, content = self.newest()
        if content is not None:
            self._point(step, content)

    def append(self, step: int, content: bytes) -> bool:
        """Make this step, unless another has made it; returns whether it is ours."""
        name = step_name(step)
        if not self.output.create(name, content) and self.read(name) != content:
            return False  # else it was ours, and the response was lost
        self._point(step, content)
        return True

    def _point(self, step: int, content: bytes) -> None:
        """Let the pointer say so, unless it says that and more already."""
        path = f"{self.output.path}/{POINTER}"
        if not path.startswith(bucket.SCHEME):
            found = self.read(POINTER)
            if found is None or self._step(found, POINTER) < step:
                self.output.replace(POINTER, content)
            return
        for _ in range(_TRIES):  # each time somebody else has moved it
            known = bucket.read(path)
            if known is not None and self._step(known[0], POINTER) >= step:
                return
            if bucket.swap(path, content, known[1] if known else 0) is not None:
                return

    def _step(self, content: bytes, name: str) -> int:
        path = f"{self.output.path}/{name}"
        try:
            found = parse_json(content, path)
        except InputError as error:
            raise Damaged(f"{error}. Copy the newest file of {HISTORY} to {name}.") from error
        step = found.get("step") if isinstance(found, dict) else None
        if not isinstance(step, int) or step < 1:
            raise Damaged(f"{path}: no step of a history. Copy the newest file of {HISTORY} there.")
        return step


def step_name(step: int) -> str:
    """Where a step lies, below the folder."""
    return f"{HISTORY}/{step:08d}.json"

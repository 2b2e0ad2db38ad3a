"""The server before the emulator, as tests see it: a process that they tell what to do."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gcs.faulty import CONTROL


@dataclass(frozen=True)
class Front:
    """Where the server listens (host and port)."""

    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def tell(self, **wish: Any) -> dict[str, Any]:
        """Say what is to happen; what happened so far."""
        connection = HTTPConnection(self.address, timeout=60)
        connection.request("POST", CONTROL, json.dumps(wish))
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def forget(self) -> None:
        """Count anew, and let everything succeed."""
        self.tell(forget=True)

    def fail(self, **plan: Any) -> None:
        """Make requests fail as a `plans.Plan` says, counting anew."""
        self.tell(forget=True, plan={"count": 1, **plan})

    @property
    def requests(self) -> Counter[str]:
        """How many requests there were of each kind."""
        return Counter(self.tell()["requests"])

    @property
    def failed(self) -> Counter[str]:
        """How many requests were made to fail in each way."""
        return Counter(self.tell()["failed"])

    @property
    def log(self) -> list[tuple[str, str]]:
        """The kind and the target of every request."""
        return [(kind, name) for kind, name in self.tell()["log"]]

    @contextmanager
    def held(self, *names: str) -> Iterator[None]:
        """Let writes of what has all of these in its name wait, as long as the body runs."""
        self.tell(hold=names)
        try:
            yield
        finally:
            self.tell(hold=[])

    def wait(self, seconds: float = 120) -> None:
        """Wait until something is held."""
        deadline = time.monotonic() + seconds
        while not self.tell()["reached"]:
            assert time.monotonic() < deadline, "what was to be held never came"
            time.sleep(0.05)


@contextmanager
def before(emulator: str) -> Iterator[Front]:
    """A server before the emulator at this host and port."""
    running = subprocess.Popen(
        [sys.executable, "-m", "gcs.faulty", emulator],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        yield Front(running.stdout.readline().strip())
    finally:
        running.kill()
        running.communicate()

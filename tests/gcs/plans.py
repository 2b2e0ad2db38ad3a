"""Which requests to gs:// are made to fail, and how."""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import numpy as np

Kind = Literal["write", "read", "stat", "list", "copy", "delete", "other"]
Fault = Literal["429", "503", "lost", "stall", "cut"]
"""429, 503: refused. lost: carried out, then the connection ends without an answer. stall: carried
out, and no answer for longer than a client waits. cut: the connection ends amid the answer's body.
"""


def kind_of(method: str, target: str) -> Kind:
    """What a request asks for."""
    path = urlsplit(target).path
    if method == "DELETE":
        return "delete"
    if "/rewriteTo/" in path or "/copyTo/" in path:
        return "copy"
    if method in {"POST", "PUT"}:
        return "write" if "upload" in target else "other"
    if path.endswith("/o"):
        return "list"
    media = "alt=media" in target or not path.startswith("/storage/v1/b/")
    return "read" if media else "stat"


@dataclass
class Plan:
    """Which requests fail: `fault` for those of a kind (and name) from the `first` on, `count` of
    them; or with `storm`, this share of all requests, drawn with `seed`.
    """

    kind: Kind = "other"
    fault: Fault = "503"
    first: int = 1
    count: int = 0
    name: str = ""
    storm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._rng, self._seen = np.random.default_rng(self.seed), 0

    def of(self, kind: Kind, name: str) -> Fault | None:
        if self.storm:
            faults: list[Fault] = ["429", "503", "lost", "cut"]
            fails = self._rng.random() < self.storm
            return faults[self._rng.integers(len(faults))] if fails else None
        if kind != self.kind or self.name not in name:
            return None
        self._seen += 1
        return self.fault if self.first <= self._seen < self.first + self.count else None

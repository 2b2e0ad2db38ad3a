"""What a side is told, and the one line that it says at its end."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.photographs import BIG


@dataclass(frozen=True)
class Job:
    """A run of one side over all tars of a folder; labels go to `output`, a folder that is there.

    `networks` is the product's networks file, for the ceilings of its own engine.
    `network` runs on all images, or the cascade of `policy` does, a bundle's folder. `tuned`: what
    a careful engineer adds (see networks.Tuned), and memory kept. Threads are those of torch in
    each of `processes`, 0 for its default; `workers` decode.
    `device` and `compiled` are for the product's own engine.
    """

    data: str
    shards: str
    output: str
    networks: str
    network: str = BIG
    policy: str = ""
    tuned: bool = False
    precision: str = "float32"
    processes: int = 1
    threads: int = 0
    workers: int = 2
    batch_size: int = 64
    device: str = "cpu"
    compiled: bool = False

    @property
    def paths(self) -> list[Path]:
        """The tars, in order."""
        return sorted(Path(self.shards).glob("*.tar"))


def as_text(job: Job) -> str:
    """For the command line of a side's process."""
    return json.dumps(asdict(job))


def told() -> Job:
    """What this process was told by its only argument."""
    return Job(**json.loads(sys.argv[1]))


def begin(job: Job) -> None:
    """Say that the first image's turn has come; of several processes, the first one counts."""
    path = Path(job.output) / "begun"
    if not path.exists():
        try:
            with path.open("x") as file:
                file.write(repr(time.monotonic()))
        except FileExistsError:
            return


def finish(job: Job, images: int) -> None:
    """Say how many images were done, and the seconds from the first one to the last label."""
    begun = float((Path(job.output) / "begun").read_text())
    print(json.dumps({"images": images, "seconds": time.monotonic() - begun}))

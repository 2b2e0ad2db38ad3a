"""Ray Data's way: read the tars, decode in tasks, one network in an actor, Parquet at the end."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from benchmarks.peers.corpus import PER_SHARD, decoded, pixels, tensor
from benchmarks.peers.job import Job, begin, finish, told
from benchmarks.peers.labels import best
from benchmarks.peers.networks import SPEC, network_of
from launch.memory import keep_freed_memory
from transforms.cores import usable_cores


def decode(batch: dict[str, Any], job: Job) -> dict[str, Any]:
    """Keys, and the pixels of all images."""
    begin(job)
    side = SPEC[job.network].side
    images = [decoded(bytes(jpeg)) for jpeg in batch["jpg"]]
    made = [pixels(i, side) if job.tuned else tensor(i, side).numpy() for i in images]
    paths = zip(batch["path"], batch["__key__"], strict=True)
    keys = [f"{Path(path).stem}/{Path(key).name}" for path, key in paths]
    return {"key": np.array(keys), "pixels": np.stack(made)}


class Predict:
    """The actor: a network, loaded once."""

    def __init__(self, job: Job) -> None:
        if job.tuned:
            keep_freed_memory()
        torch.set_num_threads(job.threads or torch.get_num_threads())
        self.network = network_of(job)

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of the labels."""
        classes, probabilities = best(self.network(torch.from_numpy(batch["pixels"].copy())))
        return {
            "key": batch["key"],
            "label": classes[:, 0],
            "classes": classes,
            "probabilities": probabilities,
        }


def main() -> None:
    """Run the data set through. Tuned: an actor a core, each with one thread, as nothing waits."""
    job = told()
    cores = usable_cores()
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "RAY_DATA_DISABLE_PROGRESS": "1"}
    ray.init(
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": variables},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.read_webdataset(
        [str(path) for path in job.paths], decoder=None, include_paths=True
    )
    rows.map_batches(decode, batch_size=job.batch_size, fn_kwargs={"job": job}).map_batches(
        Predict,
        batch_size=job.batch_size,
        fn_constructor_kwargs={"job": job},
        compute=ray.data.ActorPoolStrategy(size=job.processes),
        num_cpus=1 / job.processes,  # with all cores taken by actors, nothing would read
    ).write_parquet(job.output)
    finish(job, len(job.paths) * PER_SHARD)
    ray.shutdown()


if __name__ == "__main__":
    main()

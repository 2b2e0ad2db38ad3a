"""Stock Beam RunInference on the local runner that the product uses: one network, or two in steps.

As its documentation has it: keyed tensors in, PredictionResults out; a cascade is two steps with a
cut on the first one's highest probability between them. Untuned, everything is Beam's default.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import torch
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from torch import nn

from benchmarks.peers.corpus import PER_SHARD, decoded, encoded_images, pixels, tensor
from benchmarks.peers.cut import Cut, cut_of
from benchmarks.peers.job import Job, begin, finish, told
from benchmarks.peers.labels import SCHEMA, best
from benchmarks.peers.networks import SPEC, network_of
from launch.memory import keep_freed_memory
from launch.runners import local


def images_of(path: str, job: Job) -> Iterator[tuple[str, bytes]]:
    """Key and JPEG of each image of a tar."""
    begin(job)
    yield from encoded_images(Path(path))


def example(image: Image.Image, name: str, *, is_tuned: bool) -> torch.Tensor:
    """What a network takes of one image."""
    side = SPEC[name].side
    return torch.from_numpy(pixels(image, side).copy()) if is_tuned else tensor(image, side)


def row(key: str, logits: torch.Tensor) -> dict[str, Any]:
    """A row of the labels."""
    classes, probabilities = best(logits[None])
    return {
        "key": key,
        "label": int(classes[0, 0]),
        "classes": classes[0].tolist(),
        "probabilities": probabilities[0].tolist(),
    }


def network(job: Job, name: str) -> nn.Module:
    """The module that a handler fills with weights."""
    return network_of(replace(job, network=name))


def inference(job: Job, name: str) -> Any:  # noqa: ANN401 - Beam is untyped
    """(anything, tensor) -> (the same, PredictionResult)."""
    weights = Path(job.output) / f"{name}.pt"
    torch.save(network(job, name).state_dict(), weights)
    size = job.batch_size if job.tuned else None
    handler = PytorchModelHandlerTensor(
        state_dict_path=str(weights),
        model_class=network,
        model_params={"job": job, "name": name},
        min_batch_size=size,
        max_batch_size=size,
    )
    return RunInference(KeyedModelHandler(handler))


def single(images: Any, job: Job) -> Any:  # noqa: ANN401 - Beam's collections
    """(key, JPEG) -> rows, by one network."""

    def keyed(key: str, encoded: bytes) -> tuple[str, torch.Tensor]:
        return key, example(decoded(encoded), job.network, is_tuned=job.tuned)

    return (
        images
        | "decode" >> beam.MapTuple(keyed)
        | "infer" >> inference(job, job.network)
        | "rows" >> beam.MapTuple(lambda key, result: row(key, result.inference))
    )


def cascade(images: Any, job: Job, cut: Cut) -> Any:  # noqa: ANN401 - Beam's collections
    """(key, JPEG) -> rows, by the first network where it is sure enough, else by the second.

    The decoded image travels as part of the key: the steps are fused, so that costs nothing.
    """

    def keyed(key: str, encoded: bytes) -> tuple[tuple[str, Image.Image], torch.Tensor]:
        image = decoded(encoded)
        return (key, image), example(image, cut.first, is_tuned=job.tuned)

    def sure_or_not(element: tuple[tuple[str, Image.Image], Any]) -> Iterator[Any]:
        (key, image), result = element
        if float(result.inference.softmax(0).max()) >= cut.least:
            yield row(key, result.inference)
        else:
            again = example(image, cut.second, is_tuned=job.tuned)
            yield beam.pvalue.TaggedOutput("unsure", (key, again))

    first = (
        images
        | "decode" >> beam.MapTuple(keyed)
        | "infer first" >> inference(job, cut.first)
        | "cut" >> beam.FlatMap(sure_or_not).with_outputs("unsure", main="sure")
    )
    second = (
        first.unsure
        | "infer second" >> inference(job, cut.second)
        | "rows" >> beam.MapTuple(lambda key, result: row(key, result.inference))
    )
    return (first.sure, second) | beam.Flatten()


def main() -> None:
    """Run the pipeline."""
    job = told()
    if job.tuned:
        keep_freed_memory()
    steps = partial(cascade, cut=cut_of(job.policy)) if job.policy else single
    with beam.Pipeline(options=PipelineOptions(local(job.processes))) as pipeline:
        images = (
            pipeline
            | beam.Create([str(path) for path in job.paths])
            | "read" >> beam.FlatMap(images_of, job)
        )
        prefix = str(Path(job.output) / "labels")
        _ = steps(images, job) | beam.io.WriteToParquet(prefix, SCHEMA, file_name_suffix=".parquet")
    finish(job, len(job.paths) * PER_SHARD)


if __name__ == "__main__":
    main()

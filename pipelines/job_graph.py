"""The job that a run would hand to its runner: steps, machines, images, flags and bytes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms import environments

from pipelines.run_shards import SHARDS, pipeline_of
from policy.errors import shown
from transforms.commit import ATTEMPTS

_LIST = f"OUTPUT/{ATTEMPTS}/RUN/{SHARDS}"
_SECRET = re.compile(r"secret|token|password|credential|_key$", re.IGNORECASE)
_OF_CODE = re.compile(r"\(.*")
_HIDDEN = "(not shown)"


@dataclass(frozen=True)
class Step:
    """A step of a job: its path, and which environment it runs in, by number."""

    name: str
    environment: int


@dataclass(frozen=True)
class Environment:
    """Where steps run: the kind, an image or address, the machine's hints, what is staged for it.

    `hints` are those of Beam, such as accelerator and min_ram (bytes, as a decimal number).
    """

    kind: str
    what: str
    hints: Mapping[str, str]
    artifacts: tuple[str, ...]

    def text(self) -> str:
        """For people."""
        hints = ", ".join(f"{name} {value}" for name, value in self.hints.items())
        staged = ", ".join(self.artifacts)
        return (
            f"  {self.kind} {self.what}; machines: {hints or 'any'}; stages {staged or 'nothing'}"
        )


@dataclass(frozen=True)
class JobGraph:
    """A job as its runner gets it. `bytes` are those of its protocol; none are of `shards`.

    `options` are the flags that differ from Beam's defaults, without what looks like a secret.
    """

    runner: str
    shards: int
    bytes: int
    steps: tuple[Step, ...]
    environments: tuple[Environment, ...]
    options: Mapping[str, str]

    def text(self) -> str:
        """For people."""
        head = (
            f"job for {self.runner}: {self.bytes:,} bytes, as many for any number of shards "
            f"(here {self.shards:,}, in a list that a worker reads)"
        )
        lines = [head]
        for number, place in enumerate(self.environments):
            names = [step.name for step in self.steps if step.environment == number]
            lines += [place.text(), *(f"    {_OF_CODE.sub('', name)}" for name in names)]
        flags = [f"    --{name}={value}" for name, value in self.options.items()]
        return "\n".join([*lines, "  flags", *flags])


def job_graph(
    transform: beam.PTransform[Any, Any], shards: int, beam_args: Sequence[str]
) -> JobGraph:
    """The job that runs a transform over so many shards; nothing is run, sent or asked.

    On Dataflow it is what DataflowRunner itself makes of the pipeline, up to where it would ask for
    credentials.
    """
    pipeline = pipeline_of(transform, _LIST, [*beam_args, "--dry_run=True"])
    proto = _proto(pipeline)
    numbers = {name: n for n, name in enumerate(_used(proto))}
    return JobGraph(
        runner=type(pipeline.runner).__name__,
        shards=shards,
        bytes=proto.ByteSize(),
        steps=tuple(
            Step(found.unique_name, numbers[found.environment_id]) for found in _leaves(proto)
        ),
        environments=tuple(_environment(proto.components.environments[name]) for name in numbers),
        options=_options(pipeline.options),
    )


def _proto(pipeline: beam.Pipeline) -> Any:  # noqa: ANN401 - Beam's own, untyped
    if isinstance(pipeline.runner, FnApiRunner):
        here = environments.EmbeddedPythonEnvironment.default()
        return pipeline.to_runner_api(default_environment=here)
    if not isinstance(pipeline.runner, DataflowRunner):
        environment = pipeline.runner.default_environment(pipeline.options)
        return pipeline.to_runner_api(default_environment=environment)
    made: Any = pipeline.run()
    return made.job.proto_pipeline


def _leaves(
    proto: beam_runner_api_pb2.Pipeline,
) -> Iterator[beam_runner_api_pb2.PTransform]:
    """The steps that have no parts, in the order in which data passes them."""
    found = proto.components.transforms
    waiting = list(reversed(proto.root_transform_ids))
    while waiting:
        step = found[waiting.pop()]
        waiting += reversed(step.subtransforms)
        if step.spec.urn and not step.subtransforms:
            yield step


def _used(proto: beam_runner_api_pb2.Pipeline) -> list[str]:
    """The environments of the steps, in the order of their first use."""
    return list(dict.fromkeys(step.environment_id for step in _leaves(proto)))


def _environment(found: beam_runner_api_pb2.Environment) -> Environment:
    kind = found.urn.split(":")[-2] if found.urn else "runner"
    artifacts = []
    for artifact in found.dependencies:
        file = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
        artifacts.append(file.staged_name)
    hints = {urn.split(":")[-2]: value.decode() for urn, value in found.resource_hints.items()}
    return Environment(kind, _what(found), dict(sorted(hints.items())), tuple(artifacts))


def _what(found: beam_runner_api_pb2.Environment) -> str:
    """The image, the command or the address of an environment."""
    kinds = common_urns.environments
    if found.urn == kinds.DOCKER.urn:
        payload = beam_runner_api_pb2.DockerPayload.FromString(found.payload)
        return str(payload.container_image)
    if found.urn == kinds.PROCESS.urn:
        return str(beam_runner_api_pb2.ProcessPayload.FromString(found.payload).command)
    if found.urn == kinds.EXTERNAL.urn:
        return str(beam_runner_api_pb2.ExternalPayload.FromString(found.payload).endpoint.url)
    return "on this machine" if found.urn else "itself"


def _options(options: PipelineOptions) -> dict[str, str]:
    given = options.get_all_options(drop_default=True)
    given.pop("dry_run", None)
    return {
        name: _HIDDEN if _SECRET.search(name) else shown(str(value))
        for name, value in sorted(given.items())
    }

"""Flex templates ask for what the commands take, and hand it on."""

import importlib.util
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from launch import cli
from launch.template import LEFT_OUT, main, metadata
from pipelines.classify import ClassifyOptions
from policy.errors import HandedOver, InputError

IMAGES = Path(__file__).parents[2] / "launch/images"
COMMANDS = ("classify", "extract")
GIVEN = [
    "--input=gs://bucket/a.tar gs://bucket/b.tar",
    "--networks=gs://bucket/networks.toml",
    "--policy=gs://bucket/policy",
    "--output=gs://bucket/labels",
    "--batch_size=32",
    "--isolate_decode=true",
    "--runner=DataflowRunner",
    "--project=my-project",
    "--template_location=gs://bucket/job",
    "--sdk_container_image=registry/adalabel:1",
]


def parameters(command: str) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in json.loads(metadata(command))["parameters"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_files_are_what_the_commands_take_now(command: str) -> None:
    written = (IMAGES / f"{command}.json").read_text()
    assert written == metadata(command), f"run python -m launch.template {command}, see its top"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_parameter_is_explained_and_its_pattern_works(command: str) -> None:
    beams = PipelineOptions([]).get_all_options()
    for name, found in parameters(command).items():
        assert len(found["helpText"]) > 10
        assert (name in beams) == (name == "sdk_container_image")
        for pattern in found.get("regexes", ()):
            re.compile(pattern)


def test_what_has_no_default_must_be_given() -> None:
    required = {name for name, found in parameters("classify").items() if not found["isOptional"]}
    assert required == {"input", "networks", "policy", "output", "sdk_container_image"}
    assert (
        parameters("classify").keys() - {"sdk_container_image"}
        == {field.name for field in fields(ClassifyOptions)} - LEFT_OUT
    )


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("input", "gs://bucket/*.tar gs://bucket/b.tar", "corpus/*.tar"),
        ("mode", "retry-failed", "retry"),
        ("topk", "5", "five"),
        ("max_bad_fraction", "0.1", "10%"),
        ("isolate_decode", "true", "yes"),
        ("sdk_container_image", "europe-docker.pkg.dev/p/r/adalabel:1", "adalabel"),
        ("sdk_container_image", "host:5000/p/adalabel@sha256:0aF", "a b/c:1"),
    ],
)
def test_patterns_let_through_what_the_command_understands(name: str, good: str, bad: str) -> None:
    (pattern,) = parameters("classify")[name]["regexes"]
    assert re.match(pattern, good)
    assert not re.match(pattern, bad)


def test_options_go_to_the_command_and_the_rest_to_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda arguments: got.append(arguments) or 0)
    assert main("classify", GIVEN) == 0
    (arguments,) = got
    cut = arguments.index("--")
    assert arguments[:cut] == [
        *("classify", "--on", "dataflow", "--input", "gs://bucket/a.tar", "gs://bucket/b.tar"),
        *("--networks", "gs://bucket/networks.toml", "--policy", "gs://bucket/policy"),
        *("--output", "gs://bucket/labels", "--batch-size", "32", "--isolate-decode"),
    ]
    assert arguments[cut + 1 :] == [*GIVEN[6:], "--no_wait_until_finish"]


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(InputError, match="wanted --isolate_decode=true or --isolate_decode=false"):
        main("classify", ["--isolate_decode=maybe"])


def test_handing_over_is_a_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: ClassifyOptions, beam_args: list[str]) -> None:
        assert (options.on, options.input) == ("dataflow", ("gs://bucket/a.tar", GIVEN[0][26:]))
        assert {"--sdk_location=container", "--template_location=gs://bucket/job"} <= {*beam_args}
        raise HandedOver("handed over")

    monkeypatch.setattr("pipelines.classify.run", run)
    more = ["--region=europe-west4", "--temp_location=gs://bucket/tmp", "--isolate_decode=false"]
    assert main("classify", [*GIVEN, *more]) == 0
    assert "handed over" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_programs_of_the_image_can_be_imported(command: str) -> None:
    path = IMAGES / f"template_{command}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main is main
    assert f'main("{command}", sys.argv[1:])' in path.read_text()
    assert module.sys is sys

"""The pages for clouds: their commands are ones that the programs would take."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tyro
import yaml
from test_docs import commands_of

from launch.cli import COMMANDS
from launch.runners import preset

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / f"docs/{name}.md").read_text() for name in ("dataflow", "kubernetes")}
LINES = [words for page in PAGES.values() for words in commands_of(page)]


def lines(*start: str) -> list[list[str]]:
    found = [words for words in LINES if tuple(words[: len(start)]) == start]
    assert found, start
    return found


@pytest.mark.parametrize("words", lines("adalabel"), ids=lambda words: words[1])
def test_a_run_on_dataflow_makes_a_job(words: list[str], tmp_path: Path) -> None:
    module_name, options_name, _ = COMMANDS[words[1]]
    module = importlib.import_module(module_name)
    cut = words.index("--")
    options: Any = tyro.cli(getattr(module, options_name), args=words[2:cut])
    options.check_reach((options.output, *options.input))
    flags = preset(replace(options.runner, beam_flags=tuple(words[cut + 1 :])))
    here = replace(options, networks=str(tiny.write_networks(tmp_path)))
    graph = module.job(here, 100_000, flags)
    hints = [dict(place.hints) for place in graph.environments if place.hints]
    assert len(hints) == 1
    assert hints[0].get("accelerator", "") == options.accelerator
    assert {place.what for place in graph.environments if place.kind == "docker"} == {
        flags[-1 if "container_image" in flags[-1] else -2].partition("=")[2]
    }


def test_files_that_commands_name_are_there() -> None:
    for words in [*lines("docker", "build"), *lines("kubectl", "apply")]:
        assert (ROOT / words[words.index("-f") + 1]).is_file()
    (build,) = lines("gcloud", "dataflow", "flex-template", "build")
    (metadata,) = (word.partition("=")[2] for word in build if word.startswith("--metadata-file"))
    assert (ROOT / metadata).is_file()


def test_the_templates_parameters_are_those_it_asks_for() -> None:
    (words,) = lines("gcloud", "dataflow", "flex-template", "run")
    (text,) = (word.partition("=")[2] for word in words if word.startswith("--parameters"))
    given = dict(part.split("=", 1) for part in text.removeprefix("^~^").split("~"))
    asked = json.loads((ROOT / "launch/images/classify.json").read_text())["parameters"]
    known = {found["name"]: found for found in asked}
    assert given.keys() >= {name for name, found in known.items() if not found["isOptional"]}
    for name, value in given.items():
        for pattern in known[name].get("regexes", ()):
            assert re.match(pattern, value), name


def test_resources_that_kubectl_names_are_in_the_manifests() -> None:
    there = {
        f"{found['kind'].lower()}/{found['metadata']['name']}"
        for path in (ROOT / "launch/kubernetes").glob("*.yaml")
        for found in yaml.safe_load_all(path.read_text())
    }
    named = re.findall(r"\b((?:statefulset|job|service)/[\w-]+)", PAGES["kubernetes"])
    assert named
    assert set(named) <= there
    for page in PAGES.values():
        assert "never" in page[:900]  # what was not run is said first

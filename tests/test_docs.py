"""The README and docs tell the truth: their commands run, their links exist."""

import importlib
import re
import shlex
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
import tiny
import tyro

from launch import reference
from launch.cli import COMMANDS, _at_dashes, _named, main
from launch.runners import check_beam_flags
from policy.manifest import LabelsManifest, written
from policy.rows import LABELS_SCHEMA, parquet_bytes
from policy.schema import to_json

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]


def commands_of(text: str) -> list[list[str]]:
    """The shell commands in a page's sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    whole = [block.replace("\\\n", " ") for block in blocks]
    lines = [line for block in whole for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_two_commands_at_the_top_of_the_readme_exist() -> None:
    first, second, *_ = commands_of(README)
    assert (first, second) == (["./run", "demo"], ["./run", "test"])
    assert (ROOT / "run").stat().st_mode & 0o111
    assert "demo" in COMMANDS


def test_the_readmes_commands_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    tiny.write_networks(tmp_path)
    for name, first in (("labelled", 0), ("test", 500), ("corpus", 1000)):
        members = tiny.image_members(rng, 400, first)
        tiny.write_tar(tmp_path / name / "00000.tar", members)
    monkeypatch.chdir(tmp_path)
    wanted = [words for words in commands_of(README) if words[0] == "adalabel"]
    import_and_fit = [words for words in wanted if words[1] == "import"]
    start = wanted.index(import_and_fit[0])

    for words in wanted[:start]:
        assert main(words[1:]) == 0
    assert (tmp_path / "labels" / "00000.parquet").is_file()
    assert (tmp_path / "labels" / "_receipt.json").is_file()

    monkeypatch.chdir(tmp_path / "labels")  # a table of its own for the imported predictions
    write_predictions(Path())
    for words in wanted[start:]:
        assert main(words[1:]) == 0


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `labels` with one shard of three records, where we are."""
    monkeypatch.chdir(tmp_path)
    rows = [{"key": f"a/{number}", "status": "ok"} for number in range(3)]
    content = parquet_bytes(rows, LABELS_SCHEMA, {})
    files = {"a.parquet": written(content)}
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.parquet").write_bytes(content)
    manifest = to_json(LabelsManifest(1, {}, {"a": 3}, {"a": "a.tar"}, files))
    (tmp_path / "labels/_manifest.json").write_text(manifest)


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_python_of_the_docs_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), {})  # noqa: S102 - our own docs
        assert capsys.readouterr().out.strip()


def write_predictions(folder: Path) -> None:
    """Recorded predictions with the names and costs that the README uses."""
    outputs = tiny.outputs(np.random.default_rng(1), 400)
    for name, answer in (("resnet18", "small"), ("resnet152", "big")):
        columns = {
            "key": [f"val-{number}" for number in range(400)],
            "label": tiny.labels(400).tolist(),
            "classes": outputs[answer].classes.tolist(),
            "probabilities": outputs[answer].probabilities.tolist(),
        }
        tiny.write_parquet(folder / f"{name}.parquet", columns)
    costs = '{"unit": "ms", "costs": {"resnet18": 0.63, "resnet152": 4.72}}'
    (folder / "costs.json").write_text(costs)


def test_the_reference_of_commands_is_what_help_prints() -> None:
    written = (ROOT / "docs" / "commands.md").read_text()
    assert written == reference.page(), "run: python -m launch.reference > docs/commands.md"


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_page_is_one_that_adalabel_takes(page: str) -> None:
    for words in commands_of((ROOT / page).read_text()):
        if words[0] == "adalabel":
            command, given = _named(words[1:])
            module, options, _ = COMMANDS[command]
            ours, beams = _at_dashes(given)
            tyro.cli(getattr(importlib.import_module(module), options), args=ours)
            check_beam_flags(beams)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_readme_says_why_each_dependency_is_there() -> None:
    needed = {
        re.split(r"[^A-Za-z0-9-]", text)[0]
        for text in requires("adalabel") or ()
        if "extra ==" not in text
    }
    table = README.partition("## Dependencies")[2]
    explained = set(re.findall(r"^\| ([a-z0-9-]+) \| \w", table, flags=re.MULTILINE)) - {"package"}
    assert explained == needed

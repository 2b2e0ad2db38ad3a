"""A stranger can set nights up: docs/nights.md from its first command to reading the labels."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from launch.cli import main
from pipelines import demo_data, night_book, output
from pipelines.job import read_job

PAGE = (Path(__file__).parent.parent / "docs" / "nights.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_data, "SIDES", {"small": 8, "medium": 16})  # trained in two seconds
    parts = demo_data.load_parts(0)
    demo_data.write_networks(tmp_path, parts["train"], 0)
    more = parts["corpus"].take(np.arange(40, len(parts["corpus"].keys)))  # or too few for a proof
    for name, digits in (("table", parts["table"]), ("more", more)):
        demo_data.write_shards(tmp_path / "labelled", name, digits)
    for number in range(2):
        digits = parts["corpus"].take(np.arange(20 * number, 20 * number + 20))
        demo_data.write_shards(tmp_path / "corpus", f"day{number}", digits)
    monkeypatch.chdir(tmp_path)
    (job,) = blocks("toml")
    (tmp_path / "job.toml").write_text(job)

    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line)
        assert words[0] == "adalabel"
        assert main(words[1:]) == 0, line
    assert json.loads((tmp_path / "labels/_manifest.json").read_text())["shards"] == {
        "day0-00000": 20,
        "day1-00000": 20,
    }

    capsys.readouterr()
    (python,) = blocks("py")
    exec(compile(python, "nights.md", "exec"), {})  # noqa: S102 - our own docs
    assert capsys.readouterr().out == "40 records of 2 shards, by policies {1}\n"


def test_the_pages_job_says_what_is_so_without_saying(tmp_path: Path) -> None:
    (job,) = blocks("toml")
    (tmp_path / "job.toml").write_text(job)
    said = read_job(str(tmp_path / "job.toml"))
    plain = re.sub(r"\[run\].*", "", job, flags=re.DOTALL)
    (tmp_path / "job.toml").write_text(plain)
    assert said.audit == read_job(str(tmp_path / "job.toml")).audit


def test_every_file_that_the_page_names_is_one_of_ours() -> None:
    names = set(re.findall(r"^\| (`[^|]*`) \|", PAGE, re.MULTILINE))
    named = {name for cell in names for name in re.findall(r"`(_[a-z.]+)`", cell)}
    ours = {night_book.LOG, night_book.HISTORY, night_book.PAGE, night_book.PLAN}
    assert named == ours | {output.LABELS_MANIFEST, "_lock"}
    assert f"`{night_book.FOLDER}/<number>-<date>/`" in names
    for unit in ("service", "cron", "yaml"):
        assert f"adalabel-nightly.{unit}" in PAGE

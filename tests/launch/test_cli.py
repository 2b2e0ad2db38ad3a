import importlib
import json
import logging
import math
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from launch import cli
from launch.cli import COMMANDS, main

ROOT = tiny.FOLDER.parent
PIPELINES = ("extract", "classify")
NUMBERS = [f"{number:03d}" for number in range(100)]


HALVES = ["--choose-share", "0.5", "--test-share", "0"]
"""Of a hundred images: half to fit on, half to choose on."""


MOST = ["--choose-share", "0.4", "--test-share", "0"]
"""Of a hundred images: the most to fit on, exits' heads too, that leaves enough to choose on."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory settings that `main` makes for child processes end with the test."""
    for variable in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.setenv(variable, "1000000")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def imported(tmp_path: Path) -> list[str]:
    """The flags that import two answers of eight classes into tmp_path/table."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 100)
    for name, right in (("cheap", 0.6), ("dear", 0.9)):
        best = np.where(rng.random(100) < right, labels, (labels + 1) % 8)
        sure = rng.uniform(0.3, 0.6, 100) + 0.3 * (best == labels)
        columns = {
            "key": NUMBERS,
            "label": labels,
            "classes": [[(b + i) % 8 for i in range(5)] for b in best.tolist()],
            "probabilities": [[p, *[(1 - p) / 7] * 4] for p in sure.tolist()],
        }
        tiny.write_parquet(tmp_path / f"{name}.parquet", columns)
    (tmp_path / "costs.json").write_text('{"unit": "ms", "costs": {"cheap": 1, "dear": 9}}')
    answers = [f"{name}={tmp_path / name}.parquet" for name in ("cheap", "dear")]
    flags = ["--table", f"{tmp_path}/table", "--costs", f"{tmp_path}/costs.json"]
    return [*flags, "--answer", *answers]


def one_json(text: str) -> dict[str, Any]:
    """The one JSON object that a text is; NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def options_of(command: str) -> Any:
    module, name, _ = COMMANDS[command]
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_flag(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"adalabel {command}" in text
    names = {field.name.replace("_", "-"): field for field in fields(options_of(command))}
    without_name = {name for name, field in names.items() if "Positional" in str(field.type)}
    flags = {f"--{name}" for name in names.keys() - without_name}
    assert flags <= set(re.findall(r"--[a-z][a-z0-9-]*", text))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_defaults_and_what_is_required(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert len(re.findall(r"\(default: .*?\)|\(required\)", text)) == len(
        fields(options_of(command))
    )


def test_help_tells_of_the_flag_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["-h"], 0), (["--help"], 0)])
def test_the_overview_lists_every_command(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    text = capsys.readouterr().out
    assert text.startswith("usage: adalabel COMMAND")
    assert all(f"  {command} " in text for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code"), [(["policy"], 2), (["policy", "-h"], 0), (["policy", "--help"], 0)]
)
def test_the_first_word_of_several_commands_lists_them(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: adalabel policy COMMAND [flags]"
    named = [" ".join(line.split()[:2]) for line in lines[1:] if line.startswith("  ")]
    assert named == ["policy publish", "policy list", "policy show", "policy rollback"]


def test_a_wrong_second_word_is_told_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "publsh", "--registry", "r"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("adalabel policy publsh: no such command; commands are policy publish, ")
    assert "classify" not in text


def test_arguments_come_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adalabel", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"adalabel {version('adalabel')}\n"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that refuses what it was given."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert err.startswith(f"adalabel {arguments[0]}: ")
    return err


def test_the_module_runs_as_a_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["adalabel", "nonsense"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(cli.__file__, run_name="__main__")
    assert stopped.value.code == 2
    assert "adalabel nonsense: no such command" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(
    imported: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table").write_text("a file stands where the table should be")
    text = refused(["import", *imported], capsys)
    assert str(tmp_path / "table") in text


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to go on"),
        (OSError("quota exceeded"), 5, "file system: quota exceeded"),
    ],
)
def test_what_stops_a_run_from_outside_is_one_line(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(_options: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.fit.run", stop)
    assert main(["fit", *ENOUGH["fit"]]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"adalabel fit: {message}")
    assert err.count("\n") == 1


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(["clasify"], capsys)
    assert "no such command; commands are demo, calibrate, extract" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--no-such-flag", "3"])
    assert stopped.value.code == 2
    assert capsys.readouterr().out == ""


def test_a_required_flag_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--table", "t"])
    assert stopped.value.code == 2
    assert "--policy" in capsys.readouterr().err


ENOUGH = {
    "extract": ["--networks", "n.toml", "--input", "s.tar", "--output", "t"],
    "classify": ["--networks", "n.toml", "--policy", "p", "--input", "s.tar", "--output", "t"],
    "calibrate": ["--networks", "n.toml", "--output", "c.json"],
    "import": ["--table", "t", "--answer", "a=b", "--costs", "c.json"],
    "fit": ["--table", "t", "--policy", "p", "--max-loss", "0.1"],
    "evaluate": ["--table", "t", "--policy", "p"],
}


@pytest.mark.parametrize("command", PIPELINES)
def test_an_unknown_flag_of_beam_is_refused(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused([command, *ENOUGH[command], "--", "--nosuchflag=3"], capsys)
    assert "Beam has no flag '--nosuchflag'" in text


@pytest.mark.parametrize("command", [name for name in ENOUGH if name not in PIPELINES])
def test_a_command_without_a_pipeline_takes_no_flags_of_beam(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused([command, *ENOUGH[command], "--", "--streaming"], capsys)
    assert "runs no Beam pipeline, so it takes nothing after --: --streaming" in text


@pytest.mark.parametrize("command", ENOUGH)
def test_files_that_are_not_there_are_refused_in_one_line(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused([command, *ENOUGH[command]], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--table", "t", "--policy", "p"], "give one of --max-loss and --budget"),
        (["fit", *ENOUGH["fit"], "--test-share", "2"], "'test': 2.0}; wanted fractions"),
        (["classify", *ENOUGH["classify"], "--workers", "0"], "--workers 0: wanted at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_json_is_one_object_and_nothing_else(
    imported: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, policy = (f"{tmp_path}/{name}" for name in ("table", "policy"))
    fitted = ["fit", "--json", "--table", table, "--policy", policy, "--max-loss", "0.2"]
    fitted += HALVES
    found = []
    for arguments in (
        ["import", *imported, "--json"],
        fitted,
        ["evaluate", "--table", table, "--policy", policy, "--json"],
    ):
        assert main(arguments) == 0
        found.append(one_json(capsys.readouterr().out))
    assert found[0]["records"] == found[2]["n"] == 100
    assert found[1]["measured"]["unit"] == "ms"
    assert {"n", "cost", "speedup", "top1", "top5", "top1_loss", "top5_loss", "usage"} < set(
        found[2]
    )


def test_an_answer_that_costs_nothing_is_still_json(
    imported: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "costs.json").write_text('{"unit": "ms", "costs": {"cheap": 0, "dear": 9}}')
    table, policy = (f"{tmp_path}/{name}" for name in ("table", "policy"))
    main(["import", *imported])
    main(
        [
            "fit",
            "--table",
            table,
            "--policy",
            policy,
            "--max-loss",
            "1",
            "--choose-share",
            "0.5",
            "--test-share",
            "0",
        ]
    )
    capsys.readouterr()
    assert main(["evaluate", "--table", table, "--policy", policy, "--json"]) == 0
    assert one_json(capsys.readouterr().out)["cost"] == 0


def test_without_json_the_receipt_is_for_people(
    imported: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *imported]) == 0
    text = capsys.readouterr().out
    assert text == f"{tmp_path}/table: 100 records, answers cheap, dear, costs in ms\n"


def adalabel(*arguments: object) -> str:
    """Run the command line as a user does; its stdout."""
    command = [sys.executable, "-m", "launch.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert not re.search(r"^[\w.]*Error: ", done.stderr, re.MULTILINE)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> list[str]:
    """The flags that name networks of four classes and three shards of 40 images, one broken."""
    rng = np.random.default_rng(0)
    for number in range(3):
        members = tiny.image_members(rng, 40)
        members += [("broken.png", b"no image")] if number == 1 else []
        tiny.write_tar(tmp_path / f"s{number}.tar", members)
    networks = tiny.write_networks(tmp_path / "networks")
    return ["--networks", str(networks), "--input", f"{tmp_path}/*.tar"]


def test_a_run_that_is_told_to_end_ends_even_if_what_it_has_going_elsewhere_cannot_be_ended() -> (
    None
):
    program = (
        "import os, signal, time; from launch import cli; "
        "cli._ENDINGS.append(lambda: 1 / 0); "
        "cli._told = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)); "
        "cli.main(['demo'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=50,
    )
    assert done.returncode == 143
    assert "adalabel demo: terminated; run the same command again" in done.stderr


def test_labelling_starts_without_what_takes_long_to_import_and_is_for_others() -> None:
    heavy = ("torchvision", "torch._dynamo", "scipy.stats", "matplotlib", "sklearn", "pandas")
    program = (
        "import sys, pipelines.classify; from transforms.networks import class_names; "
        "from transforms.networks_file import NetworksFile, NetworkSpec; "
        "networks = NetworksFile('imagenet1k', (NetworkSpec('a', 'b:c', 'DEFAULT'),)); "
        f"class_names(networks); sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_whole_spine_runs_from_the_command_line(corpus: list[str], tmp_path: Path) -> None:
    table, policy = tmp_path / "table", tmp_path / "policy"
    extracted = one_json(adalabel("extract", *corpus, "--output", table, "--json"))
    assert (extracted["records"], extracted["account"]["rejected"]) == (121, {"decode": 1})
    adalabel("fit", "--table", table, "--policy", policy, "--max-loss", 1, *MOST)
    evaluated = one_json(adalabel("evaluate", "--table", table, "--policy", policy, "--json"))
    flags = ["--policy", policy, "--output", tmp_path / "labels", "--json"]
    labelled = one_json(adalabel("classify", *corpus, *flags, "--", "--job_name=labels"))
    assert (labelled["records"], labelled["statuses"]) == (121, {"ok": 120, "decode": 1})
    assert math.isclose(labelled["cost"], evaluated["cost"], rel_tol=1e-6)


@pytest.mark.slow
def test_two_workers_give_the_labels_of_one(corpus: list[str], tmp_path: Path) -> None:
    table, policy = f"{tmp_path}/table", f"{tmp_path}/policy"
    assert main(["extract", *corpus, "--output", table]) == 0
    assert (
        main(
            [
                "fit",
                "--table",
                table,
                "--policy",
                policy,
                "--max-loss",
                "0.05",
                "--no-exits",
                *HALVES,
            ]
        )
        == 0
    )
    classify = ["classify", *corpus, "--policy", policy, "--output"]
    assert main([*classify, f"{tmp_path}/1"]) == 0
    adalabel(*classify, tmp_path / "2", "--workers", 2)
    for shard in ("s0", "s1", "s2"):
        one, two = (pq.read_table(tmp_path / workers / f"{shard}.parquet") for workers in "12")
        for column in ("key", "label", "trail", "cost", "status", "error"):
            assert one[column].equals(two[column])


def test_what_beam_says_of_bigquery_is_left_out() -> None:
    noise = logging.makeLogRecord({"msg": "apitools not found, and bigquery ..."})
    assert not cli._is_of_use(noise)
    assert cli._is_of_use(logging.makeLogRecord({"msg": "a real problem"}))

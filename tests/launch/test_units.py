"""The ready units: checked by the tools that will read them, and by running the crontab line."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from policy import errors

UNITS = Path(__file__).parents[2] / "launch" / "units"
COMMAND = "/opt/adalabel/.venv/bin/adalabel"
STOPPING = {1, 2, 3, 6, 7}
"""Codes that trying again does not mend; 4 is that of a night that leaves the work to another."""


def known_codes() -> set[int]:
    kinds = (errors.InputError, errors.Stopped, *errors.Stopped.__subclasses__())
    return {kind.exit_code for kind in kinds}


def test_the_codes_that_units_speak_of_are_all_there_are() -> None:
    assert known_codes() == STOPPING - {1} | {0, 4, 5}  # 0: handed over to a service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in UNITS.glob("adalabel-nightly.[st]*"):
        text = unit.read_text().replace(COMMAND, str(shutil.which("true")))
        (tmp_path / unit.name).write_text(text)
    paths = sorted(map(str, tmp_path.iterdir()))
    assert len(paths) == 2
    run = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *paths],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in run.stderr.splitlines() if str(tmp_path) in line]
    assert (run.returncode, found) == (0, []), run.stderr


def test_the_service_tries_again_what_mends_itself_and_nothing_else() -> None:
    text = (UNITS / "adalabel-nightly.service").read_text()
    assert re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE) == [
        f"{COMMAND} nightly --job /etc/adalabel/job.toml"
    ]
    (stopping,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert set(map(int, stopping.split())) == STOPPING
    assert re.findall(r"^SuccessExitStatus=(.*)$", text, re.MULTILINE) == ["4"]


@pytest.mark.parametrize("code", [0, 6])
def test_the_crontab_line_mails_only_what_was_not_simply_done(tmp_path: Path, code: int) -> None:
    (line,) = (
        line
        for line in (UNITS / "adalabel-nightly.cron").read_text().splitlines()
        if line[0].isdigit()
    )
    minute, hour, *days, command = line.split(" ", 5)
    assert (minute, hour, days) == ("30", "2", ["*", "*", "*"])
    assert "%" not in command  # cron would take it for the end of a line
    stub = tmp_path / "adalabel"
    stub.write_text(f'#!/bin/sh\necho "said $*"\necho complained >&2\nexit {code}\n')
    stub.chmod(0o755)
    shell = ["/bin/sh", "-c", command.replace(COMMAND, str(stub))]
    run = subprocess.run(
        shell, capture_output=True, text=True, check=False, env={"TMPDIR": str(tmp_path)}
    )
    assert (run.returncode, run.stderr) == (code, "")
    assert list(tmp_path.iterdir()) == [stub]
    if code == 0:
        assert run.stdout == ""
    else:
        assert run.stdout.splitlines() == [
            "said nightly --job /etc/adalabel/job.toml",
            "complained",
            "adalabel nightly: exit code 6, see docs/nights.md",
        ]


def test_the_cron_job_is_what_kubernetes_reads() -> None:
    (job,) = yaml.safe_load_all((UNITS / "adalabel-nightly.yaml").read_text())
    for version in ("1.30", "1.33"):
        kubernetes_validate.validate(job, version, strict=True)
    job["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


def test_the_cron_job_tries_again_what_mends_itself_and_nothing_else() -> None:
    job: dict[str, Any] = yaml.safe_load((UNITS / "adalabel-nightly.yaml").read_text())
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    inner = job["spec"]["jobTemplate"]["spec"]
    (codes,) = (
        rule["onExitCodes"] for rule in inner["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    )
    assert set(codes["values"]) == STOPPING | {4}
    (container,) = inner["template"]["spec"]["containers"]
    assert codes["containerName"] == container["name"]
    assert container["args"][:2] == ["nightly", "--job"]

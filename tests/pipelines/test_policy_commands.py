import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_policies

from launch.cli import main
from policy.bundle import write_bundle

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `adalabel policy ...` on a registry; its exit code, stdout and stderr."""

    def say(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["policy", *words, "--registry", f"{tmp_path}/registry"])
        return code, *capsys.readouterr()

    return say


@pytest.fixture
def three(say: Say, tmp_path: Path) -> None:
    """Two proved policies, of which the second is CURRENT, and one that nothing proves."""
    for cut in (0.5, 0.6):
        assert say("publish", "--policy", tiny_policies.write(tmp_path / f"{cut}", cut))[0] == 0
    assert say("publish", "--policy", tiny_policies.write(tmp_path / "0.7", 0.7, None))[0] == 2


def test_publishing_says_what_is_current_now(say: Say, tmp_path: Path) -> None:
    folder = tiny_policies.write(tmp_path / "p", 0.5)
    code, out, _ = say("publish", "--policy", folder)
    said = r".*/registry: CURRENT is version 1 \(sha256 \w{12}\) now \(there was none\); promise: t"
    assert (code, bool(re.match(said, out))) == (0, True)
    assert "version 1 (sha256" in say("publish", "--policy", folder)[1]
    assert "is CURRENT already" in say("publish", "--policy", folder)[1]
    other = tiny_policies.write(tmp_path / "other", 0.6)
    assert "(was version 1 (sha256" in say("publish", "--policy", other)[1]


def test_a_refusal_says_why_and_what_to_do(say: Say, tmp_path: Path) -> None:
    folder = tiny_policies.write(tmp_path / "p", 0.5, None)
    code, out, err = say("publish", "--policy", folder)
    assert (code, out) == (2, "")
    assert err.startswith("adalabel policy publish: ")
    assert "is stored as version 1 (sha256" in err
    assert "CURRENT stays what it was: it has no certificate; fit it with --max-loss and" in err
    assert "--force makes it CURRENT all the same" in err
    code, out, _ = say("publish", "--policy", folder, "--force", "--why", "a demo")
    assert (code, out.rstrip().endswith("; by force")) == (0, True)
    assert "promote by" in say("show")[1]
    assert "a demo" in say("show")[1]


@pytest.mark.usefixtures("three")
def test_the_list_shows_versions_and_marks_current(say: Say) -> None:
    code, out, _ = say("list")
    head, *rows, foot = out.splitlines()
    assert code == 0
    assert head.split()[:3] == ["version", "digest", "published"]
    assert [row.split()[0] for row in rows] == ["1", "*", "3"]
    assert "yes      top1    3.25 ms  top1 excess at most 0.01" in rows[0]
    assert " no " in rows[2]
    assert foot.startswith("* is CURRENT")


@pytest.mark.usefixtures("three")
def test_the_list_for_machines(say: Say) -> None:
    found = json.loads(say("list", "--json")[1])
    assert found["current"] == 2
    assert [version["number"] for version in found["versions"]] == [1, 2, 3]
    assert [version["blessed"] for version in found["versions"]] == [True, True, False]
    assert Path(found["versions"][0]["folder"], "policy.json").is_file()


def test_the_list_of_an_empty_registry(say: Say) -> None:
    assert "no registry of policies is there" in say("list")[1]
    assert json.loads(say("list", "--json")[1])["current"] is None


@pytest.mark.usefixtures("three")
def test_one_version_is_shown_with_its_history(say: Say) -> None:
    code, out, _ = say("show")
    assert code == 0
    assert out.startswith("version 2, CURRENT\n")
    for said in (
        "files     policy.json (",
        "heads.safetensors",
        "report.html",
        "networks  small f1, big f2",
        "promise   top1 excess at most 0.01",
        "blessed   yes: top1 excess at most 0.01, certified at 95% confidence",
        "method    dag: 3.25 ms per image (full network 9.5), metric top1",
        "publish by ",
    ):
        assert said in out
    assert "blessed   no: it has no certificate" in say("show", "--version", "3")[1]
    assert "is stored" in say("show", "--version", "3")[1]
    found = json.loads(say("show", "--version", "1", "--json")[1])
    assert (found["is_current"], found["version"]["number"]) == (False, 1)
    assert found["steps"][0]["action"] == "publish"
    assert found["evidence"]["certificate"]["passed"] is True


@pytest.mark.usefixtures("three")
def test_a_version_that_was_tampered_with_ends_with_7(say: Say) -> None:
    folder = Path(json.loads(say("show", "--json")[1])["version"]["folder"])
    (folder / "report.html").write_text("<p>all is well")
    code, out, err = say("show")
    assert (code, out) == (7, "")
    assert "is not what was published as version 2" in err
    assert say("list")[0] == 0


@pytest.mark.usefixtures("three")
def test_rolling_back_says_what_is_current_again(say: Say) -> None:
    code, out, _ = say("rollback", "--why", "alarms")
    assert code == 0
    assert re.search(r"CURRENT is version 1 \(.*\) again \(was version 2 \(", out)
    assert say("rollback")[0] == 2
    assert "version 1 (" in (said := say("rollback", "--to", "1")[1])
    assert "is CURRENT already" in said
    assert json.loads(say("rollback", "--to", "2", "--json")[1])["version"]["number"] == 2


def test_a_policy_without_evidence_can_be_shown(say: Say, tmp_path: Path) -> None:
    write_bundle(str(tmp_path / "p"), replace(tiny_policies.bundle(0.5), evidence=None))
    say("publish", "--policy", str(tmp_path / "p"))
    assert "method    -: metric -" in say("show", "--version", "1")[1]
    assert "-" in say("list")[1]
    assert "nothing is CURRENT" in say("show")[2]

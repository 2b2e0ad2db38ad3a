"""Whole runs while requests fail at random: the result is the same, or the exit code is right."""

import sys
from collections.abc import Callable

import pytest
from gcs import world
from gcs.front import Front
from gcs.world import Place, decisions, ended, started

from launch.cli import main
from policy import files
from policy.errors import Unavailable
from transforms import bucket

pytestmark = [
    pytest.mark.usefixtures("impatient"),
    # google-cloud-storage leaves the socket of a refused download to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


TRIES = 5


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A corpus, its policy and its labels, on this machine."""
    made = world.make(tmp_path_factory.mktemp("here"))
    for words in (made.options("extract", "table"), made.fit(), made.options("classify", "labels")):
        assert main(words) == 0
    return made


@pytest.fixture
def there(here: Place, shelf: str) -> Place:
    """The corpus and its policy in a bucket."""
    return world.uploaded(here, shelf, ["networks", "shards", "policy"])


def by_itself(words: list[str]) -> int:
    """The exit code of a command in a process of its own, which tells what it says."""
    code, said = ended(started(words))
    sys.stderr.write(said)
    return code


def repeated(words: list[str], run: Callable[[list[str]], int] = main) -> int:
    """The exit code of a command that is run again as long as it says that this will help.

    How many requests in a row are tried in TRY_SECONDS depends on how busy the machine is.
    """
    for _ in range(TRIES):
        code = run(words)
        if code != Unavailable.exit_code:
            break
    return code


@pytest.mark.parametrize("seed", [0, 1])
def test_a_classify_run_in_a_storm_gives_the_same_labels(
    front: Front, here: Place, there: Place, seed: int
) -> None:
    front.tell(forget=True, plan={"storm": 0.15, "seed": seed})
    assert repeated(there.options("classify", "labels")) == 0
    assert sum(front.failed.values()) > 10
    front.forget()
    assert decisions(f"{there.root}/labels") == decisions(f"{here.root}/labels")
    assert main(["verify", f"{there.root}/labels"]) == 0


def test_a_result_is_replaced_in_a_storm(front: Front, here: Place, there: Place) -> None:
    assert main(there.options("classify", "labels")) == 0
    front.tell(forget=True, plan={"storm": 0.15, "seed": 2})
    assert repeated(there.options("classify", "labels", "--mode", "overwrite")) == 0
    assert sum(front.failed.values()) > 10
    front.forget()
    assert decisions(f"{there.root}/labels") == decisions(f"{here.root}/labels")
    assert not [name for name in world.files_below(f"{there.root}/labels") if "_next" in name]


@pytest.mark.slow
def test_a_table_is_made_and_fitted_in_a_storm(front: Front, here: Place, there: Place) -> None:
    front.tell(forget=True, plan={"storm": 0.1, "seed": 3})
    assert repeated(there.options("extract", "table")) == 0
    assert repeated(there.fit()) == 0
    assert sum(front.failed.values()) > 10
    front.forget()
    assert world.policy_of(here.root) == world.policy_of(there.root)


@pytest.mark.parametrize("kind", ["write", "read", "stat", "list"])
def test_a_run_that_gets_no_answers_ends_with_exit_code_5_and_goes_on_later(
    front: Front,
    here: Place,
    there: Place,
    kind: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket, "TRY_SECONDS", 1.0)
    monkeypatch.setattr(files, "TRY_SECONDS", 1)
    front.fail(kind=kind, fault="503", first=8, count=100_000)
    assert main(there.options("classify", "labels")) == 5
    said = capsys.readouterr().err.splitlines()[-1]
    assert "gs://" in said
    assert "run the same command again" in said.lower()
    front.forget()
    monkeypatch.setattr(bucket, "TRY_SECONDS", 20.0)
    assert main(there.options("classify", "labels")) == 0
    assert decisions(f"{there.root}/labels") == decisions(f"{here.root}/labels")


@pytest.mark.slow
def test_a_run_in_two_processes_ends_right_in_a_storm(
    front: Front, here: Place, there: Place
) -> None:
    front.tell(forget=True, plan={"storm": 0.1, "seed": 4})
    assert repeated(there.options("classify", "labels", "--workers", "2"), by_itself) == 0
    front.forget()
    assert decisions(f"{there.root}/labels") == decisions(f"{here.root}/labels")

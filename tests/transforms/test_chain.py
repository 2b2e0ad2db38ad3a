import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bucket import TinyBucket

from policy.errors import Damaged
from transforms import bucket
from transforms.chain import POINTER, Chain, step_name
from transforms.commit import Output


def content(step: int, by: str = "me") -> bytes:
    return json.dumps({"step": step, "by": by}).encode()


@pytest.fixture(params=["local", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder; all that is said here must hold of both kinds."""
    if request.param == "local":
        return str(tmp_path / "chain")
    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    return "gs://shelf/chain"


@pytest.fixture
def chain(root: str) -> Chain:
    return Chain(Output(root, "host.1.run"))


@pytest.fixture
def put(root: str) -> Callable[[str, bytes], None]:
    """Puts a file there, as who changes it by hand would."""

    def put(name: str, content: bytes) -> None:
        if root.startswith("gs://"):
            bucket.replace(f"{root}/{name}", content)
        else:
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return put


def test_before_the_first_step_there_is_nothing(chain: Chain) -> None:
    assert chain.newest() == (0, None)


def test_the_pointer_is_a_copy_of_the_newest_step(chain: Chain) -> None:
    for step in (1, 2, 3):
        assert chain.append(step, content(step))
        assert chain.read(POINTER) == content(step)
        assert chain.newest() == (step, content(step))
    assert chain.read(step_name(2)) == content(2)


def test_a_step_that_another_has_made_is_not_ours(chain: Chain) -> None:
    assert chain.append(1, content(1))
    assert not chain.append(1, content(1, "you"))
    assert chain.newest() == (1, content(1))


def test_a_step_whose_answer_was_lost_is_ours(chain: Chain) -> None:
    assert chain.append(1, content(1))
    assert chain.append(1, content(1))


def test_a_pointer_that_was_left_behind_is_followed_to_the_newest_step(
    chain: Chain, put: Callable[[str, bytes], None]
) -> None:
    for step in (1, 2, 3):
        chain.append(step, content(step))
    put(POINTER, content(1))  # its writer was killed, or hung and put it back
    assert chain.newest() == (3, content(3))
    assert chain.append(4, content(4))
    assert chain.read(POINTER) == content(4)


def test_a_pointer_that_was_left_behind_can_be_moved_after(
    chain: Chain, put: Callable[[str, bytes], None]
) -> None:
    chain.follow()
    assert chain.read(POINTER) is None
    for step in (1, 2):
        chain.append(step, content(step))
    put(POINTER, content(1))
    chain.follow()
    assert chain.read(POINTER) == content(2)


def test_steps_without_a_pointer_are_found(chain: Chain, put: Callable[[str, bytes], None]) -> None:
    put(step_name(1), content(1))
    assert chain.newest() == (1, content(1))


def test_a_writer_that_is_late_leaves_a_pointer_that_is_further(chain: Chain) -> None:
    chain.append(1, content(1))
    chain.append(2, content(2))
    chain._point(1, content(1))
    assert chain.read(POINTER) == content(2)


@pytest.mark.parametrize("found", [b"{", b"[]", b'{"step": 0}', b'{"step": "1"}', b""])
def test_a_pointer_that_is_none_is_damage(
    chain: Chain, put: Callable[[str, bytes], None], found: bytes
) -> None:
    put(POINTER, found)
    with pytest.raises(Damaged, match=r"CURRENT: .* [Cc]opy the newest file of history"):
        chain.newest()


def test_a_pointer_that_says_other_than_its_step_is_damage(
    chain: Chain, put: Callable[[str, bytes], None]
) -> None:
    chain.append(1, content(1))
    put(POINTER, content(1, "mallory"))
    with pytest.raises(Damaged, match=r"CURRENT: is not what history/00000001.json says"):
        chain.newest()


def test_a_pointer_that_others_move_all_the_time_is_left_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = TinyBucket()
    monkeypatch.setattr(bucket, "client", lambda: tiny)
    chain = Chain(Output("gs://shelf/chain", "run"))
    chain.append(1, content(1))
    own = bucket.swap

    def overtaken(path: str, *given: Any) -> int | None:
        return None if path.endswith(POINTER) else own(path, *given)

    monkeypatch.setattr(bucket, "swap", overtaken)
    assert chain.append(2, content(2))
    assert chain.read(POINTER) == content(1)
    assert chain.newest() == (2, content(2))

"""The commands of docs/gcs.md run, in their order, against the emulator."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tiny
from gcs import world
from gcs.world import Place

from launch.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "gcs.md").read_text()


def test_the_commands_of_the_page_run_in_their_order(
    shelf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    tiny.write_networks(tmp_path / "networks")
    tiny.write_tar(tmp_path / "labelled" / "0.tar", tiny.image_members(rng, 400))
    tiny.write_tar(tmp_path / "corpus" / "0.tar", tiny.image_members(rng, 50, 500))
    world.uploaded(Place(str(tmp_path)), shelf, ["networks", "labelled", "corpus"])
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("gs://BUCKET", shelf).splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    assert "1 shards, 50 records" in capsys.readouterr().out

"""Runs the sh blocks of a page of the docs as one script, as a reader would."""

import os
import re
import signal
import subprocess
from pathlib import Path

from digits import World, decisions
from processes import ROOT, write_command

SECONDS = 400


def run_page(page: str, world: World, folder: Path, **variables: str) -> None:
    """Run them with these placeholders set, and SHARED with the files that they name.

    Fails unless the labels they make are those of the local runner. What they leave running in the
    background is ended.
    """
    lay_out(world, folder)
    script = "\n".join(blocks(page))
    shims = folder / "bin"
    path = f"{shims}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["/bin/sh", "-eu", "-c", script],
        env={
            **os.environ,
            **variables,
            "PATH": path,
            "SHARED": str(folder),
            "WORKER": str(shims / "adalabel-worker"),
        },
        start_new_session=True,
    )
    try:
        assert shell.wait(SECONDS) == 0
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
    assert decisions(folder / "labels") == world.labelled


def blocks(page: str) -> list[str]:
    """The sh blocks of a page."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)


def lay_out(world: World, folder: Path) -> None:
    """The names that the pages use, and this tree's commands."""
    for file in Path(world.networks).parent.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "policy").symlink_to(world.policy)
    for name, shards in (("corpus", "corpus-*.tar"), ("labelled", "table-*.tar")):
        (folder / name).mkdir()
        for shard in world.folder.glob(shards):
            (folder / name / shard.name).symlink_to(shard)
    (folder / "bin").mkdir()
    for command, module in (("adalabel", "launch.cli"), ("adalabel-worker", "launch.worker")):
        write_command(folder / "bin" / command, module)

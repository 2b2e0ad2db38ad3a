"""The commands of docs/flink.md run."""

from pathlib import Path

import install
import pytest
from digits import World, answers
from documented import run_page
from local_cluster import Cluster
from processes import LOOPBACK, free_port


def test_the_page_leads_from_nothing_to_labels_and_a_table(
    world: World, flink: Cluster, tmp_path: Path
) -> None:
    run_page(
        "flink.md",
        world,
        tmp_path,
        FLINK_MASTER=f"{LOOPBACK}:{flink.port}",
        JOB_SERVER_JAR=str(install.job_server("flink")),
        POOL_PORT=str(free_port()),
    )
    here, there = answers(world.table), answers(tmp_path / "table")
    assert here.keys() == there.keys()
    assert len(here) == 3 * 8
    for name, rows in here.items():
        for row, other in zip(rows, there[name], strict=True):
            probabilities = other.pop("probabilities")
            assert probabilities == pytest.approx(row.pop("probabilities"), abs=1e-5)
            assert other.pop("entropy") == pytest.approx(row.pop("entropy"), abs=1e-4)
            assert other == row

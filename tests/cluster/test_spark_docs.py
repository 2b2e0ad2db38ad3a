"""The commands of docs/spark.md run."""

from pathlib import Path

import install
from digits import World
from documented import run_page
from local_cluster import Cluster
from processes import LOOPBACK, free_port


def test_the_page_leads_from_nothing_to_labels(
    world: World, spark: Cluster, tmp_path: Path
) -> None:
    run_page(
        "spark.md",
        world,
        tmp_path,
        SPARK_MASTER=f"{LOOPBACK}:{spark.port}",
        JOB_SERVER_JAR=str(install.job_server("spark")),
        LAUNCHER=LOOPBACK,
        POOL_PORT=str(free_port()),
    )

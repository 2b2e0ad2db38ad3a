"""What the local runner does, a Spark cluster does too."""

from pathlib import Path

from conftest import World, decisions
from local_cluster import Cluster


def test_spark_labels_as_the_local_runner_does(
    world: World, spark: Cluster, tmp_path: Path
) -> None:
    done = world.run("classify", tmp_path / "labels", "spark", [*spark.flags, *spark.external])
    assert done.returncode == 0
    assert decisions(tmp_path / "labels") == world.labelled

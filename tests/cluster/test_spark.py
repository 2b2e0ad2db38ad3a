"""What ends a run on a Spark cluster. That it labels as the local one does: test_spark_docs.py."""

from pathlib import Path

from digits import World, decisions
from local_cluster import Cluster
from processes import until


def test_a_run_that_is_told_to_end_takes_its_job_with_it_and_another_finishes(
    world: World, spark: Cluster, tmp_path: Path
) -> None:
    run = world.started(spark, tmp_path / "labels")
    assert len(spark.jobs()) == 1
    run.terminate()
    _, said = run.communicate(timeout=60)

    assert run.returncode == 143, said
    until("the end of the job", lambda: not spark.jobs())
    done = world.run("classify", tmp_path / "labels", "spark", [*spark.flags, *spark.external])
    assert done.returncode == 0
    assert decisions(tmp_path / "labels") == world.labelled

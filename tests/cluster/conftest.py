"""Clusters that run for all tests here, and what they label."""

import os
from collections.abc import Iterator
from pathlib import Path

import install
import local_cluster
import pytest
from digits import World, make_world
from local_cluster import Cluster
from processes import LOOPBACK

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before items are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a cluster that is not there."""
    for item in items:
        if FOLDER not in item.path.parents:
            continue
        item.add_marker("cluster")
        item.add_marker("slow")
        name = "spark" if "spark" in item.path.name else "flink"
        if "PYTEST_XDIST_WORKER" in os.environ:
            reason = "each process of xdist would start clusters: ./run test-cluster"
            item.add_marker(pytest.mark.skip(reason=reason))
        elif not install.is_installed(name):
            reason = f"no {name} in {install.ROOT}: ./run test-cluster installs it"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Shards, networks and a policy, and what the local runner makes of them."""
    return make_world(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def fails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """While this file is there, the large network fails; every process started from here knows."""
    path = tmp_path_factory.mktemp("fails") / "now"
    os.environ["SLOW_FAILS"] = str(path)
    yield path
    del os.environ["SLOW_FAILS"]


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory, fails: Path) -> Iterator[Cluster]:
    """A Flink cluster with two TaskManagers."""
    del fails  # the pool's workers are to know of it
    with local_cluster.flink(tmp_path_factory.mktemp("clusters") / "flink") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Spark cluster with two workers."""
    with (
        pytest.MonkeyPatch.context() as patch,
        local_cluster.spark(tmp_path_factory.mktemp("clusters") / "spark") as cluster,
    ):
        patch.setenv("SPARK_LOCAL_IP", LOOPBACK)  # for job servers: not every name resolves
        yield cluster

"""The manifests: valid by Kubernetes' own schemas, and at one with each other and with adalabel."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import tyro
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.version import __version__ as beam_version

from launch.runners import preset
from launch.worker import _parser
from pipelines.classify import ClassifyOptions
from pipelines.places import Runner

FOLDER = Path(__file__).parents[2] / "launch/kubernetes"
PART_OF = ("app.kubernetes.io/part-of", "adalabel")
OLDEST = "1.29"
"""Of Kubernetes: the first with sidecars that end with their Job."""


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


ALL = [found for name in ("flink.yaml", "classify.yaml") for found in manifests(name)]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (m for m in ALL if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def templates() -> Iterator[dict[str, Any]]:
    yield from (found["spec"]["template"] for found in ALL if "template" in found.get("spec", {}))


def containers(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = template["spec"]
    return {found["name"]: found for found in spec.get("initContainers", []) + spec["containers"]}


EVERY = {name: found for template in templates() for name, found in containers(template).items()}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", ALL, ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_a_manifest_is_valid_by_the_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_would_notice_a_wrong_field() -> None:
    wrong = {**named("Service", "flink-jobmanager"), "spec": {"ports": [{"prot": 1}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


def test_the_pool_has_a_gpu_and_nothing_else_has() -> None:
    gpus = {
        name: found["resources"]["limits"].get("nvidia.com/gpu") for name, found in EVERY.items()
    }
    assert gpus.pop("workers") == "1"
    assert EVERY["workers"]["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert not any(gpus.values())
    (toleration,) = named("StatefulSet", "flink-taskmanager")["spec"]["template"]["spec"][
        "tolerations"
    ]
    assert toleration["key"] == "nvidia.com/gpu"


def test_each_container_says_what_it_needs_and_gains_no_rights() -> None:
    for found in EVERY.values():
        assert {"cpu", "memory"} <= found["resources"]["requests"].keys()
        assert "memory" in found["resources"]["limits"]
        assert found["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_pods_run_as_one_user_who_is_not_root_as_the_restricted_standard_wants_it() -> None:
    pods = [template["spec"]["securityContext"] for template in templates()]
    assert all(pod["runAsNonRoot"] and pod["runAsUser"] == pod["fsGroup"] != 0 for pod in pods)
    assert all(pod["seccompProfile"] == {"type": "RuntimeDefault"} for pod in pods)
    assert len({pod["runAsUser"] for pod in pods}) == 1  # or one could not read another's files


def test_the_pool_starts_as_many_threads_as_it_has_cores_and_not_as_its_machine_has() -> None:
    resources = EVERY["workers"]["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]


def test_long_lived_containers_are_probed() -> None:
    for name in ("jobmanager", "taskmanager", "workers"):
        assert {"readinessProbe", "livenessProbe"} <= EVERY[name].keys(), name
    assert "startupProbe" in EVERY["job-server"]


def test_all_containers_see_the_shared_volume_at_the_same_path() -> None:
    for template in templates():
        volumes = {found["name"]: found for found in template["spec"]["volumes"]}
        for found in containers(template).values():
            (mount,) = found["volumeMounts"]
            assert mount == {"name": "shared", "mountPath": "/shared"}
            assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == "shared"
    assert named("PersistentVolumeClaim", "shared")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_selectors_find_their_pods_and_the_policy_covers_all() -> None:
    labels = [template["metadata"]["labels"] for template in templates()]
    assert all(PART_OF in found.items() for found in labels)
    for found in ALL:
        if found["kind"] == "Service":
            wanted = found["spec"]["selector"]
            assert sum(wanted.items() <= pod.items() for pod in labels) == 1
        if found["kind"] in ("Deployment", "StatefulSet"):
            chosen = found["spec"]["selector"]["matchLabels"]
            assert chosen == found["spec"]["template"]["metadata"]["labels"]
    policy = named("NetworkPolicy", "only-adalabel")["spec"]
    assert dict([PART_OF]) == policy["podSelector"]["matchLabels"]
    assert {m["metadata"].get("namespace", "adalabel") for m in ALL} == {"adalabel"}


def test_addresses_are_those_of_the_services() -> None:
    properties = yaml.safe_load(named("ConfigMap", "flink")["data"]["FLINK_PROPERTIES"])
    service = named("Service", properties["jobmanager.rpc.address"])
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert {p["name"]: p["containerPort"] for p in EVERY["jobmanager"]["ports"]} == ports
    assert properties["blob.server.port"] == ports["blob"]
    assert (
        f"--flink-master={service['metadata']['name']}:{ports['rest']}"
        in (EVERY["job-server"]["args"])
    )
    assert EVERY["taskmanager"]["ports"][0]["containerPort"] == properties["taskmanager.rpc.port"]


def test_versions_go_together() -> None:
    (server,) = re.findall(r"beam_flink([\d.]+)_job_server:(\S+)", EVERY["job-server"]["image"])
    assert server[1] == beam_version
    assert server[0] in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    for name in ("jobmanager", "taskmanager"):
        assert EVERY[name]["image"].startswith(f"flink:{server[0]}-")
    assert EVERY["workers"]["image"] == EVERY["classify"]["image"]


def launched() -> tuple[ClassifyOptions, list[str]]:
    found = EVERY["classify"]
    assert found["command"] == ["adalabel", "classify"]
    cut = found["args"].index("--")
    return tyro.cli(ClassifyOptions, args=found["args"][:cut]), found["args"][cut + 1 :]


def test_the_run_is_one_that_adalabel_understands() -> None:
    options, given = launched()
    flags = preset(Runner(options.on, options.workers, tuple(given)))
    beams = PipelineOptions(flags).get_all_options(drop_default=True)
    assert (options.on, options.device) == ("flink", "cuda")
    assert options.launcher.device == "cpu"  # the launcher has no GPU
    assert beams["job_endpoint"] == "localhost:8099"
    assert "/localhost/8099" in EVERY["job-server"]["startupProbe"]["exec"]["command"][-1]
    assert named("StatefulSet", "flink-taskmanager")["spec"]["replicas"] == options.workers


def test_a_pod_that_is_told_to_end_can_cancel_its_job_or_the_next_try_would_find_no_slots() -> None:
    _, given = launched()
    (asked,) = (word for word in given if word.startswith("--flink_master="))
    (served,) = (word for word in EVERY["job-server"]["args"] if word.startswith("--flink-master="))
    assert asked.partition("=")[2] == served.partition("=")[2]


def test_workers_come_from_the_pool_beside_each_taskmanager() -> None:
    _, given = launched()
    command, *arguments = EVERY["workers"]["command"]
    assert command == "adalabel-worker"
    port = _parser().parse_args(arguments).pool
    assert f"--environment_config=localhost:{port}" in given
    assert "--environment_type=EXTERNAL" in given
    assert str(port) in EVERY["workers"]["readinessProbe"]["exec"]["command"][-1]


def test_what_trying_again_does_not_mend_is_not_tried_again() -> None:
    (rule,) = named("Job", "classify")["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2, 3, 6]

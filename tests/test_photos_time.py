"""The time that a run says it spent is the time it took, on real photographs.

Needs ADALABEL_DATA (default ../shared/data); skipped with a reason where it is absent.
"""

from pathlib import Path

import pytest
from real_data import NETWORKS, PHOTOS, needs

from launch.runners import local
from pipelines import classify
from policy.bundle import Bundle, write_bundle
from policy.rules import always
from transforms.networks_file import read_networks
from transforms.stages import Engine

TOML = f"""
classes = "imagenet1k"
import_path = ["{NETWORKS}"]

[[network]]
name    = "small"
model   = "mobilenet_v1:mobilenet_v1"
kwargs  = {{ alpha = 0.25 }}
weights = "{NETWORKS}/mobilenet_v1_0.25_128.safetensors"
input   = {{ resize = [128, 128], mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
"""


@pytest.mark.slow
@needs("photographs", PHOTOS)
def test_the_time_spent_on_photographs_is_the_workers_within_five_percent(tmp_path: Path) -> None:
    path, policy = tmp_path / "networks.toml", str(tmp_path / "policy")
    path.write_text(TOML)
    engine = Engine(read_networks(str(path)), "cpu")
    small = always(engine.graph, "small")
    write_bundle(policy, Bundle(small, engine.class_names, engine.fingerprints))
    options = classify.ClassifyOptions(
        networks=str(path),
        policy=policy,
        input=(str(PHOTOS / "nips17-0000[0-2].tar"),),
        output=str(tmp_path / "labels"),
        audit_fraction=0.0,
    )
    receipt = classify.run(options, local(1))
    assert receipt.newly_labelled == 300
    wall = receipt.newly_labelled / receipt.images_per_second
    assert sum(receipt.time_spent.values()) == pytest.approx(wall, rel=0.05)

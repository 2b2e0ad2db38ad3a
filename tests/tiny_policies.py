"""Policies with certificates in folders, as `adalabel fit` leaves them, to be published."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tiny

from policy.bundle import REPORT, Bundle, Evidence, write_bundle
from policy.certify import Certificate

CERTIFICATE = Certificate(
    metric="top1",
    objective="excess",
    max_loss=0.01,
    confidence=0.95,
    n=400,
    test="exact binomial",
    tested=3,
    passed=True,
    regret=0.0025,
    bound=0.0095,
    cost=3.0,
)


def bundle(cut: float, certificate: Certificate | None = CERTIFICATE) -> Bundle:
    """A policy that stops at its exit above this cut; others for other cuts."""
    first = replace(tiny.POLICY.rules[0], bias=(-cut, 0.0, cut / 2))
    return Bundle(
        policy=replace(tiny.POLICY, rules=(first, *tiny.POLICY.rules[1:])),
        class_names=("cat", "dog", "newt", "yak"),
        fingerprints={"small": "f1", "big": "f2"},
        evidence=Evidence(
            method="dag",
            metric="top1",
            objective="excess",
            promise="top1 excess at most 0.01",
            certificate=certificate,
            data_digest="d1",
            seed=0,
            parts={"fit": 100, "choose": 90, "certify": 400, "test": 80},
            measured_on="test",
            cost=3.25,
            full="big",
            exits={"small": 0.25, "big": 0.75},
            full_cost=9.5,
            regret=0.005,
            versions={"numpy": np.__version__},
        ),
        heads={"small.block1.exit": tiny.head(np.random.default_rng(0))},
    )


def write(folder: Path, cut: float, certificate: Certificate | None = CERTIFICATE) -> str:
    """The folder of such a policy, with its heads and a report."""
    write_bundle(str(folder), bundle(cut, certificate))
    (folder / REPORT).write_text(f"<p>cut {cut}</p>")
    return str(folder)

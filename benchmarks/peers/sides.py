"""Who is compared: each side is a program, what it is told, and whose labels it must give."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.photographs import BIG, RESNET, SMALL

FULL, FITTED, CUT, SMALLEST, HEAVY, CAMERA = (
    *("full", "fitted", "cut", "smallest", "heavy", "camera"),
)
NONE = ""
PHOTOS, FEW, LARGE = "shards", "few", "large"


@dataclass(frozen=True)
class Side:
    """One way to do some work.

    `program` is a module here, or "adalabel". `work` names the labels: sides of the same work must
    agree, NONE gives none; FITTED and CUT are policies, the product's others are too. `told` are
    fields of Job beside those. `needs` is a package that the project itself does without. `corpus`
    is what is labelled, where it is not the photographs.
    """

    name: str
    peer: str
    program: str
    work: str
    told: dict[str, Any] = field(default_factory=dict)
    needs: str = ""
    corpus: str = PHOTOS


_TUNED = {"tuned": True}
_A_CORE = {"processes": 2, "threads": 1, "workers": 0}

PLAIN = Side("plain loop", "a", "plain_loop", FULL)
PLAIN_TUNED = Side("plain loop, tuned", "a", "plain_loop", FULL, _TUNED)
BY_HAND = Side("cascade by hand, threads decode", "b", "cascade_loop", FITTED, _TUNED)
BY_HAND_CORES = Side(
    "cascade by hand, a process a core", "b", "cascade_loop", FITTED, _TUNED | _A_CORE
)
BEAM = Side("RunInference", "c", "beam_inference", FULL)
BEAM_TUNED = Side("RunInference, tuned", "c", "beam_inference", FULL, _TUNED)
BEAM_CUT = Side("RunInference twice", "c", "beam_inference", CUT)
BEAM_CUT_TUNED = Side("RunInference twice, tuned", "c", "beam_inference", CUT, _TUNED)
TIMM = Side("timm", "d", "timm_loop", FULL, needs="timm")
TIMM_TUNED = Side("timm, tuned", "d", "timm_loop", FULL, _TUNED, needs="timm")
RAY = Side("Ray Data", "d", "ray_data", FULL, needs="ray")
RAY_TUNED = Side("Ray Data, tuned", "d", "ray_data", FULL, _TUNED | _A_CORE, needs="ray")
OURS = Side("adalabel, big network", "e", "adalabel", FULL)
OURS_FITTED = Side("adalabel, fitted cascade", "e", "adalabel", FITTED)
OURS_CUT = Side("adalabel, two-step cascade", "e", "adalabel", CUT)
OURS_SMALLEST = Side("adalabel, smallest network", "e", "adalabel", SMALLEST)
OURS_HEAVY = Side("adalabel, resnet50", "e", "adalabel", HEAVY, corpus=FEW)
OURS_CAMERA = Side("adalabel, camera's images", "e", "adalabel", CAMERA, corpus=LARGE)
COMPUTE_BY_HAND = Side(
    "compute alone by hand, big network", "ceiling", "compute_alone", NONE, {"network": BIG}
)


def _engine(name: str, network: str, corpus: str = PHOTOS) -> Side:
    told = {"network": network}
    return Side(f"compute alone, {name}", "ceiling", "engine_alone", NONE, told, corpus=corpus)


def _decoder(name: str, network: str, corpus: str = PHOTOS) -> Side:
    told = {"network": network}
    return Side(f"decode alone, {name}", "ceiling", "decode_alone", NONE, told, corpus=corpus)


COMPUTE = _engine("big network", BIG)
COMPUTE_SMALLEST = _engine("smallest network", SMALL)
COMPUTE_HEAVY = _engine("resnet50", RESNET, FEW)
DECODE = _decoder("to 224", BIG)
DECODE_SMALLEST = _decoder("to 128", SMALL)
DECODE_CAMERA = _decoder("camera's images to 128", SMALL, LARGE)

SIDES = (
    *(PLAIN, PLAIN_TUNED, BY_HAND, BY_HAND_CORES),
    *(BEAM, BEAM_TUNED, BEAM_CUT, BEAM_CUT_TUNED),
    *(TIMM, TIMM_TUNED, RAY, RAY_TUNED),
    *(OURS, OURS_FITTED, OURS_CUT, OURS_SMALLEST, OURS_HEAVY, OURS_CAMERA),
    *(COMPUTE_BY_HAND, COMPUTE, COMPUTE_SMALLEST, COMPUTE_HEAVY),
    *(DECODE, DECODE_SMALLEST, DECODE_CAMERA),
)

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from policy.bundle import HEADS, POLICY, Bundle, Evidence, read_bundle, write_bundle
from policy.certify import Certificate
from policy.costs import Calibration
from policy.errors import InputError
from policy.offers import Offer
from policy.reference import Reference
from policy.rules import always

EVIDENCE = Evidence(
    method="dag",
    metric="top1",
    objective="excess",
    promise="top1 excess at most 0.01",
    certificate=Certificate(
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
        cost=1 / 3,
    ),
    data_digest="d1",
    seed=-3,
    parts={"fit": 100, "choose": 90, "certify": 400, "test": 80},
    measured_on="test",
    cost=1 / 3,
    full="big",
    exits={"small": 0.25, "big": 0.75},
    full_cost=9.5,
    regret=0.1 + 0.2,
    versions={"numpy": np.__version__},
    stages={"decode": 1.0, "big": 1 / 3},
    offers=(Offer(0.1, 1 / 7, {"decode": 1.0}), Offer(2.0, 0.0, {})),
    calibration=Calibration("CPU tiny", 64, None),
)
BUNDLE = Bundle(
    policy=tiny.POLICY,
    class_names=("cat", "dog", "newt", "yäk"),
    fingerprints={"small": "f1", "big": "f2"},
    evidence=EVIDENCE,
    heads={"small.block1.exit": tiny.head(np.random.default_rng(0))},
)
Fields = dict[str, Any]


def refused(folder: Path, text: str) -> str:
    """The message with which a folder with this policy.json is refused."""
    (folder / POLICY).write_text(text)
    with pytest.raises(InputError) as caught:
        read_bundle(str(folder))
    return str(caught.value)


def written(folder: Path, bundle: Bundle = BUNDLE) -> str:
    write_bundle(str(folder), bundle)
    return (folder / POLICY).read_text(encoding="utf-8")


def test_a_bundle_reads_back_equal(tmp_path: Path) -> None:
    written(tmp_path / "new" / "folder")
    found = read_bundle(str(tmp_path / "new" / "folder"))
    assert replace(found, heads={}) == replace(BUNDLE, heads={})
    assert found.digest == BUNDLE.digest
    assert found.heads.keys() == BUNDLE.heads.keys()


def test_a_bundle_without_heads_and_evidence_is_one_file(tmp_path: Path) -> None:
    bundle = Bundle(always(tiny.GRAPH, "big"), ("a",), {})
    written(tmp_path, bundle)
    assert [path.name for path in tmp_path.iterdir()] == [POLICY]
    assert read_bundle(str(tmp_path)) == bundle


def test_the_same_bundle_makes_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b")
    assert (tmp_path / "a" / HEADS).read_bytes() == (tmp_path / "b" / HEADS).read_bytes()


def test_a_bundle_written_over_another_leaves_nothing_of_it(tmp_path: Path) -> None:
    written(tmp_path)
    bundle = replace(BUNDLE, heads={})
    written(tmp_path, bundle)
    assert read_bundle(str(tmp_path)) == bundle


@pytest.mark.parametrize(
    "change",
    [
        {"policy": always(tiny.GRAPH, "small")},
        {"class_names": ("cat", "dog", "yak", "newt")},
        {"fingerprints": {"small": "f1", "big": "f3"}},
        {"heads": {}},
        {"heads": {"small.block1.exit": tiny.head(np.random.default_rng(1))}},
    ],
)
def test_the_digest_changes_with_all_that_decides_labels(change: Fields) -> None:
    assert replace(BUNDLE, **change).digest != BUNDLE.digest


def test_the_digest_does_not_change_with_the_evidence() -> None:
    assert replace(BUNDLE, evidence=replace(EVIDENCE, seed=9)).digest == BUNDLE.digest
    assert replace(BUNDLE, evidence=None).digest == BUNDLE.digest


def test_a_folder_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no policy\.json there; make one with `adalabel fit"):
        read_bundle(str(tmp_path))


def test_damaged_heads_are_refused(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / HEADS).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"heads\.safetensors: does not belong to policy.json"):
        read_bundle(str(tmp_path))


def set_rule(fields: Fields, **values: object) -> None:
    fields["policy"]["rules"][1].update(values)


MALFORMED: dict[str, Callable[[Fields], object]] = {
    "made by a newer adalabel (version 2, this one reads 1); update": lambda f: f.update(version=2),
    "version: Input should be 1 (found '0')": lambda f: f.update(version=0),
    "edges go in a circle: big -> small -> big": lambda f: f["policy"]["graph"].update(
        edges=[["small", "big"], ["big", "small"]]
    ),
    "'medium'], which is not an answer of this graph": lambda f: f["policy"]["graph"].update(
        edges=[["small", "medium"]]
    ),
    "stage 'decode' needs ['big'], which no earlier stage makes": lambda f: f["policy"]["graph"][
        "stages"
    ][0].update(needs=["big"]),
    "is empty, reserved or used twice": lambda f: f["policy"]["graph"]["stages"][0].update(name=""),
    "rules at one answer; wanted at most one": lambda f: f["policy"]["rules"].append(
        f["policy"]["rules"][1]
    ),
    "version: Field required": lambda f: f.pop("version"),
    "policy: Field required": lambda f: f.pop("policy"),
    "evidence: Field required": lambda f: f.pop("evidence"),
    "extra: Unexpected keyword argument (found '1')": lambda f: f.update(extra=1),
    "policy.mode: Unexpected keyword argument": lambda f: f["policy"].update(mode="fast"),
    "policy.rules.1.temperature: Unexpected": lambda f: set_rule(f, temperature=1.0),
    "policy.rules.1.weights.0.0: Input should be a valid number": lambda f: set_rule(
        f, weights=[["0"], [1]]
    ),
    "rule at 'small': wanted weights (2, 1) and 2 biases": lambda f: set_rule(f, bias=[1]),
    "the rule at 'small' has actions ('stop', 'small.block1.exit')": lambda f: set_rule(
        f, actions=["stop", "small.block1.exit"]
    ),
    "'medium' is not an answer": lambda f: f["policy"].update(start="medium"),
    "policy.rules.1.features.0.kind: Input should be 'max_probability'": lambda f: set_rule(
        f, features=[{"answer": "small", "kind": "logit", "index": 0}]
    ),
    "looks at 'big', which some trail to it has not got": lambda f: set_rule(
        f, features=[{"answer": "big", "kind": "entropy", "index": 0}]
    ),
    "stage 'decode' costs -1.0": lambda f: f["policy"]["graph"]["stages"][0].update(cost=-1),
    "policy.graph.stages: Input should be a valid array": lambda f: f["policy"]["graph"].update(
        stages={}
    ),
    "evidence.metric: Input should be 'top1' or 'top5'": lambda f: f["evidence"].update(
        metric="top3"
    ),
    "class_names.0: Input should be a valid string": lambda f: f.update(class_names=[1]),
    "fingerprints.big: Input should be a valid string": lambda f: f.update(
        fingerprints={"big": None}
    ),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_policy_is_refused_by_field(tmp_path: Path, message: str) -> None:
    fields = json.loads(written(tmp_path))
    MALFORMED[message](fields)
    found = refused(tmp_path, json.dumps(fields))
    assert found.startswith(f"{tmp_path}/{POLICY}: ")
    assert message in found
    assert "pydantic" not in found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"seed": -3', '"seed": NaN', "NaN is not a JSON number"),
        ('"seed": -3', '"seed": -3, "seed": -3', "field 'seed' appears twice"),
        ('"version": 1', '"version": 1, "version": 1', "field 'version' appears twice"),
        ("-0.6", "-Infinity", "-Infinity is not a JSON number"),
        ("-0.6", "-1e999", "1e999|finite number"),
        ("}\n", "", "not valid JSON"),
        ("{", "", "not valid JSON"),
        ('"dag"', '"dag" // best', "not valid JSON"),
    ],
)
def test_what_is_not_plain_json_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = written(tmp_path)
    assert old in text
    (tmp_path / POLICY).write_text(text.replace(old, new, 1) if old != "}\n" else text[:-2])
    with pytest.raises(InputError, match=message):
        read_bundle(str(tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_half_a_file_is_refused(tmp_path: Path, share: float) -> None:
    text = written(tmp_path)
    assert "not valid JSON" in refused(tmp_path, text[: int(len(text) * share)])


def test_evidence_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        replace(EVIDENCE, cost=float("nan"))


def test_a_bundle_keeps_the_reference_and_an_old_one_loads_without(tmp_path: Path) -> None:
    counted = Reference(80, 3, {"small": 20, "big": 60}, {"0": 50, "3": 30})
    bundle = replace(BUNDLE, evidence=replace(EVIDENCE, reference=counted))
    fields = json.loads(written(tmp_path, bundle))
    loaded = read_bundle(str(tmp_path)).evidence
    assert loaded is not None
    assert loaded.reference == counted
    for name in ("reference", "stages", "offers", "calibration"):
        del fields["evidence"][name]
    (tmp_path / POLICY).write_text(json.dumps(fields))
    old = read_bundle(str(tmp_path)).evidence
    assert old is not None
    assert old.reference is None
    assert (old.stages, old.offers, old.calibration) == ({}, (), None)

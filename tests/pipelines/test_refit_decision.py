"""Every reason for which a refit does not put its policy into use, on a table of real networks."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_refits import Lab, with_policy

from pipelines.fit import settings_of
from pipelines.held_out import compare_on_new, held_out_keys
from pipelines.refit_decision import Decision, decide
from policy.bundle import Bundle
from policy.rules import always
from policy.split import split
from policy.table import read_table


@pytest.fixture
def lab(second: Any) -> Lab:
    """A table of the shards a, b and c; not to be changed."""
    return second[0]


@pytest.fixture
def candidate(lab: Lab) -> Bundle:
    """What was fitted on a, b and c."""
    return lab.registry.read(lab.registry.find("3"))


def always_(bundle: Bundle, answer: str, seen: Sequence[str] = ("a", "b")) -> Bundle:
    return with_policy(bundle, lambda own: always(own.policy.graph, answer), seen)


def decided(
    lab: Lab, candidate: Bundle, in_use: Bundle | None, new: Sequence[str] = ("c",), **options: Any
) -> Decision:
    return decide((candidate, in_use), new, replace(lab.fit_options(), **options))


def refused(decision: Decision) -> str:
    assert not decision.promote
    return decision.reason


def test_a_candidate_without_a_proof_is_not_used(lab: Lab, candidate: Bundle) -> None:
    evidence = candidate.evidence
    assert evidence is not None
    assert evidence.certificate is not None
    failed = replace(evidence.certificate, passed=False)
    unproved = replace(candidate, evidence=replace(evidence, certificate=failed))
    for in_use in (None, always_(candidate, "big")):
        said = refused(decided(lab, unproved, in_use))
        assert said.startswith("its certificate proves no policy (always the full network: none")


def test_the_same_policy_is_not_used_anew(lab: Lab, candidate: Bundle) -> None:
    said = refused(decided(lab, candidate, with_policy(candidate, seen=["a"])))
    assert said == "it decides just as the policy in use does"


def test_a_policy_that_does_not_say_what_it_was_fitted_on_is_not_compared(
    lab: Lab, candidate: Bundle
) -> None:
    in_use = always_(candidate, "big")
    assert in_use.evidence is not None
    for evidence in (None, replace(in_use.evidence, fitted_on=None)):
        said = refused(decided(lab, candidate, replace(in_use, evidence=evidence)))
        assert said.startswith("the policy in use does not say which shards it was fitted on")


def test_shards_of_known_names_are_not_compared_on(lab: Lab, candidate: Bundle) -> None:
    said = refused(decided(lab, candidate, always_(candidate, "big", ["a", "b", "c"])))
    assert said.startswith("the 1 new shards have the names of shards that the policy in use was")


@pytest.mark.parametrize("names", [("small", "big"), ("none",)])
def test_policies_for_other_networks_are_not_compared(
    lab: Lab, candidate: Bundle, names: tuple[str, ...]
) -> None:
    in_use = replace(always_(candidate, "big"), fingerprints=dict.fromkeys(names, "other"))
    said = refused(decided(lab, candidate, in_use))
    assert re.match(
        r"the policy in use was fitted for network .* with fingerprint other; the table has .*"
        r" So they cannot be compared",
        said,
    )


def test_without_a_held_out_image_there_is_nothing_to_compare_on(
    lab: Lab, candidate: Bundle
) -> None:
    said = refused(decided(lab, candidate, always_(candidate, "big"), new=["d"]))
    assert said == "no image of the 1 new shards is labelled and held out; label more"


def test_too_few_images_prove_nothing(lab: Lab, candidate: Bundle) -> None:
    said = refused(decided(lab, candidate, always_(candidate, "big"), max_loss=0.01))
    assert re.match(
        r"\d+ new held-out images are too few to prove top1 excess at most 0.01 at", said
    )


def test_a_loss_that_is_not_proved_again_is_not_used(lab: Lab, candidate: Bundle) -> None:
    bold = always_(candidate, "small")
    decision = decided(lab, bold, always_(candidate, "big"))
    assert "which does not prove top1 excess at most 0.3 at 90% confidence (p = " in refused(
        decision
    )
    assert decision.comparison is not None
    assert decision.comparison.new_cost < decision.comparison.old_cost


def test_a_dearer_policy_is_not_used(lab: Lab, candidate: Bundle) -> None:
    decision = decided(lab, always_(candidate, "big"), candidate_on(candidate, ["a", "b"]))
    assert "per image: not less (p = 1, wanted at most 0.05)" in refused(decision)


def candidate_on(candidate: Bundle, seen: Sequence[str]) -> Bundle:
    return with_policy(candidate, seen=seen)


def test_a_policy_in_use_that_breaks_its_promise_makes_room(lab: Lab, candidate: Bundle) -> None:
    decision = decided(lab, always_(candidate, "big"), always_(candidate, "small"), max_loss=0.15)
    assert decision.promote
    assert "keeps top1 excess at most 0.15 at 90% confidence, and the one in use does not" in (
        decision.reason
    )


def test_costs_are_those_of_the_job_for_both(lab: Lab, candidate: Bundle, tmp_path: Path) -> None:
    stages = [stage.name for stage in candidate.policy.graph.stages]
    prices = ", ".join(f'"{name}": {1 if "big" in name else 7}' for name in stages)
    (tmp_path / "costs.json").write_text(f'{{"unit": "usd", "costs": {{{prices}}}}}')
    for other in (always_(candidate, "big"), replace(always_(candidate, "big"), heads={})):
        options = replace(lab.fit_options(), costs=str(tmp_path / "costs.json"))
        found = compare_on_new((candidate, other), ["c"], options)
        assert found is not None
        assert found.old_cost == pytest.approx(
            other.policy.graph.with_edges()
            .with_costs({name: 1.0 if "big" in name else 7.0 for name in stages}, "usd")
            .cost(("big",))
        )


def test_policies_without_exits_are_compared_at_the_tables_costs(
    lab: Lab, candidate: Bundle
) -> None:
    plain = replace(always_(candidate, "big"), heads={})
    found = compare_on_new((candidate, plain), ["c"], lab.fit_options())
    assert found is not None
    assert found.old_cost == pytest.approx(read_table(lab.table).graph.cost(("big",)))


def test_held_out_keys_are_the_test_part_of_the_new_shards(lab: Lab) -> None:
    table, options = read_table(lab.table), lab.fit_options()
    found = held_out_keys(table, ["b", "c"], options)
    parts = split(table.keys, options.shares(heads=False), options.seed)
    test = {table.keys[row] for row in parts["test"]}
    assert found == {key for key in test if key.partition("/")[0] in ("b", "c")}
    assert held_out_keys(table, [], options) == set()


def test_a_table_that_no_folder_holds_has_no_shards(lab: Lab) -> None:
    table = replace(read_table(lab.table), places=None)
    with pytest.raises(ValueError, match="a table that no folder holds has no shards"):
        table.of_shards(["a"])


def test_rows_left_out_do_not_move_rows_to_other_shards(lab: Lab) -> None:
    table = read_table(lab.table)
    some = table.take(np.arange(0, len(table.keys), 7))
    wanted = [key.startswith("b/") for key in some.keys]
    assert some.of_shards(["b"]).tolist() == wanted


def test_settings_are_told_apart_by_all_but_places(lab: Lab) -> None:
    options = lab.fit_options()
    same = replace(options, table="elsewhere", policy="p", json=True)
    assert settings_of(same) == settings_of(options)
    assert settings_of(replace(options, seed=1)) != settings_of(options)
    assert settings_of(replace(options, max_loss=0.2)) != settings_of(options)

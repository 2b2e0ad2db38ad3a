"""Drift of shares: false alarms counted, real moves named."""

import numpy as np
import pytest

from policy.drift import FALSE_ALARMS, drift


def _counts(rng: np.random.Generator, n: int, shares: np.ndarray) -> dict[str, int]:
    return {str(i): int(c) for i, c in enumerate(rng.multinomial(n, shares)) if c}


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("m", [200, 10**7])
def test_sampling_alone_is_seldom_called_drift(classes: int, m: int) -> None:
    rng, trials = np.random.default_rng(0), 200
    shares = rng.dirichlet(np.ones(classes))
    pairs = [(_counts(rng, 3000, shares), _counts(rng, m, shares)) for _ in range(trials)]
    found = [drift(table, run) for table, run in pairs]
    alarms = sum(one is not None and one.drifted for one in found)
    assert alarms / trials <= FALSE_ALARMS + 2 * (FALSE_ALARMS / trials) ** 0.5


def test_what_moved_most_is_named_with_its_change() -> None:
    found = drift({"exit": 8000, "full": 2000}, {"exit": 60_000, "full": 39_000, "new": 1000})
    assert found is not None
    assert found.drifted
    assert found.distance == pytest.approx(0.2)
    name, change = found.moved[0]
    assert name == "exit"
    assert change == pytest.approx(-0.2)


def test_a_huge_run_does_not_make_the_table_surer_than_it_is() -> None:
    found = drift({"exit": 80, "full": 20}, {"exit": 790_000_000, "full": 210_000_000})
    assert found is not None
    assert not found.drifted


@pytest.mark.parametrize(("table", "run"), [({}, {"a": 1}), ({"a": 1}, {})])
def test_nothing_is_compared_with_nothing(table: dict[str, int], run: dict[str, int]) -> None:
    assert drift(table, run) is None

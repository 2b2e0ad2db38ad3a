import numpy as np
import pytest

from policy.split import hash_of_keys, split

KEYS = [f"shard{i % 7}/{i:05d}.jpg" for i in range(5000)]
SHARES = {"heads": 0.2, "policy": 0.3, "certify": 0.4, "test": 0.1}


def parts_of(keys: list[str], seed: int = 0) -> dict[str, set[str]]:
    return {name: {keys[row] for row in rows} for name, rows in split(keys, SHARES, seed).items()}


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_every_row_is_in_exactly_one_part(seed: int) -> None:
    parts = split(KEYS, SHARES, seed)
    assert list(parts) == list(SHARES)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(KEYS)))


@pytest.mark.parametrize("seed", range(5))
def test_a_key_lands_in_the_same_part_whatever_else_the_table_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = [KEYS[row] for row in rng.permutation(len(KEYS))[:500]]
    whole = parts_of(KEYS, seed)
    for name, keys in parts_of(some, seed).items():
        assert keys == whole[name] & set(some)


def test_a_key_that_comes_twice_is_in_one_part_both_times() -> None:
    parts = parts_of(KEYS[:200] * 2)
    assert sum(len(keys) for keys in parts.values()) == 200


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_as_large_as_their_shares(seed: int) -> None:
    for name, rows in split(KEYS, SHARES, seed).items():
        share = SHARES[name]
        slack = 5 * np.sqrt(share * (1 - share) / len(KEYS))
        assert abs(len(rows) / len(KEYS) - share) < slack


def test_another_seed_gives_another_split_independent_of_the_first() -> None:
    first, second = hash_of_keys(KEYS, 0), hash_of_keys(KEYS, 1)
    assert (first != second).all()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08


def test_hashes_are_spread_over_zero_to_one() -> None:
    hashes = np.sort(hash_of_keys(KEYS, 3))
    assert hashes[0] >= 0
    assert hashes[-1] < 1
    assert np.abs(hashes - np.linspace(0, 1, len(KEYS))).max() < 0.03


def test_hashes_are_the_same_on_every_machine() -> None:
    np.testing.assert_allclose(
        hash_of_keys(["a/1", "é"], 7), [0.7535229699765887, 0.39333363556320494]
    )


def test_growing_a_part_at_the_end_of_the_shares_moves_no_key_out_of_the_first() -> None:
    small = split(KEYS, {"fit": 0.3, "rest": 0.7}, 0)["fit"]
    large = split(KEYS, {"fit": 0.6, "rest": 0.4}, 0)["fit"]
    assert set(small.tolist()) < set(large.tolist())


def test_one_part_takes_all_and_a_part_without_a_share_none() -> None:
    assert len(split(KEYS, {"all": 1.0}, 0)["all"]) == len(KEYS)
    parts = split(KEYS, {"none": 0.0, "all": 1.0, "nil": 0.0}, 0)
    assert [len(rows) for rows in parts.values()] == [0, len(KEYS), 0]


def test_no_keys_give_empty_parts() -> None:
    assert [len(rows) for rows in split([], SHARES, 0).values()] == [0] * 4


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.4}, {"a": 0.6, "b": 0.6}, {}])
def test_shares_that_do_not_make_a_whole_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"shares \{.*\} sum to .*; wanted 1"):
        split(KEYS, shares, 0)


def test_a_negative_share_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted"):
        split(KEYS, {"a": 1.5, "b": -0.5}, 0)

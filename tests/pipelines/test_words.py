from pipelines.words import listed


def test_counts_are_listed_in_their_order() -> None:
    assert listed({"decode": 2, "container": 1}) == "2 decode, 1 container"


def test_nothing_is_none() -> None:
    assert listed({}) == "none"

import re

from policy.fingerprints import difference

HERE = "the table has"


def said(wanted: dict[str, str], found: dict[str, str]) -> str | None:
    return difference("the policy was fitted for", wanted, HERE, found)


def test_what_agrees_differs_in_nothing_and_others_do_not_matter() -> None:
    assert said({"a": "1"}, {"a": "1", "b": "2"}) is None


def test_another_fingerprint_is_said_with_the_one_wanted_and_what_may_differ() -> None:
    found = said({"a": "1", "b": "2"}, {"a": "1", "b": "3"})
    assert found is not None
    assert re.match(
        r"the policy was fitted for network 'b' with fingerprint 2; the table has 3 "
        r"\(weights, .* or decode_side\)\. .*decode_side in the networks file says it",
        found,
    )


def test_a_network_that_is_missing_is_said_to_be() -> None:
    assert said({"a": "1"}, {}) == (
        "the policy was fitted for network 'a' with fingerprint 1; the table has no such network."
    )

import datetime as dt

import pytest

from policy.costs import Costs
from policy.errors import InputError
from policy.graph import Stage, StageGraph
from policy.schema import MOST_DEEP, from_fields, from_json, parse_json, to_json

STAGE = '{"name": "a", "cost": 1.5, "needs": ["image"], "answers": true}'


def test_what_is_written_reads_back_equal() -> None:
    graph = StageGraph((Stage("é", 0.1 + 0.2), Stage("b", 1e-300, ("é",), answers=True)), "ms")
    assert from_json(StageGraph, to_json(graph), "x") == graph


def test_json_is_indented_in_field_order_and_ends_with_a_newline() -> None:
    text = to_json(Stage("a", 1.0))
    assert text.startswith('{\n  "name": "a",\n  "cost": 1.0,\n  "needs"')
    assert text.endswith("}\n")


def test_bytes_read_like_text() -> None:
    assert from_json(Stage, STAGE.encode(), "x") == Stage("a", 1.5, answers=True)


def test_a_whole_number_is_a_cost() -> None:
    assert from_json(Stage, STAGE.replace("1.5", "2"), "x").cost == 2.0


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ("true", "valid number"),
        ('"1.5"', "valid number"),
        ("null", "valid number"),
        ("1e999", "1e999|finite number"),
        ("NaN", "NaN is not a JSON number"),
        ("Infinity", "Infinity is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("9" * 5000, "not valid JSON"),
        ('1.5, "cost": 1.5', "field 'cost' appears twice"),
        ('1.5, "price": 1', r"price: Unexpected keyword argument \(found '1'\)"),
        ("", "not valid JSON"),
    ],
)
def test_a_cost_that_is_no_finite_number_is_refused(cost: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^costs.json: .*{message}"):
        from_json(Stage, STAGE.replace("1.5", cost), "costs.json")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe{}", b"{", b"[" * 500 + b"]" * 500, "[" * 10**6]
)
def test_what_is_not_json_is_refused(content: bytes | str) -> None:
    with pytest.raises(InputError, match=r"^here: .*(JSON|object)"):
        from_json(Stage, content, "here")


def test_every_problem_is_named_with_its_place_and_what_was_found() -> None:
    text = '{"unit": 3, "stages": [{"name": "a", "cost": "x", "answers": true}]}'
    with pytest.raises(InputError) as caught:
        from_json(StageGraph, text, "g.json")
    message = str(caught.value)
    assert "stages.0.cost: Input should be a valid number (found 'x')" in message
    assert "unit: Input should be a valid string (found '3')" in message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match=r"^x: cost: Field required$"):
        from_json(Stage, '{"name": "a"}', "x")


def test_the_top_level_is_named_where_there_is_no_field() -> None:
    with pytest.raises(InputError, match=r"^x: top level: .*found '\[1\]'"):
        from_json(Stage, "[1]", "x")


def test_what_was_found_is_cut_short() -> None:
    with pytest.raises(InputError) as caught:
        from_fields(Stage, {"name": ["a" * 1000], "cost": 1.0}, "x")
    assert len(str(caught.value)) < 200


def test_a_value_that_refuses_itself_is_told_like_any_other_problem() -> None:
    text = '{"unit": "ms", "stages": [{"name": "a", "cost": -1, "answers": true}]}'
    with pytest.raises(
        InputError, match=r"^x: .*stage 'a' costs -1\.0; wanted a finite number >= 0"
    ):
        from_json(StageGraph, text, "x")


def test_fields_are_checked_like_json() -> None:
    assert from_fields(Stage, {"name": "a", "cost": 2.0, "needs": ["b"]}, "x") == Stage(
        "a", 2.0, ("b",)
    )


@pytest.mark.parametrize("value", [dt.date(2020, 1, 1), float("nan"), float("inf")])
def test_a_toml_value_that_json_has_not_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"^networks\.toml: "):
        from_fields(Stage, {"name": "a", "cost": value}, "networks.toml")


def test_a_repeated_field_is_found_at_any_depth() -> None:
    with pytest.raises(InputError, match="field 'b' appears twice"):
        parse_json('{"a": [{"b": 1, "c": 2, "b": 1}]}', "x")


def test_a_number_too_large_for_a_float_is_infinity_and_refused_anywhere() -> None:
    with pytest.raises(InputError, match="1e999"):
        parse_json('{"about": {"x": 1e999}}', "x")


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"]]]":'])
@pytest.mark.parametrize("times", [MOST_DEEP + 1, 100_000])
def test_absurd_depth_is_refused_before_it_is_parsed(opened: str, times: int) -> None:
    with pytest.raises(InputError, match=r"^x: not valid JSON: brackets more than 100 deep at"):
        parse_json(opened * times, "x")


def test_brackets_in_texts_and_beside_each_other_are_not_deep() -> None:
    text = "[" + ",".join(['"[[[[\\"[["', "[]", "{}"] * 100) + "]"
    assert len(parse_json(text, "x")) == 300
    assert parse_json("[" * MOST_DEEP + "]" * MOST_DEEP, "x")


@pytest.mark.parametrize("digits", [31, 10**5])
def test_a_whole_number_of_very_many_digits_is_refused(digits: int) -> None:
    with pytest.raises(InputError, match=f"^x: .*a whole number of {digits} digits; wanted at mo"):
        parse_json("9" * digits, "x")


@pytest.mark.parametrize("text", ['["\\ud800"]', '{"\\uDFFF": 1}', '["\ud800"]'])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^x: not valid JSON: a text holds half a surrogate pair"):
        parse_json(text, "x")


def test_whole_surrogate_pairs_are_read() -> None:
    assert parse_json('["\\ud83d\\ude00"]', "x") == ["\U0001f600"]


@pytest.mark.parametrize("content", ['"\xe9"'.encode("latin-1"), "[1]".encode("utf-16")])
def test_what_is_not_utf8_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^x: not valid JSON: .*utf-8"):
        parse_json(content, "x")


def test_a_newer_file_is_told_as_such_whatever_else_is_in_it() -> None:
    with pytest.raises(
        InputError, match=r"^c: made by a newer adalabel \(version 2, this one reads 1\); update"
    ):
        from_json(Costs, '{"version": 2, "prices": {}}', "c")


@pytest.mark.parametrize("version", ["0", "true", '"2"'])
def test_a_version_that_is_none_is_not_taken_for_newer(version: str) -> None:
    with pytest.raises(InputError, match=r"^c: .*version: Unexpected keyword argument"):
        from_json(Costs, f'{{"version": {version}, "unit": "ms", "costs": {{"a": 1}}}}', "c")

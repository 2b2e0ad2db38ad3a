from pathlib import Path

import pytest

from policy.costs import Calibration, Costs, read_costs
from policy.errors import InputError
from policy.schema import to_json


def write(folder: Path, text: str) -> str:
    path = folder / "costs.json"
    path.write_text(text)
    return str(path)


def test_costs_read_back_equal(tmp_path: Path) -> None:
    costs = Costs("ms", {"a": 0.1, "b": 0.0}, {"device": "cpu", "runs": [1, 2]})
    assert read_costs(write(tmp_path, to_json(costs))) == costs


def test_costs_written_by_hand_need_only_unit_and_costs(tmp_path: Path) -> None:
    costs = read_costs(write(tmp_path, '{"unit": "usd", "costs": {"a": 2}}'))
    assert costs == Costs("usd", {"a": 2.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"unit": "ms", "costs": {"a": 1, "b": -2}}', r"finite and >= 0; found \{'b': -2\.0\}"),
        ('{"unit": "ms", "costs": {}}', "at least one cost, finite and >= 0; found none"),
        ('{"unit": "ms", "costs": {"a": "1"}}', r"costs\.a: Input should be a valid number"),
        ('{"unit": "ms", "costs": {"a": 1e999}}', "1e999|finite number"),
        ('{"unit": "ms", "costs": {"a": NaN}}', "NaN is not a JSON number"),
        ('{"unit": "ms", "costs": {"a": 1, "a": 2}}', "field 'a' appears twice"),
        ('{"costs": {"a": 1}}', "unit: Field required"),
        ('{"unit": "ms", "costs": {"a": 1}, "currency": 1}', "currency: Unexpected"),
    ],
)
def test_costs_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_costs(path)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(("name", "message"), [("none.json", "No such file"), (".", "directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"cannot be read: .*{message}"):
        read_costs(str(tmp_path / name))


@pytest.mark.parametrize(
    ("about", "known"),
    [
        (None, Calibration()),
        ({"device": "Tiny 4000", "batch_size": 64, "threads": 2}, Calibration("Tiny 4000", 64, 2)),
        ({"device": 7, "batch_size": "64", "threads": 0}, Calibration()),
        ({"batch_size": True, "note": "by hand"}, Calibration()),
    ],
)
def test_costs_know_what_they_were_measured_on_as_far_as_they_say_so(
    about: dict[str, object] | None, known: Calibration
) -> None:
    assert Costs("ms", {"a": 1.0}, about).calibration == known

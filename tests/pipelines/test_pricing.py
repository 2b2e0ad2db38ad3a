from typing import Any

import pytest

from pipelines.options import DryRunOptions, RunOptions
from pipelines.pricing import Quote, check_costs, pricing
from policy.costs import Calibration, Costs
from policy.errors import InputError

ON_CPU = Calibration("CPU x86_64, 4 threads", 64, 4)
ON_GPU = Calibration("NVIDIA H200", 64, 8)


def quote(calibration: Calibration, beam_args: list[str], **options: Any) -> Quote:
    prices = pricing(RunOptions(**options), "ms", calibration, 3.6, beam_args)
    return prices.quote("a", 10.0, 360_000)  # one hour of the device that was measured


@pytest.mark.parametrize(
    ("calibration", "options", "beam_args", "hours"),
    [
        (ON_CPU, {"threads": 4}, [], 1.0),
        (ON_CPU, {"threads": 2}, [], 2.0),
        (ON_CPU, {"threads": 2, "workers": 4}, [], 0.5),
        (ON_GPU, {"device": "cuda"}, [], 1.0),
        (ON_GPU, {"device": "cuda", "workers": 2}, [], 0.5),
    ],
)
def test_time_on_the_clock_follows_from_how_many_such_devices_work_at_once(
    calibration: Calibration, options: dict[str, Any], beam_args: list[str], hours: float
) -> None:
    found = quote(calibration, beam_args, **options)
    assert found.seconds == pytest.approx(hours * 3600)
    assert found.device_hours == pytest.approx(1.0)  # however many share it
    assert found.usd == pytest.approx(3.6)


@pytest.mark.parametrize(
    ("beam_args", "workers", "said"),
    [
        (["--parallelism=4"], 4, "4 workers at once (--parallelism), each like"),
        (["--max_num_workers=8", "--num_workers=2"], 8, "8 workers at once (--max_num_workers)"),
        ([], 3, "3 workers at once (--workers), each like"),
    ],
)
def test_on_a_cluster_beams_flags_say_how_many_workers_there_are(
    beam_args: list[str], workers: int, said: str
) -> None:
    options = RunOptions(device="cuda", workers=3)
    object.__setattr__(options, "on", "flink")
    prices = pricing(options, "ms", ON_GPU, None, beam_args)
    assert prices.at_once == workers
    assert said in prices.assumed[0]


@pytest.mark.parametrize(
    ("calibration", "options", "warning"),
    [
        (ON_GPU, {}, "measured on NVIDIA H200, and the run is to use --device cpu: calibrate"),
        (ON_CPU, {"device": "cuda"}, "measured on CPU x86_64, 4 threads, and the run is to use"),
        (ON_CPU, {"batch_size": 32}, "measured at batches of 64; the run has --batch-size 32"),
        (Calibration(), {}, "nobody knows what the costs were measured on; give --costs"),
    ],
)
def test_costs_that_do_not_fit_the_run_are_warned_of(
    calibration: Calibration, options: dict[str, Any], warning: str
) -> None:
    prices = pricing(RunOptions(**options), "ms", calibration, None, [])
    assert any(warning in one for one in prices.warnings)


def test_costs_that_fit_are_not_warned_of() -> None:
    assert pricing(RunOptions(), "ms", ON_CPU, None, []).warnings == ()


def test_no_time_follows_from_multiply_accumulates() -> None:
    prices = pricing(RunOptions(), "gmac", Calibration(), 3.6, [])
    found = prices.quote("a", 2.0, 1000)
    assert (found.seconds, found.device_hours, found.usd) == (None, None, None)
    assert "measure with `adalabel calibrate` where the run will be" in prices.warnings[0]


def test_costs_in_money_are_money() -> None:
    prices = pricing(RunOptions(), "usd", Calibration(), None, [])
    assert prices.quote("a", 0.002, 1000).usd == pytest.approx(2.0)
    assert prices.warnings == ()


def test_costs_of_other_networks_are_refused() -> None:
    costs = Costs("ms", {"a": 1.0}, None, {"a": "f1", "unused": "f2"})
    check_costs(costs, {"a": "f1", "b": "f3"})
    with pytest.raises(InputError, match=r"network 'a' with fingerprint f1; .* gives f9.*Calibr"):
        check_costs(costs, {"a": "f9"})


@pytest.mark.parametrize("price", [-1.0, float("inf"), float("nan")])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(InputError, match=r"--usd-per-hour .*: wanted 0 or more"):
        DryRunOptions(usd_per_hour=price)

"""What stages cost: multiply-accumulates, counted exactly, and only when they are asked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from policy.errors import InputError
from transforms.networks_file import read_networks
from transforms.stages import Engine

NOT_COUNTED = tiny.TOML.replace("branchy", "looking", 1).replace('["block1"]', "[]")
EXIT = "small.block1.exit"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    networks = read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))
    return Engine(networks, "cpu", heads={EXIT: tiny.head(np.random.default_rng(0))})


def test_costs_are_exact_multiply_accumulates(engine: Engine) -> None:
    conv = 4 * 4 * 9 * 8 * 8  # in x out x kernel x positions, after a stem of stride 2
    macs = {stage.name: stage.cost * 1e9 for stage in engine.graph.stages}
    assert macs["small.stem"] == pytest.approx(3 * 4 * 9 * 8 * 8)
    assert macs["small.block1"] == pytest.approx(conv)
    assert macs[EXIT] == pytest.approx(4 * 4)
    assert macs["small"] == pytest.approx(conv + 4 * 4)
    assert macs["big"] == pytest.approx(3 * 8 * 9 * 144 + 2 * 8 * 8 * 9 * 144 + 8 * 4)
    assert macs["decode"] == 0
    assert {macs[name] for name in engine.inputs} == {0}


def test_costs_are_counted_only_when_asked_for_as_that_imports_torchs_compiler(
    tmp_path: Path,
) -> None:
    path = tiny.write_networks(tmp_path)
    program = (
        "import sys; from transforms.networks_file import read_networks; "
        "from transforms.stages import Engine; "
        f"engine = Engine(read_networks({str(path)!r}), 'cpu'); "
        "print('torch._dynamo' in sys.modules, engine.graph.stage['big'].cost > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tiny.FOLDER.parent,
    )
    assert done.stdout == "False True\n"


def test_a_network_whose_operations_cannot_be_counted_is_run_but_not_priced(
    tmp_path: Path,
) -> None:
    path = tiny.write_networks(tmp_path, NOT_COUNTED)
    engine = Engine(read_networks(str(path)), "cpu", only=["small"])
    with pytest.raises(InputError, match=r"'small' fails on the meta device, where .* are counted"):
        _ = engine.graph

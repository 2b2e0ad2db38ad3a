import subprocess
import sys
from pathlib import Path

import pytest
import torch

from policy.errors import InputError
from transforms import gpus
from transforms.gpus import own_device, take, usable_device


def test_cpu_is_always_usable() -> None:
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "mps", "meta"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"--device {name}: .*wanted cpu, cuda or cuda:N"):
        usable_device(name)


def test_a_gpu_that_is_not_there_is_refused_with_the_remedy() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=rf"sees {count} GPUs here.*or use --device cpu"):
        usable_device(f"cuda:{count}")


def test_a_gpu_that_is_there_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert usable_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="--device cuda:2"):
        usable_device("cuda:2")


TAKES = """
import sys
from pathlib import Path
from transforms.gpus import take

print(take(2, Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def started(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", TAKES, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_each_process_takes_a_gpu_of_its_own_until_it_ends(tmp_path: Path) -> None:
    processes = [started(tmp_path) for _ in range(3)]
    try:
        taken = [first_line(process) for process in processes]
        assert sorted(taken[:3]) == ["0", "0", "1"]  # the third shares
        ended = taken.index("1")
        processes[ended].kill()
        processes[ended].wait()
        processes.append(started(tmp_path))
        assert first_line(processes[-1]) == "1"
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_more_processes_than_make_sense_are_refused(tmp_path: Path) -> None:
    taken = [take(3, tmp_path) for _ in range(48)]
    assert sorted(taken) == sorted(list(range(3)) * 16)
    assert taken[:6] == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match=r"3 GPUs, and each has 16 processes already.*start fewer"):
        take(3, tmp_path)


def test_only_cuda_without_a_number_takes_one_of_several(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpus, "_taken", lambda: take(2, tmp_path))
    assert own_device("cuda") == "cuda"  # there is none, or one
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("cuda") == "cuda:0"
    assert own_device("cuda:1") == "cuda:1"
    assert own_device("cpu") == "cpu"

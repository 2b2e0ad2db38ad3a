import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny

from policy.errors import Unavailable
from transforms.decode_ahead import DecodeAhead
from transforms.decode_child import memory_limit
from transforms.decode_limits import BadImage, DecodeLimits
from transforms.decoding import HereDecoder
from transforms.frames import Gone
from transforms.images import InputSpec
from transforms.isolate import IsolatedDecoder, _unpacked
from transforms.shards import Record
from transforms.work import WorkerOptions

SPECS = {"input.6x6": InputSpec(resize=7, crop=6, mean=(0.5,) * 3, std=(0.5,) * 3)}
HOSTILE = (sys.executable, str(Path(__file__).parent / "hostile_child.py"))
GOOD = tiny.image_bytes(np.random.default_rng(0))


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    made = IsolatedDecoder(DecodeLimits(seconds=1), command=HOSTILE)
    yield made
    made.close()


def child_pid(decoder: IsolatedDecoder) -> int:
    (child,) = decoder._idle.queue
    return int(child.process.pid)


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        (b"segfault", "crashed", "the decoder crashed: SIGSEGV"),
        (b"abort", "crashed", "the decoder crashed: SIGABRT"),
        (b"out of memory", "crashed", "the decoder crashed: SIGKILL"),
        (b"exit", "crashed", "the decoder crashed: exit code 7"),
        (b"recurse", "crashed", "the decoder crashed: exit code 1"),
        (b"nothing", "crashed", "the decoder crashed"),
        (b"one number", "crashed", "the decoder crashed"),
        (b"grey", "crashed", "the decoder crashed"),
        (b"hang", "timeout", r"did not end in 1 s \(--decode-seconds\)"),
        (b"stop", "timeout", "did not end in 1 s"),
        (b"fill memory", "memory", "the limit holds"),
        (b"", "empty", "no bytes"),
    ],
)
def test_whatever_a_decoder_does_costs_one_image(
    decoder: IsolatedDecoder, what: bytes, status: str, message: str
) -> None:
    with pytest.raises(BadImage, match=message) as caught:
        decoder(what, SPECS, keep_image=False)
    assert caught.value.status == status
    alone = HereDecoder()(GOOD, SPECS, keep_image=True)
    decoded = decoder(GOOD, SPECS, keep_image=True)
    assert np.array_equal(decoded.pixels["input.6x6"], alone.pixels["input.6x6"])
    assert np.array_equal(decoded.image, alone.image)


def test_the_records_around_a_hostile_one_keep_their_order_and_their_pixels() -> None:
    contents = [GOOD, b"segfault", GOOD, b"hang", GOOD, b"exit", b"not an image", GOOD]
    decoder = IsolatedDecoder(DecodeLimits(seconds=1), command=HOSTILE)
    with ThreadPoolExecutor(2) as pool:
        ahead = DecodeAhead(SPECS, pool, depth=3, decoder=decoder)
        items = [
            item
            for row, content in enumerate(contents)
            for item in ahead.submit("s", row, [Record(str(row), content)])
        ]
        items += ahead.drain()
    decoder.close()
    assert [item.row for item in items] == list(range(8))
    statuses = ["ok", "crashed", "ok", "timeout", "ok", "crashed", "decode", "ok"]
    assert [item.status for item in items] == statuses


def test_a_lost_child_is_replaced_and_a_good_one_is_kept(decoder: IsolatedDecoder) -> None:
    decoder(GOOD, SPECS, keep_image=False)
    first = child_pid(decoder)
    decoder(GOOD, SPECS, keep_image=False)
    assert child_pid(decoder) == first
    with pytest.raises(BadImage, match="SIGSEGV"):
        decoder(b"segfault", SPECS, keep_image=False)
    decoder(GOOD, SPECS, keep_image=False)
    assert child_pid(decoder) != first


def test_a_child_knows_no_torch_and_no_beam_and_may_take_only_so_much_memory() -> None:
    decoder = WorkerOptions(1, 1, 0, "cpu", isolate_decode=True).decoder(None)
    assert isinstance(decoder, IsolatedDecoder)
    decoder(GOOD, SPECS, keep_image=False)
    about = Path(f"/proc/{child_pid(decoder)}")
    maps, limits = (about / "maps").read_text(), (about / "limits").read_text()
    decoder.close()
    assert "PIL" in maps
    assert not any(name in maps for name in ("torch", "pyarrow", "grpc"))
    assert str(memory_limit(decoder.limits)) in limits


def test_isolated_pixels_are_those_of_a_thread_at_every_scale() -> None:
    content = tiny.image_bytes(np.random.default_rng(0), (64, 80), "JPEG")
    for side in (None, 32, 8):
        decoder = IsolatedDecoder(DecodeLimits(), side)
        found = decoder(content, SPECS, keep_image=True)
        decoder.close()
        wanted = HereDecoder(DecodeLimits(), side)(content, SPECS, keep_image=True)
        assert np.array_equal(found.image, wanted.image)
        assert found.image.shape == (side or 64, (side or 64) * 5 // 4, 3)
        for stage in SPECS:
            assert np.array_equal(found.pixels[stage], wanted.pixels[stage])


@pytest.mark.parametrize(
    "answer",
    [({"shape": [2, 2, 3]}, [bytearray(11)]), ({}, [bytearray(12)]), ({"shape": [1, 1, 3]}, [])],
    ids=["too little", "no shape", "no pixels"],
)
def test_an_answer_that_is_no_image_is_not_believed(
    answer: tuple[dict[str, object], list[bytearray]],
) -> None:
    with pytest.raises(Gone, match="not asked for"):
        _unpacked(*answer)


def test_a_closed_decoder_leaves_no_process() -> None:
    decoder = IsolatedDecoder(DecodeLimits(), command=HOSTILE)
    decoder(GOOD, SPECS, keep_image=False)
    pid = child_pid(decoder)
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_that_hangs_ends_itself_where_its_worker_is_gone(
    decoder: IsolatedDecoder,
) -> None:
    decoder(GOOD, SPECS, keep_image=False)
    child = decoder._idle.get_nowait()
    with pytest.raises(TimeoutError):
        decoder._ask(child, b"hang")
    child.peer.close()
    assert child.process.wait(timeout=10) == -signal.SIGALRM


def test_a_child_that_does_not_start_is_no_fault_of_the_image() -> None:
    decoder = IsolatedDecoder(DecodeLimits(), None, (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(Unavailable, match=r"did not start \(exit code 3\).*--isolate-decode"):
        decoder(GOOD, SPECS, keep_image=False)


HANG = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import transforms.decode_ahead as decode_ahead
from transforms.decode_limits import DecodeLimits
from transforms.decoding import HereDecoder
from transforms.shards import Record

class Hanging(HereDecoder):
    def __call__(self, *args, **options):
        time.sleep(600)

decode_ahead._SLACK_SECONDS = 1
pool = ThreadPoolExecutor(1)
ahead = decode_ahead.DecodeAhead({}, pool, 0, decoder=Hanging(DecodeLimits(seconds=0.1)))
list(ahead.submit("s", 0, [Record("s/the\\x1bone", b"x")]))
"""


def test_a_decoder_that_hangs_in_a_thread_ends_the_process_and_names_the_record() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANG], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == Unavailable.exit_code
    assert r"record s/the\x1bone: its decoder hangs" in done.stderr
    assert "--isolate-decode loses only this record" in done.stderr

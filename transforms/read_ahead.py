"""Reading ahead: a thread reads the next records while this one is busy with others."""

import queue
import threading
from collections.abc import Generator, Iterable

from transforms.shards import Record

_RECORDS = 16
_BYTES = 4 << 20
_LISTS = 4
"""At most so many records, and bytes unless it is one record, in a list; and lists ahead."""

_Read = list[Record] | BaseException | None


def read_ahead(records: Iterable[Record]) -> Generator[list[Record], None, None]:
    """The records in short lists; whatever reading raises is raised here, after what came before.

    To be closed, unless it is used up.
    """
    ahead: queue.Queue[_Read] = queue.Queue(_LISTS)
    stopped = threading.Event()
    reader = threading.Thread(
        target=_read, args=(records, ahead, stopped), name="read", daemon=True
    )
    reader.start()
    try:
        while (found := ahead.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stopped.set()
        while reader.is_alive():  # it may be waiting for a place
            _empty(ahead)
            reader.join(timeout=0.01)


def _read(records: Iterable[Record], ahead: "queue.Queue[_Read]", stopped: threading.Event) -> None:
    """Hand over lists of records, then None, or the error that ends them."""
    gathered: list[Record] = []
    held = 0
    try:
        for record in records:
            gathered.append(record)
            held += len(record.image)
            if len(gathered) >= _RECORDS or held >= _BYTES:
                ahead.put(gathered)
                gathered, held = [], 0
            if stopped.is_set():
                return
        ends: _Read = None
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        ends = error
    if gathered:
        ahead.put(gathered)
    ahead.put(ends)


def _empty(ahead: "queue.Queue[_Read]") -> None:
    while not ahead.empty():
        ahead.get_nowait()

"""How many images wait in queues, and for how long, whatever the policy."""

import numpy as np

from transforms.prepare import Prepared
from transforms.queues import MOST_WAITING, PATIENCE, Batch, Queues


def batch(n: int) -> Batch:
    return Batch([Prepared("s", row, f"s/{row}", None) for row in range(n)])


def waiting(held: Queues[int]) -> int:
    return sum(queue.waiting for queue in held.at.values())


def run_ready(held: Queues[int]) -> int:
    """Take whatever is ready; how many images that were."""
    taken = 0
    while ready := held.ready():
        taken += sum(len(part.items) for part in held.take(ready[0]))
    return taken


def test_however_many_places_there_are_so_many_batches_wait() -> None:
    rng = np.random.default_rng(0)
    held: Queues[int] = Queues(8)
    fed = taken = most = 0
    for _ in range(2000):
        held.fed()
        for place in rng.integers(0, 1000, size=8).tolist():
            held.put(place, batch(1))
        fed += 8
        most = max(most, waiting(held))
        taken += run_ready(held)
        assert waiting(held) <= MOST_WAITING * 8
    assert most > MOST_WAITING * 8  # so that there was something to hold back
    assert taken + waiting(held) == fed


def test_nothing_waits_for_longer_than_the_patience() -> None:
    held: Queues[int] = Queues(8)
    came: dict[int, int] = {}
    for now in range(5 * PATIENCE):
        held.fed()
        if now % 50 == 0:
            held.put(0, batch(1))
            came.setdefault(0, now)
        if run_ready(held):
            assert now - came.pop(0) == PATIENCE
    assert waiting(held) < 8


def test_a_full_batch_is_run_before_the_rest_is_looked_at() -> None:
    held: Queues[int] = Queues(2)
    for place in range(3 * MOST_WAITING):
        held.put(place, batch(1))
    held.put(3, batch(1))
    assert held.ready() == [3]

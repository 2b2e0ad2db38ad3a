import threading

import pytest

from transforms.doing import DECODE, IDLE, OTHER, READ, RESIZE, Budget, doing, here, of_stage, use


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_seconds_go_to_what_is_innermost_and_sum_up_to_the_clocks() -> None:
    clock = Clock()
    use(budget := Budget(clock))
    clock.now = 1
    with doing(OTHER):
        clock.now = 3
        with doing(of_stage("big")):
            clock.now = 7
        clock.now = 8
        with doing(READ):
            clock.now = 10
    clock.now = 13
    spent = budget.take()
    assert spent == {IDLE: 4, OTHER: 3, "stage big": 4, READ: 2}
    assert sum(spent.values()) == clock.now


def test_what_was_taken_is_not_counted_again() -> None:
    clock = Clock()
    use(budget := Budget(clock))
    with doing(OTHER):
        clock.now = 2
        assert budget.take() == {OTHER: 2}
        clock.now = 5
    assert budget.take() == {OTHER: 3}


def test_time_is_counted_when_what_is_being_done_fails() -> None:
    clock = Clock()
    use(budget := Budget(clock))

    def fail() -> None:
        with doing(READ):
            clock.now = 2
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    clock.now = 3
    assert budget.take() == {IDLE: 1, READ: 2}


def test_waiting_for_others_is_divided_as_they_spent_their_time() -> None:
    clock = Clock()
    budget = Budget(clock)
    clock.now = 1
    with budget.waiting_for(DECODE, lambda: {DECODE: 10, RESIZE: 30, READ: 0}):
        clock.now = 9
    assert budget.take() == {IDLE: 1, DECODE: 2, RESIZE: 6}
    with budget.waiting_for(DECODE, dict):
        clock.now = 12
    assert budget.take() == {DECODE: 3}


def test_each_thread_has_a_budget_of_its_own() -> None:
    mine, seen = here(), []
    thread = threading.Thread(target=lambda: seen.append(here()))
    thread.start()
    thread.join()
    assert here() is mine
    assert seen[0] is not mine

"""Batches that a device works on while answers of earlier ones are looked at, as on a GPU."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import tiny
import torch
from tiny_routing import EXIT, Counting, route, rows_of

from policy.answers import Answers
from policy.rules import Policy
from transforms.audit import AuditPlan
from transforms.careful import DeviceLost
from transforms.networks_file import read_networks
from transforms.prepare import Prepared


class Late(Counting):
    """An engine whose answers are made when they are waited for, two batches later."""

    in_flight = 2
    waiting = most = 0
    fails: Exception | None = None

    def begin_answer(
        self, stage: str, made: Mapping[str, torch.Tensor], k: int | None
    ) -> Callable[[], Answers]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        def wait() -> Answers:
            self.waiting -= 1
            if self.fails:
                raise self.fails
            return self.answer(stage, made, k)

        return wait


@pytest.fixture
def late(tmp_path_factory: pytest.TempPathFactory) -> Late:
    networks = read_networks(str(tiny.write_networks(tmp_path_factory.mktemp("networks"))))
    return Late(networks, "cpu", heads={EXIT: tiny.head(np.random.default_rng(5))})


@pytest.mark.parametrize("audit", [None, AuditPlan(0.5, "top1")])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_every_image_goes_the_same_way_whether_or_not_its_answer_is_waited_for(
    policy: Policy,
    counting: Counting,
    late: Late,
    images: list[Prepared],
    batch_size: int,
    audit: AuditPlan | None,
) -> None:
    at_once = route(policy, counting, images, batch_size, audit=audit)
    later = route(policy, late, images, batch_size, audit=audit)
    assert sorted(rows_of(later.groups)) == sorted(rows_of(at_once.groups))
    assert later.images() == at_once.images()
    assert late.waiting == 0
    assert late.most >= min(3, -(-len(images) // batch_size))


def test_late_batches_are_full_too(policy: Policy, late: Late, images: list[Prepared]) -> None:
    run = route(policy, late, images, 16)
    queues = Counter(trail[-1] for trail in policy.trails)
    for stage in (EXIT, "small", "big"):
        assert sum(size < 16 for size in run.batches[stage]) <= queues[stage] + late.in_flight


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLost),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_what_fails_while_it_is_waited_for_stops_the_job(
    policy: Policy, late: Late, images: list[Prepared], error: Exception, kind: type[Exception]
) -> None:
    late.fails = error
    with pytest.raises(kind, match=str(error)):
        route(policy, late, images, 16)

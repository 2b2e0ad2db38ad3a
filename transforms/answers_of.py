"""Answers of logits that lie on some device: only the k best classes come back from a GPU."""

from collections.abc import Callable
from functools import partial

import torch

from policy.answers import Answers, answers_from_logits


def answers_of(logits: torch.Tensor, k: int | None) -> Callable[[], Answers]:
    """Begin with the answers of logits [n, classes]; what is returned waits for them."""
    if logits.device.type == "cpu":
        return partial(answers_from_logits, logits.float().numpy(), k)
    parts = reduced(logits, k)
    # into pinned memory the copies wait for nothing; the event comes after the last of them
    here = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
    for mine, part in zip(here, parts, strict=True):
        mine.copy_(part, non_blocking=True)
    done = torch.cuda.current_stream(logits.device).record_event()

    def wait() -> Answers:
        done.synchronize()
        classes, probabilities, entropy = (mine.numpy() for mine in here)
        return Answers(classes, probabilities, entropy)

    return wait


def reduced(logits: torch.Tensor, k: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `policy.answers.answers_from_logits` makes of logits, where they lie.

    Classes and probabilities [n, k], and entropy [n]; the tests hold both to the same.
    """
    logits = logits.float()
    finite = ~(torch.isnan(logits) | torch.isposinf(logits)).any(dim=1)
    finite &= torch.isfinite(logits).any(dim=1)
    safe = torch.where(finite[:, None], logits, 0.0)
    order = torch.sort(-safe, dim=1, stable=True).indices[:, :k]
    shifted = safe - safe.amax(dim=1, keepdim=True)
    weights = torch.exp(shifted)
    total = weights.sum(dim=1, keepdim=True)
    expected = (weights * torch.where(weights > 0, shifted, 0.0)).sum(dim=1, keepdim=True) / total
    entropy = (torch.log(total) - expected)[:, 0].clamp_min(0.0)
    return (
        order.to(torch.int32),
        (weights / total).gather(1, order),
        torch.where(finite, entropy, torch.nan),
    )

"""Which of many policies are worth keeping: those that no other beats in both cost and regret."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def undominated(costs: ArrayLike, regrets: ArrayLike) -> NDArray[np.intp]:
    """Which of n points no other equals or beats in both, dearest (safest) first.

    Along them costs fall and regrets rise, both strictly. Of equal points the first given is kept.
    """
    cost, regret = np.asarray(costs, dtype=np.float64), np.asarray(regrets, dtype=np.float64)
    order = np.lexsort((regret, cost))
    before = np.minimum.accumulate(np.concatenate([[np.inf], regret[order]]))[:-1]
    kept: NDArray[np.intp] = order[regret[order] < before][::-1]
    return kept

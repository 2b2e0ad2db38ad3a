"""Chains: sequences of answers that early exit and cascades walk from front to back."""

import itertools
from collections.abc import Iterator

from policy.graph import StageGraph

Chain = tuple[str, ...]

MOST = 128
"""Chains looked at; of eight answers in a row these are all of two, of three, and some of four."""


def chains(graph: StageGraph) -> list[Chain]:
    """Sequences of answers along edges: the longest first, then from short to long.

    At most MOST of them: 2^m is too many for m answers. Of one length, those that end in the full
    network come first. All have two answers or more, but for the longest where there is no edge.
    """
    longest = longest_chain(graph)
    others = (chain for chain in _by_length(graph) if chain != longest)
    return [longest, *itertools.islice(others, MOST - 1)]


def longest_chain(graph: StageGraph) -> Chain:
    """The chain with most answers; of equals one that ends in the full network, then the cheapest.

    Where every answer may be followed by any dearer one, these are all answers by cost.
    """

    def rank(chain: Chain) -> tuple[int, bool, float]:
        return len(chain), chain[-1] == graph.full, -graph.cost(chain)

    best: dict[str, Chain] = {}
    for start in graph.answers:
        for answer in reversed(graph.reachable(start) if start not in best else ()):
            if answer not in best:
                after = [(answer, *best[other]) for other in graph.followers(answer)]
                best[answer] = max([(answer,), *after], key=rank)
    return max(best.values(), key=rank)


def _by_length(graph: StageGraph) -> Iterator[Chain]:
    """Chains of two answers, of three, and so on; no length is made before it is asked for."""
    level: list[Chain] = [(answer,) for answer in graph.answers]
    while level:
        longer = ((*chain, after) for chain in level for after in graph.followers(chain[-1]))
        level = sorted(itertools.islice(longer, MOST**2), key=lambda chain: chain[-1] != graph.full)
        yield from level

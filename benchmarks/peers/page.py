"""The results as a page."""

from collections.abc import Mapping, Sequence

from benchmarks.peers.results import Run, Runs, median
from benchmarks.peers.targets import Finding


def page(head: Sequence[str], runs: Runs, peers: Mapping[str, str], found: list[Finding]) -> str:
    """Markdown; `head` are its first paragraphs, `peers` side -> the letter of its kind."""
    lines = ["# adalabel and its peers", "", *(f"{text}\n" for text in head)]
    lines += [
        "## Ratios",
        "",
        "How many times as fast adalabel is; medians of the turns' ratios.",
        "",
    ]
    lines += ["| against | side | wanted | median | met | all | whole processes |"]
    lines += ["|---|---|---|---|---|---|---|", *(_ratio(finding) for finding in found), ""]
    lines += [
        "## Times",
        "",
        "Work is from the first image to the last label; start-up is the rest",
    ]
    lines += ["of the process. Of both the median.", ""]
    lines += ["| | side | work s, all | work s | images/s | start-up s | CPU s | top-1 |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [_side(peers[name], name, side) for name, side in runs.items()]
    return "\n".join(lines) + "\n"


def _ratio(f: Finding) -> str:
    wanted = "" if f.wanted is None else f"{f.wanted:.2f}"
    every = ", ".join(f"{ratio:.2f}" for ratio in f.ratios)
    cells = f"{wanted} | {f.median:.2f} | {f.verdict} | {every} | {f.whole:.2f}"
    return f"| {f.title} | {f.ours} : {f.theirs} | {cells} |"


def _side(peer: str, name: str, side: Sequence[Run]) -> str:
    every = ", ".join(f"{run.seconds:.1f}" for run in side)
    seconds, startup = median(side, "seconds"), median(side, "whole") - median(side, "seconds")
    right = "" if side[0].accuracy is None else f"{side[0].accuracy:.1%}"
    cells = f"{side[0].images / seconds:.1f} | {startup:.1f} | {median(side, 'cpu'):.1f} | {right}"
    return f"| {peer} | {name} | {every} | {seconds:.1f} | {cells} |"

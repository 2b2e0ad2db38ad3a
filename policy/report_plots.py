"""The report's figures, each from its content to an SVG element."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

from policy.certify import Certificate
from policy.report_content import (
    METRICS,
    TEST_CONFIDENCE,
    Content,
    Curve,
    Summary,
)
from policy.report_draw import (
    COLORS,
    FAINT,
    INK,
    SMALL,
    figure_svg,
    label_points,
    legend,
    percent,
    shown,
)

_MARKERS = "osD^vPX"
_KINDS = {"method": "", "baseline": " (baseline)", "bound": " (knows the labels)"}
_DASHES = {"method": "-", "baseline": (0, (4, 2)), "bound": (0, (1, 1.5))}
_AROUND = (-0.025, 0.055)  # of the full network's error: what the second panel shows
_GUIDES = (0.01, 0.02, 0.05)
_RATIO = 30  # of costs, from which on their axis is logarithmic


def error_against_cost(content: Content) -> str:
    """Figure 4 of Bolukbasi et al. 2017: all of it, and closer around the full network."""
    summary = content.summary
    errors = [single.error for single in content.singles]
    errors += [error for curve in content.curves for _, error in curve.frontier]
    closer = max(errors) - summary.full_error > _AROUND[1]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2 if closer else 1, squeeze=False)[0]
        handles, names = [], []
        for number, curve in enumerate(content.curves):
            style = _curve_style(curve, number, chosen=curve.name == content.provenance.method)
            handles.append(Line2D([], [], **style))
            names.append(shown(curve.name) + _KINDS[curve.kind])
            for axes in panels:
                axes.plot(*np.reshape(curve.frontier, (-1, 2)).T, **style)
        handles += [Line2D([], [], **_SINGLE), Line2D([], [], **_CHOSEN)]
        legend(figure, handles, [*names, "single network", "chosen policy"], columns=3)
        for axes in panels:
            _points(axes, content)
        panels[0].set_ylabel(f"{METRICS[summary.metric]} error on the test images")
        if closer:
            panels[0].set_title("everything", loc="left")
            panels[0].axhspan(*_zoom(panels[1], content), color="#eef2f6", zorder=0)
        label_points(figure, _names(list(panels), content))

    alt = (
        f"Error against mean cost per image: {len(content.singles)} single networks, "
        f"{len(content.curves)} curves, and the chosen policy at {summary.cost:.3g} "
        f"{summary.unit} and {percent(summary.error, 1)} error"
    )
    return figure_svg(draw, 4.3, "error", alt)


_SINGLE: Mapping[str, Any] = {
    "marker": "o",
    "ls": "",
    "color": INK,
    "ms": 5,
    "mfc": "white",
    "zorder": 4,
}
_CHOSEN: Mapping[str, Any] = {
    "marker": "*",
    "ls": "",
    "color": INK,
    "ms": 13,
    "mec": "white",
    "zorder": 5,
}


def _curve_style(curve: Curve, number: int, *, chosen: bool) -> dict[str, Any]:
    bound = curve.kind == "bound"
    return {
        "ls": _DASHES[curve.kind],
        "color": FAINT if bound else COLORS[number % len(COLORS)],
        "lw": 2.4 if chosen else 1.3,
        "marker": "d" if bound else _MARKERS[number % len(_MARKERS)],
        "ms": 6 if bound else 4,
        "mec": "white",
        "mew": 0.5,
        "markevery": max(1, len(curve.frontier) // 8),
        "zorder": 3 if chosen else 2,
    }


def _points(axes: Axes, content: Content) -> None:
    summary = content.summary
    costs = [single.cost for single in content.singles]
    axes.plot(costs, [single.error for single in content.singles], **_SINGLE)
    axes.plot([summary.cost], [summary.error], **_CHOSEN)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel(f"mean cost per image ({shown(summary.unit)})")
    if min(costs) > 0 and max(costs) > _RATIO * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # its own writes in TeX
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.margins(0.08)
    axes.set_ylim(bottom=0)


def _zoom(axes: Axes, content: Content) -> tuple[float, float]:
    """What lies near the full network, with a line at each loss of interest; gives its range."""
    full = content.summary.full_error
    axes.set_title("closer to the full network (shaded at the left)", loc="left")
    axes.set_ylim(max(full + _AROUND[0], 0), full + _AROUND[1])
    for loss in (0, *_GUIDES):
        axes.axhline(full + loss, color=FAINT, lw=0.7, ls=(0, (5, 3)), zorder=1)
        text = f"+{100 * loss:g} point" + ("" if loss == _GUIDES[0] else "s")
        axes.annotate(
            text,
            (1.01, full + loss),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            color=FAINT,
        )
    return axes.get_ylim()


def _names(panels: Sequence[Axes], content: Content) -> dict[Axes, list[tuple[float, float, str]]]:
    """Which single networks to name where: each in the last panel that shows it."""
    named: dict[Axes, list[tuple[float, float, str]]] = {axes: [] for axes in panels}
    for single in content.singles:
        within = [
            axes for axes in panels if axes.get_ylim()[0] <= single.error <= axes.get_ylim()[1]
        ]
        named[within[-1]].append((single.cost, single.error, single.name))
    return named


def promise(summary: Summary, certificate: Certificate) -> str:
    """The loss on the test images with its interval, beside what was promised and certified."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = [f"test images, {percent(TEST_CONFIDENCE)} interval"]
        handles = [_range(axes, 0, (*summary.interval, summary.lost), COLORS[0], "o")]
        if certificate.passed:
            ends = (certificate.regret, certificate.bound, certificate.regret)
            handles.append(_range(axes, 1, ends, COLORS[1], "D"))
            names.append("certificate's images, up to the bound")
        handles.append(axes.axvline(certificate.max_loss, color=INK, lw=1.4, ls=(0, (4, 2))))
        axes.set_ylim(1.6 if certificate.passed else 0.6, -0.6)
        axes.margins(x=0.08)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel(f"{METRICS[summary.metric]} {summary.objective}")
        legend(figure, handles, [*names, "asked for at most"], columns=3)

    alt = (
        f"{summary.objective} on the test images {percent(summary.lost, 2)}, between "
        f"{percent(summary.interval[0], 2)} and {percent(summary.interval[1], 2)}"
    )
    return figure_svg(draw, 1.5 if certificate.passed else 1.3, "promise", alt)


def _range(
    axes: Axes, row: int, ends: tuple[float, float, float], color: str, marker: str
) -> Line2D:
    """A bar from low to high with a marker in between; gives its handle for a legend."""
    low, high, middle = ends
    axes.plot([low, high], [row, row], color=color, lw=3, solid_capstyle="butt")
    axes.plot([middle], [row], marker, color=color, ms=7)
    return Line2D([], [], color=color, lw=3, marker=marker, ms=7)

"""The report's bar charts: which answers are used, where their errors overlap, who exits where."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from policy.report_content import BudgetRow, Overlap, UsageAt
from policy.report_draw import COLORS, INK, SMALL, figure_svg, legend, percent, shown

_MARKS = (("o", COLORS[0]), ("x", COLORS[1]))
_DARK = 0.5  # mean of red, green and blue, below which black cannot be read
_LEAST_LABEL = 0.055  # share of a stacked bar that has room for its number


def usage(rows: Sequence[UsageAt], unit: str) -> str:
    """Figure 5: how many images get each answer, are labelled by it, and what it takes of cost."""
    names = [n for n in rows[0].usage if any(row.usage[n].samples for row in rows)]
    measures = (
        ("samples", "images that get it"),
        ("exits", "images labelled by it"),
        ("cost", "share of all cost"),
    )
    colors = (COLORS[5], COLORS[0], COLORS[4])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        at = np.arange(len(names))
        for axes, row in zip(panels, rows, strict=True):
            for number, (measure, _) in enumerate(measures):
                shares = [getattr(row.usage[name], measure) for name in names]
                bars = axes.barh(at + 0.27 * (number - 1), shares, 0.25, color=colors[number])
                texts = [percent(share) if share else "" for share in shares]
                axes.bar_label(bars, texts, padding=2, fontsize=7)
            title = f"{row.name}\n{row.cost:.3g} {shown(unit)}, {percent(row.error, 1)} wrong"
            axes.set_title(title, loc="left")
            axes.set_xlim(0, 1.24)
            axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            axes.grid(visible=False, axis="y")
        panels[0].set_yticks(at, [shown(name) for name in names])
        panels[0].invert_yaxis()
        handles = [Patch(color=color) for color in colors]
        legend(figure, handles, [words for _, words in measures], columns=3)

    alt = f"Use of {len(names)} answers at {len(rows)} budgets; the table below has the numbers"
    return figure_svg(draw, 1.4 + 0.46 * len(names), "usage", alt)


def patterns(found: Overlap) -> str:
    """Figure 6: how often which answers are right on the same image."""
    columns = len(found.patterns)

    def draw(figure: Figure) -> None:
        top, below = figure.subplots(
            2, 1, sharex=True, height_ratios=(1.4, 0.25 * len(found.answers) + 0.2)
        )
        shares = [pattern.share for pattern in found.patterns]
        bars = top.bar(np.arange(columns), shares, 0.62, color=COLORS[0])
        top.bar_label(bars, [percent(share, 1) for share in shares], padding=2, fontsize=SMALL)
        top.set_ylabel("share of images")
        top.yaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
        top.margins(y=0.15)
        top.grid(visible=False, axis="x")
        top.tick_params(axis="x", length=0)
        _dots(below, found)
        handles = [
            Line2D([], [], marker=marker, ls="", color=color, ms=6, mew=1.8)
            for marker, color in _MARKS
        ]
        legend(figure, handles, ["right", "wrong"], columns=2)

    alt = (
        f"The {columns} commonest patterns of right and wrong among {len(found.answers)} answers; "
        f"all are right on {percent(found.all_right, 1)} of the images, all wrong on "
        f"{percent(found.all_wrong, 1)}"
    )
    return figure_svg(draw, 2.6 + 0.25 * len(found.answers), "overlap", alt)


def _dots(axes: Axes, found: Overlap) -> None:
    """A column for each pattern, a row for each answer."""
    right = np.array([pattern.right for pattern in found.patterns])
    for (marker, color), chosen in zip(_MARKS, (right, ~right), strict=True):
        column, row = np.nonzero(chosen)
        axes.plot(column, row, marker, color=color, ms=6, mew=1.8)
    axes.set_yticks(range(len(found.answers)), [shown(name) for name in found.answers])
    axes.set_ylim(len(found.answers) - 0.5, -0.5)
    axes.set_xlim(-0.6, max(len(right), 4) - 0.4)
    axes.set_xticks([])
    axes.grid(visible=False)


def exits(rows: Sequence[BudgetRow], unit: str) -> str:
    """EENet's exit distribution: which answer labels how many images at each budget."""
    names = [name for name in rows[0].exits if any(row.exits[name] for row in rows)]
    colors = mpl.colormaps["cividis"](np.linspace(0.12, 0.98, len(names)))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at, left = np.arange(len(rows)), np.zeros(len(rows))
        for name, color in zip(names, colors, strict=True):
            shares = np.array([row.exits[name] for row in rows])
            bars = axes.barh(at, shares, 0.72, left=left, color=color, ec="white", lw=0.6)
            ink = "white" if color[:3].mean() < _DARK else INK
            texts = [percent(share) if share >= _LEAST_LABEL else "" for share in shares]
            axes.bar_label(bars, texts, label_type="center", fontsize=SMALL, color=ink)
            left += shares
        labels = [f"{shown(row.method)}, {row.asked:.3g} {shown(unit)}" for row in rows]
        axes.set_yticks(at, labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0, symbol=" %"))
        axes.set_xlabel("share of images labelled by each answer")
        axes.grid(visible=False)
        legend(figure, [Patch(color=color) for color in colors], [shown(n) for n in names], 5)

    alt = f"Exit distribution of {len(rows)} policies; the table below has the numbers"
    return figure_svg(draw, 1.2 + 0.27 * len(rows), "exits", alt)

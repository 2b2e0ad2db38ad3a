"""Drawing for the report: one style, figures as inline SVG, labels that keep clear of each other.

Names in a figure are untrusted text: they are never read as mathematics or markup.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by the colour-blind (Okabe & Ito 2008); without their yellow, too pale on white."""

INK, FAINT = "#1b1f24", "#6b7280"
WIDTH = 8.0
"""Of every figure, in inches: at the page's width, text is as large as in its tables."""

SMALL = 7.5
_LONGEST = 28  # characters of a name in a figure; the tables have all of it
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    "font.size": 8.5,
    "grid.color": "#e5e7eb",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: to search, and for scripts our font lacks
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}

_NEAR = 8  # of the places around a point: those that touch it

Box = tuple[float, float, float, float]
Points = Sequence[tuple[float, float, str]]


def figure_svg(draw: Callable[[Figure], None], height: float, name: str, alt: str) -> str:
    """What `draw` puts on an empty figure, `height` inches high, as an SVG element for HTML.

    The same drawing gives the same text. `name`, unique on its page, keeps ids apart; `alt` says in
    words what can be seen.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A name in a script that our font lacks is drawn by the browser in one that has it.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=_NO_METADATA)
    return _inline(text.getvalue(), name, alt)


def _inline(svg: str, name: str, alt: str) -> str:
    """Without what only a file of its own needs; ids that nothing refers to would be repeated."""
    head, body = svg[svg.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'<g id="[A-Za-z0-9_.]+">', "<g>", body)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    opening = f'<svg role="img" aria-label="{escape(alt)}" {view.group() if view else ""}'
    return f'{opening} style="stroke-linejoin:round">{body}'


def percent(share: float, digits: int = 0) -> str:
    """A share as the report writes it."""
    return f"{100 * share:.{digits}f} %"


def shown(name: str) -> str:
    """A name as a figure shows it: on one line, without what XML forbids, and not too long."""
    clean = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) in {"Cc", "Cs"} else letter
        for letter in name
    )
    if len(clean) <= _LONGEST:
        return clean
    half = _LONGEST // 2
    return f"{clean[: half - 1]}…{clean[-half:]}"


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int) -> None:
    """A legend above the axes, in columns; names as they are to be shown."""
    found = figure.legend(
        handles, ["."] * len(names), loc="outside upper left", ncols=columns, handlelength=2.6
    )
    for text, name in zip(found.get_texts(), names, strict=True):
        text.set_text(name)  # set here, because a label that starts with _ would be left out


def label_points(figure: Figure, names: Mapping[Axes, Points]) -> None:
    """Write names beside points (x, y, name), where they cover least of what is drawn.

    A label that must stand away from its point is tied to it by a line. To be called last: it
    measures the figure as it is laid out by now, and keeps that layout.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points in names.items():
        _label(axes, points, SMALL * figure.dpi / 72)


def _label(axes: Axes, points: Points, height: float) -> None:
    extents = axes.get_window_extent().extents
    frame = (extents[0], extents[1], extents[2], extents[3])
    taken = _drawn(axes)
    boxes: list[Box] = []
    for x, y, name in points:
        at = axes.transData.transform((x, y))
        width = 0.62 * height * len(shown(name))
        places = list(_places(float(at[0]), float(at[1]), width, height))
        box = min(places, key=lambda place: _clutter(place, taken, boxes, frame))
        boxes.append(box)
        _write(axes, (x, y), box, shown(name), tied=places.index(box) >= _NEAR)


def _write(axes: Axes, at: tuple[float, float], box: Box, name: str, *, tied: bool) -> None:
    left, low = axes.transData.inverted().transform(box[:2])
    axes.text(left, low, name, fontsize=SMALL, color=INK, va="bottom", ha="left", zorder=6)
    if tied:
        x, y = axes.transData.transform(at)
        edge = (float(np.clip(x, box[0], box[2])), float(np.clip(y, box[1], box[3])))
        end = axes.transData.inverted().transform(edge)
        axes.plot([at[0], end[0]], [at[1], end[1]], color=FAINT, lw=0.6, zorder=1)


def _places(x: float, y: float, width: float, height: float) -> Iterator[Box]:
    """Boxes around a point, best first, in pixels."""
    for gap in (0.7 * height, 1.6 * height, 2.6 * height, 4 * height):
        left, middle, right = x - width - gap, x - width / 2, x + gap
        low, centre, high = y - height - gap, y - height / 2, y + gap
        corners = [(right, centre), (left, centre), (middle, high), (middle, low)]
        corners += [(right, high), (left, low), (right, low), (left, high)]
        for corner in corners:
            yield (*corner, corner[0] + width, corner[1] + height)


def _drawn(axes: Axes) -> NDArray[np.float64]:
    """[n, 2], pixels that lines go through, close enough together that no label fits between."""
    found = [np.zeros((0, 2))]
    for line in axes.get_lines():
        path = line.get_transform().transform(line.get_xydata())
        steps = np.linspace(0, 1, 40)[:, None, None]
        found.append((path[:-1] + steps * (path[1:] - path[:-1])).reshape(-1, 2))
        found.append(path)
    return np.concatenate(found)


def _clutter(box: Box, taken: NDArray[np.float64], boxes: Sequence[Box], frame: Box) -> float:
    """How much of other things a label would cover; leaving the axes is worst."""
    left, low, right, high = box
    outside = left < frame[0] or low < frame[1] or right > frame[2] or high > frame[3]
    over = sum(left < b[2] and b[0] < right and low < b[3] and b[1] < high for b in boxes)
    inside = (taken > (left, low)).all(axis=1) & (taken < (right, high)).all(axis=1)
    return 1e6 * outside + 1e3 * over + float(inside.sum())

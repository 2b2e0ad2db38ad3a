"""The page of the last thirty nights: one HTML file that needs nothing else and runs no scripts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from policy.alarm import THRESHOLD
from policy.nights import NightRecord
from policy.report_draw import COLORS, FAINT, figure_svg, legend, shown

TEMPLATE = "nights.html.j2"
NIGHTS = 30

MEANING = {
    0: "done",
    2: "refused",
    3: "too many rejected",
    4: "in use",
    5: "stopped",
    6: "alarm",
    7: "damaged",
}
"""What an exit code says in a word or two."""

_MOST_NAMED = 12
_MOST_EVIDENCE = 1e6  # more than this is drawn as this


def render(records: Sequence[NightRecord]) -> str:
    """The page of the newest NIGHTS records. Equal ones give equal pages; all text is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    template = environment.from_string(Path(__file__).with_name(TEMPLATE).read_text("utf-8"))
    shown_records = records[-NIGHTS:]
    last = shown_records[-1]
    page = template.render(
        records=shown_records[::-1],
        last=last,
        meaning=MEANING,
        headline=headline(last),
        threshold=THRESHOLD,
        plots=[Markup(svg) for svg in _plots(shown_records)],  # noqa: S704 - our SVG
    )
    return page.encode("utf-8", "replace").decode()


def headline(last: NightRecord) -> str:
    """How the last night ended, for whoever reads no further."""
    day = last.began.partition("T")[0]
    if last.exit_code:
        return f"{day}: {MEANING.get(last.exit_code, 'failed')} (exit {last.exit_code})"
    if not last.shards:
        return f"{day}: {last.message}"
    return f"{day}: {last.shards} shards, {last.labelled:,} images labelled"


def _plots(records: Sequence[NightRecord]) -> list[str]:
    """The figures that there is something to draw for."""
    worked = [record for record in records if record.records]
    if not worked:
        return []
    plots = [_images(worked), _costs(worked)]
    if any(record.bound is not None for record in worked):
        plots.append(_audits(worked))
    return plots


def _ticks(axes: Axes, records: Sequence[NightRecord]) -> None:
    """A night a place; as many as there is room for are named by number, month and day."""
    places = range(0, len(records), -(-len(records) // _MOST_NAMED))
    names = [shown(records[at].night or "-").partition("-")[0] for at in places]
    days = [records[at].began[5:10] for at in places]
    axes.set_xticks(places, [f"{name}\n{day}" for name, day in zip(names, days, strict=True)])
    axes.set_xlim(-0.6, len(records) - 0.4)
    axes.grid(visible=False, axis="x")


def _images(records: Sequence[NightRecord]) -> str:
    """How many images were labelled and rejected."""

    def draw(figure: Figure) -> None:
        axes, at = figure.subplots(), np.arange(len(records))
        good = np.array([record.labelled for record in records])
        bad = np.array([record.rejected for record in records])
        axes.bar(at, good, 0.7, color=COLORS[0])
        axes.bar(at, bad, 0.7, bottom=good, color=COLORS[1])
        axes.set_ylabel("images")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        _ticks(axes, records)
        handles = [Patch(color=COLORS[0]), Patch(color=COLORS[1])]
        legend(figure, handles, ["labelled", "rejected"], columns=2)

    return figure_svg(draw, 2.3, "images", "Images labelled and rejected in each night")


def _costs(records: Sequence[NightRecord]) -> str:
    """What an image cost, beside always the full network."""
    unit = shown(records[-1].unit)

    def draw(figure: Figure) -> None:
        axes, at = figure.subplots(), np.arange(len(records))
        (full,) = axes.plot(at, [r.full_cost for r in records], "_", color=FAINT, ms=12, mew=2)
        (cost,) = axes.plot(at, [r.cost for r in records], "o-", color=COLORS[0], ms=4)
        axes.set_ylabel(f"{unit} per image")
        axes.set_ylim(bottom=0)
        _ticks(axes, records)
        legend(figure, [cost, full], ["by the policy", "always the full network"], columns=2)

    return figure_svg(draw, 2.3, "costs", "Mean cost of an image in each night")


def _audits(records: Sequence[NightRecord]) -> str:
    """The audits' disagreement against the promise, and the evidence of all nights so far."""

    def draw(figure: Figure) -> None:
        rate, evidence = figure.subplots(2, 1, sharex=True)
        at = np.arange(len(records))
        found = [r.disagreed / r.audited if r.audited else np.nan for r in records]
        bound = [np.nan if r.bound is None else r.bound for r in records]
        (seen,) = rate.plot(at, found, "o-", color=COLORS[0], ms=4)
        (most,) = rate.plot(at, bound, "_", color=COLORS[1], ms=12, mew=2)
        rate.set_ylabel("audits that\ndisagree")
        rate.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        rate.set_ylim(bottom=0)
        capital = [np.nan if r.evidence is None else r.evidence for r in records]
        evidence.plot(at, np.clip(capital, 1e-3, _MOST_EVIDENCE), "o-", color=COLORS[0], ms=4)
        evidence.axhline(THRESHOLD, color=COLORS[1], lw=1.2)
        evidence.set_yscale("log")
        evidence.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        evidence.set_ylabel("evidence\nagainst the promise")
        _ticks(rate, records)
        _ticks(evidence, records)
        names = ["seen in the night", "at most promised; alarm"]
        legend(figure, [seen, most], names, columns=2)

    return figure_svg(draw, 3.4, "audits", "Audits of each night against the policy's promise")

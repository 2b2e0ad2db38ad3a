"""The report of a policy: one HTML file that needs nothing else and runs no scripts."""

import math
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from policy import report_bars, report_plots
from policy.report_content import LOSSES, METRICS, TEST_CONFIDENCE, Content
from policy.report_draw import percent

TEMPLATE = "report.html.j2"

_SAME = 1.05  # below it, a speed-up is not called one


def render(content: Content) -> str:
    """The whole page. Equal contents give equal pages; every name in it is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "points": _points,
        "cost": _cost(content.summary.full_cost),
        "times": _times,
        "count": _count,
        "trail": " → ".join,
    }
    template = environment.from_string(Path(__file__).with_name(TEMPLATE).read_text("utf-8"))
    page = template.render(
        content=content,
        summary=content.summary,
        certificate=content.certificate,
        metric=METRICS[content.summary.metric],
        headline=headline(content),
        used_exits={name for row in content.budgets for name, share in row.exits.items() if share},
        losses=LOSSES,
        test_confidence=TEST_CONFIDENCE,
        plots={name: Markup(svg) for name, svg in _plots(content).items()},  # noqa: S704 - our SVG
    )
    return page.encode("utf-8", "replace").decode()  # keys may hold bytes that are no text


def _plots(content: Content) -> dict[str, str]:
    """The figures that there is something to draw for."""
    unit = content.summary.unit
    drawn = {
        "error": report_plots.error_against_cost(content),
        "usage": report_bars.usage(content.usage, unit),
    }
    if content.certificate is not None:
        drawn["promise"] = report_plots.promise(content.summary, content.certificate)
    if content.budgets:
        drawn["exits"] = report_bars.exits(content.budgets, unit)
    if len(content.overlap.answers) > 1:
        drawn["overlap"] = report_bars.patterns(content.overlap)
    return drawn


def headline(content: Content) -> str:
    """The one sentence for whoever reads no further."""
    summary, certificate = content.summary, content.certificate
    if certificate is not None and not certificate.passed:
        return f"Always {summary.full}: no cheaper policy could be certified"
    if summary.speedup is None:
        gain = "Costs nothing"
    elif summary.speedup >= _SAME:
        gain = f"{summary.speedup:.1f}x cheaper than {summary.full}"
    else:
        gain = f"No cheaper than {summary.full}"
    metric, lost = METRICS[summary.metric], percent(summary.lost, 1)
    if certificate is None:
        return f"{gain} at {lost} {metric} {summary.objective}, not certified"
    most, sure = f"{100 * certificate.max_loss:g} %", f"{100 * certificate.confidence:g} %"
    return f"{gain} at {lost} {metric} {summary.objective}; at most {most} certified at {sure}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:g}"


def _cost(most: float) -> Callable[[float], str]:
    """Writes costs with as many decimals as give `most` four digits, so that they align."""
    digits = 3 - math.floor(math.log10(most)) if most > 0 else 0
    return lambda cost: f"{cost:.{max(digits, 0)}f}"


def _times(speedup: float | None) -> str:
    return "-" if speedup is None else f"{speedup:.2f}x"


def _count(n: int) -> str:
    return f"{n:,}"

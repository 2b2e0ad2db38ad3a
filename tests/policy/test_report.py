import functools
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tiny

from policy.certify import Certificate
from policy.graph import Stage, StageGraph
from policy.mixture import Mixture
from policy.problem import Problem
from policy.report import headline, render
from policy.report_content import Content, Provenance
from policy.report_draw import shown
from policy.report_measure import Subject, content
from policy.report_plots import error_against_cost
from policy.rules import always

N = 120
EXIT, SMALL, BIG = tiny.GRAPH.answers
EVIL = "<b>$x_1$</b>\"'&{{ 7*7 }}"
CERTIFICATE = Certificate(
    metric="top1",
    objective="excess",
    max_loss=0.01,
    confidence=0.95,
    n=500,
    test="exact binomial",
    tested=3,
    passed=True,
    regret=0.004,
    bound=0.009,
    cost=2.0,
)


def problem(graph: StageGraph = tiny.GRAPH, **changes: Any) -> Problem:
    rng = np.random.default_rng(0)
    outputs = dict(zip(graph.answers, tiny.outputs(rng, N).values(), strict=False))
    keys = [f"s/{number}" for number in range(N)]
    return replace(Problem(graph, keys, tiny.labels(N), outputs), **changes)


def made(test: Problem | None = None, **changes: Any) -> Content:
    singles = [always(tiny.GRAPH, name) for name in tiny.GRAPH.answers]
    mixture = Mixture(singles[0], singles[2], 0.4)
    given = Subject(
        tiny.POLICY,
        "dag",
        "top1 excess at most 0.01",
        CERTIFICATE,
        {"dag": [singles[2], tiny.POLICY, singles[0]], "myopic": singles},
        ("myopic",),
        {"dag": [(6.0, mixture), (0.0, tiny.POLICY)]},
        {"uniform": [(2.75, 0.5), (9.5, 0.1)]},
        {"oracle": [(3.0, 0.05)], "nothing": []},
    )
    provenance = Provenance("d1g3st", "dag", 7, {"fit": 5000}, {"numpy": "9.9"})
    classes = ("cat", "dog", "newt", "yak")
    return content(replace(given, **changes), test or problem(), classes, provenance)


@functools.cache
def page() -> str:
    return render(made())


def of_graph(graph: StageGraph, test: Problem) -> Content:
    """The report of always getting the full network of a graph, and of nothing else."""
    chosen = always(graph, graph.full)
    given = {"policies": {"dag": [chosen]}, "budgeted": {}, "known": {}, "oracles": {}}
    return made(test, chosen=chosen, certificate=None, **given)


class Parsed(HTMLParser):
    """The tags of a page, checked to be closed in order, and its text."""

    EMPTY = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_has_every_part_the_reader_was_promised() -> None:
    found = Parsed(page())
    for words in (
        "The promise",
        "Error against cost",
        "Speed-ups at a given loss",
        "Which answers are used",
        "Budgets asked and met",
        "Overlap of the networks' errors",
        "Where the policy errs",
        "Provenance",
        "d1g3st",
    ):
        assert words in found.text
    assert found.tags.count("svg") == 5
    assert sum(name == "aria-label" and bool(text) for name, text in found.attributes) == 6


def test_the_report_is_one_small_file_without_scripts() -> None:
    assert len(page().encode()) < 300_000
    found = Parsed(page())
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(found.tags)
    assert "http" not in page()
    assert "@import" not in page()
    targets = [value for name, value in found.attributes if name in {"href", "src", "xlink:href"}]
    assert targets
    assert all(target is not None and target.startswith("#") for target in targets)
    assert all(url.startswith("url(#") for url in re.findall(r"url\([^)]*\)", page()))


def test_every_id_is_used_once_and_every_reference_has_its_id() -> None:
    found = Parsed(page())
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    wanted = {str(value)[1:] for name, value in found.attributes if name in {"href", "xlink:href"}}
    assert wanted | set(re.findall(r"url\(#([^)]*)\)", page())) <= set(ids)


@pytest.mark.slow
def test_equal_contents_give_equal_pages() -> None:
    assert render(made()) == page()


@functools.cache
def evil() -> str:
    graph = StageGraph((Stage(EVIL, 1.0, answers=True), Stage(f"_{EVIL}", 4.0, answers=True)), EVIL)
    test = problem(graph, keys=[f"{EVIL}{number}\udcff" for number in range(N)])
    chosen = always(graph, EVIL)
    subject = Subject(
        chosen,
        EVIL,
        EVIL,
        CERTIFICATE,
        {EVIL: [chosen], f"_{EVIL}": [always(graph, f"_{EVIL}")]},
        (),
        {EVIL: [(1.0, chosen)]},
        {f"__{EVIL}": [(2.0, 0.4)]},
        {},
    )
    provenance = Provenance(EVIL, EVIL, 0, {EVIL: 1}, {EVIL: EVIL})
    return render(content(subject, test, (EVIL,) * 4, provenance))


def test_names_are_text_everywhere_in_the_page_and_in_its_figures() -> None:
    text = evil()
    assert text.encode("utf-8")  # though the keys hold bytes that are no text
    assert "<b>$" not in text
    assert Parsed(text).text.count("{{ 7*7 }}") > 20
    assert "$x_1$" in text
    figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(figures) == 5
    seen = "".join("".join(parse(figure).itertext()) for figure in figures)
    assert shown(EVIL) in seen
    assert f"_{EVIL}"[:10] in seen  # a label that starts with _ is not left out


def parse(svg: str) -> ET.Element:
    """An SVG of ours as XML."""
    return ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))  # noqa: S314 - our own


def test_the_headline_says_gain_loss_and_certificate() -> None:
    found = made()
    best = replace(found, summary=replace(found.summary, speedup=3.14, lost=0.009))
    assert headline(best) == (
        "3.1x cheaper than big at 0.9 % top-1 excess; at most 1 % certified at 95 %"
    )
    plain = replace(best, certificate=None)
    assert headline(plain) == "3.1x cheaper than big at 0.9 % top-1 excess, not certified"
    for gain, words in ((None, "Costs nothing at"), (1.0, "No cheaper than big at")):
        slow = replace(found, summary=replace(found.summary, speedup=gain))
        assert headline(slow).startswith(words)


def test_a_failed_certificate_is_said_plainly_and_one_best_class_is_enough() -> None:
    outputs = tiny.outputs(np.random.default_rng(0), N, k=1)
    failed = replace(CERTIFICATE, passed=False)
    found = made(problem(outputs=outputs), chosen=always(tiny.GRAPH, BIG), certificate=failed)
    text = Parsed(render(found)).text
    assert "Always big: no cheaper policy could be certified" in text
    assert "Not certified: always the full network: none of 3 policies" in text
    assert "top-1 error" in text


def test_without_a_certificate_nothing_is_promised_and_the_metric_is_named() -> None:
    test = problem(metric="top5", objective="loss")
    found = Parsed(render(made(test, certificate=None)))
    assert "Not certified. No images were set aside to prove it on" in found.text
    assert "Certified:" not in found.text
    assert found.tags.count("svg") == 4
    assert "top-5 loss, not certified" in found.text
    assert "loss: error above that of big" in found.text


def test_one_network_alone_makes_a_report() -> None:
    graph = StageGraph((Stage("only", 2.0, answers=True),), "ms")
    found = Parsed(render(of_graph(graph, problem(graph))))
    assert "No cheaper than only" in found.text
    assert "0 of 120 test images are lost" in found.text
    assert "The classes that lose most images" not in found.text
    assert found.tags.count("svg") == 2


def test_networks_that_cost_nothing_and_are_always_right_make_a_report() -> None:
    graph = StageGraph((Stage("x", 0.0, answers=True), Stage("y", 0.0, answers=True)), "ms")
    test = problem(graph)
    right = replace(test.outputs["y"], classes=np.zeros_like(test.outputs["y"].classes))
    test = replace(test, labels=np.zeros(N, np.int32), outputs={"x": right, "y": right})
    text = Parsed(render(of_graph(graph, test))).text
    assert "Costs nothing" in text
    assert "All answers are right on 100.0 %" in text


def test_costs_of_many_magnitudes_are_drawn() -> None:
    graph = StageGraph((Stage("x", 0.001, answers=True), Stage("y", 9.0, answers=True)), "ms")
    svg = error_against_cost(of_graph(graph, problem(graph)))
    assert {"x", "y"} <= {(text or "").strip() for text in parse(svg).itertext()}
    assert "mathdefault" not in svg


def test_every_trail_is_in_the_report() -> None:
    text = Parsed(page()).text
    trails = [row.trail for row in made().mistakes.trails]
    assert len(trails) > 3
    assert all(" → ".join(trail) in text for trail in trails)

from xml.etree import ElementTree as ET

from matplotlib.figure import Figure

from policy.report_draw import figure_svg, label_points, shown


def words(svg: str) -> list[str]:
    """The texts in an SVG of ours, in order."""
    root = ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="x"', 1))  # noqa: S314 - our own
    return [text.strip() for text in root.itertext() if text.strip()]


def test_a_name_in_a_figure_is_short_and_on_one_line() -> None:
    assert shown("resnet152") == "resnet152"
    assert shown("a\nb\x00c") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    long = shown("begin" + "x" * 100 + "end")
    assert (long[:5], long[-3:], len(long)) == ("begin", "end", 28)


def test_a_script_that_our_font_lacks_is_left_to_the_browser() -> None:
    svg = figure_svg(lambda figure: figure.suptitle("猫"), 1.0, "cat", "a cat")
    assert "猫" in svg


def test_the_same_drawing_gives_the_same_text_without_a_date() -> None:
    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2], [3, 4], "o")

    svg = figure_svg(draw, 1.0, "twice", "a line")
    assert svg == figure_svg(draw, 1.0, "twice", "a line")
    assert "date" not in svg
    assert 'id="twice-' in svg


def test_an_alternative_text_is_escaped() -> None:
    svg = figure_svg(lambda _: None, 1.0, "alt", '"><script>')
    assert 'aria-label="&quot;&gt;&lt;script&gt;"' in svg


def test_labels_of_points_that_nearly_coincide_do_not_overlap() -> None:
    found: list[tuple[float, float, float, float]] = []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(xlim=(0, 10), ylim=(0, 10))
        points = [(5 + 0.02 * number, 5.0, f"resnet{number}") for number in range(12)]
        label_points(figure, {axes: points})
        found.extend(text.get_window_extent().extents for text in axes.texts)

    assert len(words(figure_svg(draw, 4.0, "near", "points"))) >= 12
    for number, one in enumerate(found):
        for other in found[:number]:
            apart = (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )
            assert apart

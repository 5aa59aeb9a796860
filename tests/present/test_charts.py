import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picochat.present.charts import (
    Bar,
    Line,
    VerdictRow,
    bar_chart,
    line_chart,
    nice_ticks,
    thin,
    verdict_table,
)

NUMBERS = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
SVG = "{http://www.w3.org/2000/svg}"


def loss_chart(points: list[tuple[float, float]]) -> str:
    return line_chart(
        "loss",
        [Line("train <&>", points), Line("held out", points[:2], dots=True)],
        "tokens",
        "nats",
        [("5-gram", 4.0)],
    )


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
def test_any_points_give_well_formed_svg(points: list[tuple[float, float]]) -> None:
    assert ElementTree.fromstring(loss_chart(points)).tag == f"{SVG}svg"


def test_the_same_values_give_the_same_bytes() -> None:
    points = [(x, 9 / (1 + x)) for x in range(50)]
    assert loss_chart(points) == loss_chart(list(points))


def test_points_stay_inside_the_frame_and_fall_where_loss_falls() -> None:
    root = ElementTree.fromstring(loss_chart([(0, 9.0), (100, 3.0), (200, 2.0)]))
    line = root.findall(f"{SVG}polyline")[0].get("points") or ""
    places = [tuple(float(n) for n in pair.split(",")) for pair in line.split()]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert places[0][1] < places[1][1] < places[2][1] <= 388
    assert all(0 <= x <= 760 for x, _ in places)


@pytest.mark.parametrize(("reference", "anchor"), [(2.0, None), (8.0, "end")])
def test_a_reference_is_labelled_where_the_line_is_far_away(
    reference: float, anchor: str | None
) -> None:
    falling = Line("train", [(float(x), 9 - 0.08 * x) for x in range(101)])
    chart = line_chart("loss", [falling], "tokens", "nats", [("5-gram", reference)])
    labels = [t for t in ElementTree.fromstring(chart).iter(f"{SVG}text") if t.text == "5-gram"]
    assert [label.get("text-anchor") for label in labels] == [anchor]


def test_a_reference_that_a_noisy_line_lies_on_is_labelled_below_it() -> None:
    noisy = Line("train", [(float(x), 1.9 + 3 / (1 + x) + 0.2 * (x % 2)) for x in range(101)])
    chart = line_chart("loss", [noisy], "tokens", "nats", [("5-gram", 2.0)])
    root = ElementTree.fromstring(chart)
    (label,) = (t for t in root.iter(f"{SVG}text") if t.text == "5-gram")
    (rule,) = (line for line in root.iter(f"{SVG}line") if line.get("stroke-dasharray"))
    assert float(label.get("y") or 0) > float(rule.get("y1") or 0)


def test_values_that_are_not_finite_are_left_out() -> None:
    text = loss_chart([(0, math.nan), (1, math.inf), (2, 3.0)])
    assert "nan" not in text
    assert "inf" not in text


def test_a_chart_without_points_says_so() -> None:
    assert "nothing was measured" in line_chart("loss", [], "tokens", "nats")
    assert "nothing was measured" in bar_chart("skills", [])


@given(NUMBERS, NUMBERS)
def test_ticks_enclose_both_ends_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks == sorted(ticks)
    assert 2 <= len(ticks) <= 10
    least, most = min(low, high), max(low, high)
    assert ticks[0] <= least + 1e-6 * max(most - least, 1)
    assert ticks[-1] >= most - 1e-6 * max(most - least, 1)


@pytest.mark.parametrize("count", [1, 300, 301, 33_000])
def test_thinning_keeps_the_mean_course_and_the_last_point(count: int) -> None:
    points = [(float(x), float(x % 7)) for x in range(count)]
    few = thin(points)
    assert len(few) <= 300
    assert few[-1] == points[-1]
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    if count == 33_000:
        assert sum(y for _, y in few) / len(few) == pytest.approx(3, abs=0.1)


def test_bars_and_verdicts_escape_what_they_are_given() -> None:
    bars = bar_chart(
        "skills", [Bar("<math>", 0.5, 0.4, 0.6, "35 of 70 & more", (0.1, None))], ["base", "chance"]
    )
    table = verdict_table(
        "gate: <approved>",
        [VerdictRow("pass", "a<b", "1 & 2", "<= 4"), VerdictRow("odd", "n", "m", "b")],
    )
    for text in (bars, table):
        ElementTree.fromstring(text)
        assert "<math>" not in text
        assert "a<b" not in text
    assert 'class="pc-unmeasured"' in table

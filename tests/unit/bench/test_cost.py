"""What the command on growing cost shows: its tables, what it calls flat, its plots, and the requests that it takes in turn."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.cost import page
from bench.cost.__main__ import chosen_of, parsed
from bench.cost.curves import Plot, curves
from bench.cost.dimensions import DIMENSIONS
from bench.cost.measuring import FLAT, Point, Turn
from bench.rivals import report
from bench.rivals.generator import Job, requests_of

DEPTH, RECIPIENTS = DIMENSIONS["depth"], DIMENSIONS["recipients"]


def point(value: int, *costs: float, series: str = "", recipients: int = 1, faults: str = "") -> Point:
    """One with turns of these costs (microseconds), each at 1,000,000 / cost messages a second."""
    return Point(series, value, recipients, [Turn(1e6 / cost, cost, faults) for cost in costs])


def test_a_row_has_the_median_its_range_and_the_cost_by_the_first_point() -> None:
    rows = page.rows(DEPTH, [point(0, 1000, 900, 1250), point(1000, 2000)])
    assert rows == [
        ["0", "1,000 (800-1,111)", "1,000 (900-1,250)", "1.00", "all, once"],
        ["1,000", "500 (500-500)", "2,000 (2,000-2,000)", "2.00", "all, once"],
    ]
    assert [len(row) for row in rows] == [len(page.head(DEPTH))] * 2


def test_a_cost_that_is_a_recipients_is_divided_by_them() -> None:
    (_, row) = page.rows(RECIPIENTS, [point(1, 1000), point(10, 2000, recipients=10)])
    assert row == ["10", "500 (500-500)", "5,000 (5,000-5,000)", "200 (200-200)", "0.20", "all, once"]
    assert len(row) == len(page.head(RECIPIENTS))


@pytest.mark.parametrize(("last", "flat"), [(1000 * FLAT, True), (1000 * FLAT + 10, False)])
def test_what_costs_more_than_the_bound_is_called_not_flat(last: float, flat: bool) -> None:
    assert page.verdict(DEPTH, [point(0, 1000), point(1000, last)]).startswith("NOT FLAT") is not flat


def test_each_series_is_judged_by_its_own_first_point() -> None:
    late = DIMENSIONS["connections"]
    one, two = (series.name for series in late.series)
    points = [point(1, 1000, series=one), point(2, 1000, series=one), point(1, 3000, series=two)]
    assert "1.00" in page.verdict(late, points)
    assert [row[0] for row in page.rows(late, points)] == [one, one, two]


def test_what_did_not_arrive_stands_in_the_last_column() -> None:
    (row,) = page.rows(DEPTH, [point(0, 1000, faults="1 lost")])
    assert row[-1] == "1 lost"


def test_a_plot_lies_within_its_picture_with_a_dot_for_each_value() -> None:
    seen = [(10.0, 5.0, 12.0), (700.0, 600.0, 999.0)]
    drawn = curves(
        "a & b", "steps", ["1", "1,000,000"], (Plot("left", {"x": seen, "y": seen}), Plot("right", {"x": seen}))
    )
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    dots = [
        each for each in root.iter() if each.attrib.get("class", "").startswith("dot") and each.attrib["r"] == "3.5"
    ]
    assert len(dots) == 6
    for each in dots:
        assert 0 < float(each.attrib["cx"]) < width
        assert 0 < float(each.attrib["cy"]) < height
    assert "a & b" in {each.text for each in root.iter()}


def test_writing_puts_table_and_plot_between_the_marks_of_the_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, end = page.marks(DEPTH)
    written = tmp_path / "page.md"
    written.write_text(f"before\n{start}old\n{end}\nafter")
    monkeypatch.setattr(report, "PAGE", written)
    monkeypatch.setattr(report, "PICTURES", tmp_path / "pictures")
    page.write(DEPTH, [point(0, 1000), point(1000, 1100)], 3, "a machine")
    text = written.read_text()
    assert text.startswith(f"before\n{start}")
    assert text.endswith(f"{end}\nafter")
    assert "old" not in text
    assert "| 1,000 | 909 (909-909) |" in text
    assert (tmp_path / "pictures" / "cost-depth.svg").read_text().startswith("<svg")


def test_the_page_has_a_place_for_each_dimension() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for dimension in DIMENSIONS.values():
        assert report.between(text, "x", page.marks(dimension)).count("x") > 0


def test_points_above_the_most_are_left_out() -> None:
    found = chosen_of(parsed(["--only", "depth,keys", "--most", "1000"]))
    assert [list(each.points) for each in found] == [[0, 1000], [1, 10, 100, 1000]]


def test_an_unknown_dimension_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["--only", "depth,width"])
    assert "unknown: width; there are depth," in capsys.readouterr().err


def test_requests_take_relays_templates_and_keys_in_turn_and_go_on_where_the_last_job_ended() -> None:
    job = Job(
        1, "/send", "postroom", "r", 3, 1, first=2, relays=("a", "b"), templates=("t", "u", "v"), tokens=("k", "l")
    )
    contents = [asked.content.decode() for asked in requests_of(job)]
    for content, relay, template, token in zip(contents, "aba", "vtu", "klk", strict=True):
        assert f'"relay": "{relay}"' in content
        assert f'"name": "{template}"' in content
        assert f"Authorization: Bearer {token}\r\n" in content
    assert [f'"X-Bench-Id": "r-{number}"' in content for number, content in enumerate(contents, 2)] == [True] * 3


def test_a_message_may_have_many_recipients_no_two_alike() -> None:
    (asked,) = requests_of(Job(1, "/send", "postroom", "r", 1, 1, first=7, recipients=3))
    assert [asked.content.count(b'"user7-%d@' % number) for number in range(4)] == [1, 1, 1, 0]

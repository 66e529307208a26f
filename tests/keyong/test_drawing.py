"""A query's picture: each cell where it belongs, what is suppressed shown as such, no label taken for markup."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from federation.errors import UsageError
from federation.query import Answer, Cell, Regression
from federation.statements.query import Bins, Categories, Measure, QueryPlan
from keyong.drawing import check_drawn, picture
from keyong.text import speaking

SVG = "{http://www.w3.org/2000/svg}"
COUNT = Measure(kind="count", name="n")


def answered(axis: Any, cells: list[Cell], *measures: Measure) -> Any:
    plan = QueryPlan(axes=(axis,), measures=measures, context="sha256:" + "0" * 64)
    return SimpleNamespace(prepared=SimpleNamespace(query=plan), answer=Answer(tuple(cells), 3))


def cell(name: str, value: float | None, half: float = 0.0) -> Cell:
    if value is None:
        return Cell((name,), 0, {}, {})
    return Cell((name,), 3, {"n": value}, {}, {"n": ((value - half, value + half),)} if half else {})


def drawn(one: Any) -> ElementTree.Element:
    return ElementTree.fromstring(picture(one))


def bars(root: ElementTree.Element) -> list[dict[str, float]]:
    found = [one.attrib for one in root.iter(f"{SVG}rect") if one.get("fill", "").startswith("#4c")]
    return [{key: float(one[key]) for key in ("x", "y", "width", "height")} for one in found]


def hatched(root: ElementTree.Element) -> int:
    return sum(one.get("class") == "suppressed" for one in root.iter(f"{SVG}rect"))


def test_bars_are_as_long_as_their_figures_and_suppressed_cells_have_none() -> None:
    names = ("低碳钢", "<b>&", "rare", "neg")
    axis = Categories(column="alloy", values=names)
    values = [
        cell(name, value, half) for name, value, half in zip(names, (400, 100, None, -100), (50, 0, 0, 0), strict=True)
    ]
    root = drawn(answered(axis, values, COUNT))
    first, second, below = bars(root)
    assert first["width"] == pytest.approx(4 * second["width"], rel=0.01)
    assert below["x"] + below["width"] == pytest.approx(second["x"], abs=0.2), "below zero to the left of it"
    assert hatched(root) == 1
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert {"低碳钢", "<b>&", "400", "suppressed"} <= set(texts)
    whiskers = [one for one in root.iter(f"{SVG}line") if one.get("stroke-width") and one.get("y1") == one.get("y2")]
    assert len(whiskers) == 1
    with speaking("zh"):
        assert "已抑制" in picture(answered(axis, values, COUNT))


def test_columns_of_a_histogram_stand_between_their_edges() -> None:
    axis = Bins(column="force", edges=("0", "10", "40", "50"))
    root = drawn(answered(axis, [cell("a", 30), cell("b", 60, 6), cell("c", None)], COUNT))
    first, second = bars(root)
    assert second["width"] == pytest.approx(3 * first["width"], rel=0.03)
    assert second["height"] == pytest.approx(2 * first["height"], rel=0.01)
    assert hatched(root) == 2  # the cell, and what says of it


def test_every_figure_has_a_panel_and_a_regression_none() -> None:
    fit = Measure(kind="regression", name="fit", columns=("y", "x"))
    figures: dict[str, Any] = {"n": 12, "fit": Regression((1.0, 2.0), 0.5, 12), "m": None}
    axis = Categories(column="alloy", values=("a",))
    both = answered(axis, [Cell(("a",), 3, figures, {})], fit, COUNT, Measure(kind="mean", name="m", columns=("x",)))
    titles = [one.text for one in drawn(both).iter(f"{SVG}text") if one.get("font-size") == "15"]
    assert titles == ["n", "m"]
    check_drawn(both.prepared)
    with pytest.raises(UsageError):
        check_drawn(answered(axis, [], fit).prepared)

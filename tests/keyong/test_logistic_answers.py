"""A logistic regression as a table: its columns, its intervals, and what is said where it has no figure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from federation.errors import UsageError
from federation.query import Answer, Cell, Logistic, Private, micro_rho_left, plan_of
from federation.query.front import common_columns, parse_question
from federation.statements import Column
from keyong.cli.query import _tell
from keyong.drawing import check_drawn
from keyong.explaining import drowned
from keyong.plotting import bars
from keyong.tabulating import as_csv, columns, rows, text_rows

COLUMNS = common_columns(
    [[Column(name="y", type="boolean"), Column(name="x", type="number", minimum="0", maximum="1")]]
)
NAMES = ["fit.intercept", "fit.x", "fit.rows"]


def answered(value: Logistic | None) -> Any:
    question = parse_question("SELECT LOGREG(y, x) AS fit FROM plates", COLUMNS, private=True)
    plan = plan_of(question, COLUMNS, 100, "sha256:" + "0" * 64, Private(5000, 1, 3, 1))
    ends = ((-1.5, -0.5), (2.0, 3.0), (90.0, 110.0)) if value is not None else (None,)
    answer = Answer((Cell((), 3, {"fit": value}, {}, {"fit": ends}),), 3)
    return SimpleNamespace(prepared=SimpleNamespace(query=plan, question=question), answer=answer)


def test_each_coefficient_has_its_column_and_its_interval() -> None:
    one = answered(Logistic((-1.0, 2.5), 101))
    ends = [part for name in NAMES for part in (name, f"{name}.low", f"{name}.high")]
    assert columns(one) == [*ends, "contributing", "of"]
    (row,) = rows(one)
    assert [row[name] for name in NAMES] == [-1.0, 2.5, 101] and (row["fit.x.low"], row["fit.x.high"]) == (2.0, 3.0)
    headings, ((first, second, third, part),) = text_rows(one)
    assert headings == [*NAMES, "contributing"]
    assert (first, second, third, part) == ("-1 [-1.5, -0.5]", "2.5 [2, 3]", "101 [90, 110]", "3/3")
    with pytest.raises(UsageError):
        check_drawn(one.prepared)
    assert not list(bars(one))


def test_without_a_figure_it_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    one = answered(None)
    _, ((*told, part),) = text_rows(one)
    assert told == ["-", "-", "-"] and part == "3/3"
    assert as_csv(one).splitlines()[1] == "," * 9 + "3,3"
    _tell(one)
    assert "do not stand out of the noise" in capsys.readouterr().err
    _tell(answered(Logistic((-1.0, 2.5), 101)))
    assert "do not stand out of the noise" not in capsys.readouterr().err


def test_a_step_needs_room_for_those_that_are_left() -> None:
    query = answered(None).prepared.query
    (measure,) = query.measures

    def left(step: int) -> int:
        fit = measure.fit.model_copy(update={"step": step})
        asked = query.model_copy(update={"measures": (measure.model_copy(update={"fit": fit}),)})
        return micro_rho_left(SimpleNamespace(micro_rho=600, query=asked))  # type: ignore[arg-type]

    assert [left(step) for step in (1, 2, 8)] == [4800, 4200, 600]
    assert micro_rho_left(SimpleNamespace(micro_rho=600, query=None)) == 600  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "says"), [(100, "will be"), (1000, "is likely"), (100_000, None)])
def test_that_noise_drowns_so_few_rows_is_said_before_anything_is_spent(rows: int, says: str | None) -> None:
    query = answered(None).prepared.query
    chosen = [SimpleNamespace(published=SimpleNamespace(description=SimpleNamespace(rows_at_most=rows // 3)))] * 3
    told = drowned(SimpleNamespace(query=query, chosen=chosen, micro_rho=5000))  # type: ignore[arg-type]
    assert (told is None) == (says is None)
    assert says is None or (told is not None and says in told and "rho 0.005 takes" in told), told

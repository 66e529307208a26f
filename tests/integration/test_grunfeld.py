"""Grunfeld's ten firms, one real node a firm: the regression that textbooks print, through the whole of a query."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.consortium import Consortium, at_once
from tests.integration.parties import ForkedParty, Party

PURPOSE = "fed:Research"
FIRMS = 10


@pytest.mark.long
def test_regression_over_ten_nodes_is_right_to_six_digits(tmp_path: Path) -> None:
    """Masked, encrypted, over processes and links, DP off: -42.714369, 0.115562, 0.230678 (statsmodels' bundled data)."""
    from statsmodels.datasets import grunfeld

    frame = grunfeld.load_pandas().data
    names = [name for name in frame.firm.unique() if name != "American Steel"]
    assert len(names) == FIRMS
    firms = Consortium(tmp_path, mills=tuple(f"firm-{number}" for number in range(FIRMS)), party=ForkedParty)
    try:
        firms.found()
        for firm in firms.mills:
            firms.join(firm)

        def serve(firm: Party) -> None:
            own = frame[frame.firm == names[firms.mills.index(firm)]][["invest", "value", "capital"]]
            own.to_csv(firms.records(firm), index=False)
            columns = [text for name in ("invest", "value", "capital") for text in ("--column", f"{name}:number")]
            firm.ok("node", "dataset", "add", "firms", firms.records(firm), "--title", "Firms", *columns)
            firms.serve_node(firm)

        at_once(serve, firms.mills)
        at_once(lambda firm: firm.ok("peers", "accept", "--all"), firms.mills)
        terms = ("--purpose", PURPOSE, "--expires", "30d", "--action", "aggregateQuery", "--count", "2")
        firms.agree(firms.mills, *terms, dataset="firms")
        answer = firms.institute.ok(
            "query", "SELECT LINREG(invest, value, capital) AS fit FROM firms", "--purpose", PURPOSE, "--yes"
        ).json
    finally:
        firms.stop()
    (row,) = answer["rows"]
    assert (row["contributing"], row["of"]) == (FIRMS, FIRMS)
    said = [row[name] for name in row if name.startswith("fit")]
    for wanted in (-42.714369, 0.115562, 0.230678):
        assert any(value == pytest.approx(wanted, abs=5e-7) for value in said if isinstance(value, float)), row

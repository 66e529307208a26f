"""What a query would do: the plan in words, who learns what, what it costs, and what it does not protect against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from federation.privacy import STANDARD, epsilon, rho_text
from federation.query import USUAL, Moment, VectorLayout, drowned_rows, is_fit, query_bits, steps_of
from federation.query.noising import releases, spread_of
from federation.secagg import colluders, shares_of
from keyong.tabulating import noise_of
from keyong.text import translate

if TYPE_CHECKING:
    from keyong.asking import Prepared


@dataclass(frozen=True)
class Explanation:
    """An explanation, as JSON and as text."""

    document: dict[str, Any]
    parts: tuple[tuple[str, tuple[str, ...]], ...]

    def lines(self) -> list[str]:
        """The text, a line each."""
        told: list[str] = []
        for title, sentences in self.parts:
            told += [title, *(f"  {sentence}" for sentence in sentences)]
        return told


def explanation(prepared: Prepared) -> Explanation:
    """Explain a query that is understood; nobody is asked, nothing is signed."""
    query, layout = prepared.query, VectorLayout.of(prepared.query)
    nodes = len(prepared.chosen)
    rules = query.rules
    numbers = {
        "count": nodes,
        "least": rules.contributors,
        "subjects": rules.subjects,
        "cells": query.cells,
        "sums": layout.width,
        "bits": query_bits(query) * steps_of(query),
        "many": colluders(nodes) + 1,
        "dominance": rules.dominance,
        "ratio": rules.p_ratio,
    }
    asked = [
        f"{choice.published.description.provider}/{choice.published.description.dataset}" for choice in prepared.chosen
    ]
    plan = (
        translate("asked of {count} nodes: {names}", count=nodes, names=", ".join(asked)),
        (
            translate("one cell, {sums} sums in it", **numbers)
            if query.cells == 1
            else translate("{cells} cells, {sums} sums in each", **numbers)
        )
        if not layout.terms
        else translate(
            "a logistic regression of {terms} coefficients; each step sums a gradient and a curvature",
            terms=layout.terms,
        ),
        *(
            translate("the column {column}: {bits} fraction bits", column=column.name, bits=column.fraction_bits)
            for column in query.columns
        ),
    )
    learns = (
        translate("you: the table, and how many companies contribute to each cell; no company's part of it"),
        translate("the coordinator: who took part, and sizes; sums are encrypted under a key that you alone hold"),
        translate("each node: the plan, and how many companies contribute to each cell; not what they contribute"),
        translate("the sandbox at a node: the columns that the query names; no key, no mask, no network"),
    )
    cost = (
        *_budget(prepared),
        translate("{bits} bits leave each node at most", **numbers),
        translate("the identical query on the same data is answered again from what is kept, at no cost"),
    )
    refuses = (
        *_rules(numbers, noised=query.noise is not None),
        translate("the nodes refuse a sum over nearly the same companies as an earlier one on the same data"),
        *_refusals(prepared),
    )
    beyond = _beyond(numbers, noised=query.noise is not None)
    parts = (
        (translate("what is asked"), plan),
        (translate("who learns what"), learns),
        (translate("what it costs"), cost),
        (translate("what is refused or suppressed"), refuses),
        (translate("what is not protected against"), beyond),
    )
    document = {
        "plan": query.model_dump(mode="json"),
        "datasets": asked,
        "cells": query.cells,
        "leak_bits": query_bits(query) * steps_of(query),
        "micro_rho": prepared.micro_rho,
        "noise": noise_of(prepared),
        "drowned_rows": _needed(prepared) if is_fit(query) else None,
        "refusals": _refused(prepared),
        "learns": list(learns),
        "not_protected": list(beyond),
    }
    return Explanation(document, parts)


def _budget(prepared: Prepared) -> tuple[str, ...]:
    if prepared.query.noise is None:
        return (translate("one use of each agreement; no privacy budget, for no noise is added"),)
    shares = shares_of(len(prepared.chosen))
    spread = {one.of: spread_of(prepared.query, one, shares, len(prepared.chosen)) for one in releases(prepared.query)}
    count = next((sd for of, sd in spread.items() if isinstance(of, Moment) and of.counts), None)
    steps = steps_of(prepared.query)
    return (
        translate("one use of each agreement")
        if steps == 1
        else translate("{steps} steps, each a question of its own: {steps} uses of each agreement", steps=steps),
        translate(
            "rho {rho} of each dataset's privacy budget (epsilon {epsilon} at delta {delta}), in {count} releases",
            rho=rho_text(prepared.micro_rho),
            epsilon=f"{epsilon(prepared.micro_rho, STANDARD.delta):.2f}",
            delta=STANDARD.delta,
            count=len(spread) * steps,
        ),
        *_spreads(prepared, count),
    )


def drowned(prepared: Prepared) -> str | None:
    """What an asker should know before anything is spent: that so few rows give no figure at this rho; else None."""
    if not is_fit(prepared.query):
        return None
    rows, needed = _rows(prepared), _needed(prepared)
    places = {"rows": rows, "rho": rho_text(prepared.micro_rho), "needed": needed, "usual": USUAL * needed}
    if rows <= needed:
        return translate(
            'the noise drowns so few rows, the answer will be "-": the datasets have {rows} rows at most, and rho {rho} '
            "takes more than {needed}, {usual} as a rule; ask with more rho or fewer columns",
            **places,
        )
    if rows <= USUAL * needed:
        return translate(
            'the noise is likely to drown so few rows, and the answer to be "-": the datasets have {rows} rows at most, and '
            "rho {rho} takes {usual} as a rule ({needed} are sure to drown); ask with more rho or fewer columns",
            **places,
        )
    return None


def _rows(prepared: Prepared) -> int:
    return sum(choice.published.description.rows_at_most for choice in prepared.chosen)


def _needed(prepared: Prepared) -> int:
    nodes = len(prepared.chosen)
    return drowned_rows(prepared.query, nodes, shares_of(nodes))


def _spreads(prepared: Prepared, count: float | None) -> tuple[str, ...]:
    if is_fit(prepared.query):
        hopeless = drowned(prepared)
        return (
            *([hopeless] if hopeless else []),
            translate("a node begins only where its budget has room for all steps; what they have cost stays spent"),
            translate("brackets tell what noise does to a coefficient, not how far few rows lead astray"),
        )
    if count is None:
        return ()
    return (translate("a count of rows gets noise with a standard deviation of {spread}", spread=f"{count:.3g}"),)


def _rules(numbers: dict[str, Any], *, noised: bool) -> tuple[str, ...]:
    if noised:
        return (
            translate("no cell is suppressed: what is shown depends on no row but through noise"),
            translate("a node refuses once its dataset's budget is spent, for everybody or for your company"),
        )
    return (
        translate("a node contributes nothing to a cell with fewer than {subjects} subjects", **numbers),
        translate(
            "nor where two subjects hold more than {dominance} of a total, or the others less than {ratio} of the largest",
            **numbers,
        ),
        translate("a cell opens where {least} companies contribute; else it is suppressed", **numbers),
    )


def _beyond(numbers: dict[str, Any], *, noised: bool) -> tuple[str, ...]:
    differences = (
        translate("one unit whose rows are at two companies: each hides it with noise of its own, and each is charged")
        if noised
        else translate(
            "differences between questions: two that differ by a few rows show those rows' sum, noise would hide it"
        )
    )
    dominance = translate(
        "one company that holds nearly all of a cell: dominance is judged within a node, not between companies"
    )
    return (
        differences,
        dominance,
        translate(
            "{many} nodes that give up their keys to the coordinator: together they learn the others' parts", **numbers
        ),
        translate("a member that lies about its own rows"),
    )


def _refused(prepared: Prepared) -> list[dict[str, str]]:
    """Which clause of which agreement would refuse, as far as the asker can judge."""
    from keyong.choosing import failing_clauses

    return [
        {"dataset": f"{choice.published.description.provider}/{choice.published.description.dataset}", "clause": clause}
        for choice in prepared.chosen
        for clause in sorted(failing_clauses(choice, prepared.home, prepared.purpose, ["fed:aggregateQuery"]))
    ]


def _refusals(prepared: Prepared) -> list[str]:
    return [
        translate("{dataset} would refuse by the clause {clause}", dataset=one["dataset"], clause=one["clause"])
        for one in _refused(prepared)
    ]

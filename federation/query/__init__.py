"""Sealed aggregate queries: the structured plan, what may be asked, a node's part of the answer, and the table.

    text -> question -> plan -> [node: statement -> cells -> chosen cells -> vector] -> sum -> table

Pure: no data base, no network, no encryption here. The front end (`federation.query.front`) imports sqlglot and is loaded by
who asks alone.

>>> from federation.statements import Column
>>> from federation.statements.query import Measure, QueryPlan
>>> plan = QueryPlan(measures=(Measure(kind="mean", name="m", columns=("x",)),),
...     columns=({"name": "x", "fraction_bits": 30},), context="sha256:" + "0" * 64)
>>> check_query(plan, [Column(name="x", type="number")])
>>> VectorLayout.of(plan).size
6
"""

from federation.query.disclosure import CellEvidence, Total, contributes, is_undecided, opened
from federation.query.errors import QueryFailedError, QuerySchemaError, QueryTextError, QueryVoidError
from federation.query.figures import Answer, Cell, decode_answer
from federation.query.fitting import USUAL, Descent, StepSums, drowned_rows, is_fit, micro_rho_left, read_step, steps_of
from federation.query.flags import open_flags, seal_flags
from federation.query.intervals import Logistic, Regression
from federation.query.layout import Moment, VectorLayout, query_bits, stage_bits
from federation.query.loading import loaded_columns, name_of
from federation.query.noised import encode_noised, read_leaves
from federation.query.noising import draw_noise, query_micro_rho
from federation.query.parts import pack_parts, unpack_parts
from federation.query.planning import Private, plan_of
from federation.query.ring import MODULUS, RING, SLOTS, signed
from federation.query.schema import categories_of, check_query, columns_of
from federation.query.sql import (
    CellStatement,
    cell_statement,
    distinct_statement,
    parts_statement,
    tree_statement,
)
from federation.query.vector import CellRow, encode_cells, fill_slots, is_cut, labels, read_rows, with_parts

__all__ = [
    "MODULUS",
    "RING",
    "SLOTS",
    "USUAL",
    "Answer",
    "Cell",
    "CellEvidence",
    "CellRow",
    "CellStatement",
    "Descent",
    "Logistic",
    "Moment",
    "Private",
    "QueryFailedError",
    "QuerySchemaError",
    "QueryTextError",
    "QueryVoidError",
    "Regression",
    "StepSums",
    "Total",
    "VectorLayout",
    "categories_of",
    "cell_statement",
    "check_query",
    "columns_of",
    "contributes",
    "decode_answer",
    "distinct_statement",
    "draw_noise",
    "drowned_rows",
    "encode_cells",
    "encode_noised",
    "fill_slots",
    "is_cut",
    "is_fit",
    "is_undecided",
    "labels",
    "loaded_columns",
    "micro_rho_left",
    "name_of",
    "open_flags",
    "opened",
    "pack_parts",
    "parts_statement",
    "plan_of",
    "query_bits",
    "query_micro_rho",
    "read_leaves",
    "read_rows",
    "read_step",
    "seal_flags",
    "signed",
    "stage_bits",
    "steps_of",
    "tree_statement",
    "unpack_parts",
    "with_parts",
]

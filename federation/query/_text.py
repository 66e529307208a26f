"""The text of a query: parsed, its columns' names and numbers read, and every refusal with its line and column."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from sqlglot import exp
from sqlglot.dialects import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from federation.query.errors import HintNotice, QueryTextError
from federation.query.schema import well_formed
from federation.statements import Column
from federation.statements.query import Value

DIALECT = "duckdb"
MOST_TEXT = 20_000
ANSWERED = HintNotice(
    "answered are COUNT, SUM, AVG, VARIANCE, STDDEV, COVAR_SAMP, COVAR_POP, CORR, LINREG(y, x, ...), HISTOGRAM(x, edge, ...), "
    "COUNT(DISTINCT x), LOCAL_DISTINCT(x), CLAMPED(x), with noise also MIN, MAX, MEDIAN, QUANTILE_CONT(x, 0.9), "
    "LOGREG(y, x, ...), over one dataset, with WHERE and GROUP BY"
)
_KEYWORDS = frozenset(
    (
        *(
            "SELECT",
            "FROM",
            "WHERE",
            "GROUP",
            "BY",
            "AND",
            "OR",
            "NOT",
            "IN",
            "IS",
            "NULL",
            "BETWEEN",
            "AS",
            "DISTINCT",
        ),
        *("HAVING", "ORDER", "LIMIT", "UNION", "JOIN", "ON", "WITH", "TRUE", "FALSE", "CASE", "DATE", "TIMESTAMP"),
    )
)


class QueryText:
    """A query's text, with the columns that its names may mean."""

    def __init__(self, text: str, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self._text = text
        self._folded = {name.lower(): name for name in columns}

    def parse(self, *, loosely: bool = False) -> exp.Select:
        if len(self._text) > MOST_TEXT:
            raise QueryTextError("the query is longer than {count} characters", count=MOST_TEXT)
        dialect = Dialect.get_or_raise(DIALECT)
        try:
            tokens = [self._as_name(token, loosely) for token in dialect.tokenize(self._text)]
            parsed = [tree for tree in dialect.parser().parse(tokens, self._text) if tree is not None]
        except SqlglotError as error:
            told = getattr(error, "errors", None) or [{}]
            line, column = told[0].get("line") or 1, told[0].get("col") or 1
            raise QueryTextError(
                "the query is not SQL that is understood here, at line {line}, column {column}",
                hint="for example: SELECT alloy, COUNT(*), AVG(force) FROM passes GROUP BY alloy",
                line=line,
                column=column,
            ) from None
        except RecursionError:
            raise QueryTextError("the query is nested too deeply") from None
        if len(parsed) != 1 or not isinstance(parsed[0], exp.Select):
            raise QueryTextError(
                "a query is one SELECT, without WITH, UNION or a second statement",
                hint="for example: SELECT alloy, COUNT(*), AVG(force) FROM passes GROUP BY alloy",
            )
        return parsed[0]

    def _as_name(self, token: Token, loosely: bool) -> Token:
        # a column may have the name of a keyword, such as force; while columns are not known, any word may be one
        plain = token.token_type not in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.VAR, TokenType.NUMBER)
        known = token.text in self.columns or (loosely and token.text.islower() and token.text.isidentifier())
        if plain and known and token.text.upper() not in _KEYWORDS:
            return Token(TokenType.IDENTIFIER, token.text, token.line, token.col, token.start, token.end)
        return token

    def number(self, node: exp.Expression) -> str:
        sign = ""
        while isinstance(node, exp.Neg | exp.Paren):
            sign = ("" if sign else "-") if isinstance(node, exp.Neg) else sign
            node = node.this
        if isinstance(node, exp.Literal) and not node.is_string:
            try:
                text = format(Decimal(sign + str(node.this)).normalize(), "f")
            except InvalidOperation:
                text = ""
            if well_formed(Value(type="number", text=text[:200])):
                return text if Decimal(text) else "0"
        self.refuse(node, node.sql(DIALECT)[:60], hint=HintNotice("a number is meant here"))

    def column(self, node: exp.Expression) -> str:
        if not isinstance(node, exp.Column) or not isinstance(node.this, exp.Identifier):
            self.refuse(node, node.sql(DIALECT)[:60], hint=HintNotice("a column's name is meant here"))
        written = str(node.this.this)
        name = written if written in self.columns else self._folded.get(written.lower(), "")
        if not name:
            self.refuse(
                node, written, hint=HintNotice("columns here: {names}"), names=", ".join(list(self.columns)[:20])
            )
        return name

    def refuse_unnoised(self, node: exp.Expression) -> NoReturn:
        line, column = self._place(node)
        raise QueryTextError(
            "{what} is answered only under differential privacy (line {line}, column {column})",
            hint="it shows single rows' values where no noise is added; ask with noise (--rho 0.005)",
            code="query-needs-noise",
            what=node.sql(DIALECT)[:60],
            line=line,
            column=column,
        )

    def refuse(self, node: exp.Expression, what: str, hint: HintNotice | None = None, **places: str) -> NoReturn:
        line, column = self._place(node)
        raise QueryTextError(
            "{what} is not answered here (line {line}, column {column})",
            hint=hint or ANSWERED,
            what=what,
            line=line,
            column=column,
            **places,
        )

    def _place(self, node: exp.Expression) -> tuple[int, int]:
        starts = [one.meta["start"] for one in node.walk() if "start" in one.meta]
        at = min(starts, default=0)
        before = self._text[:at]
        return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1

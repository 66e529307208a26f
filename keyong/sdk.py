"""The Python SDK: a connection of one home, for scripts and notebooks.

with keyong.connect("~/institute") as mine:
    frame = mine.query("SELECT alloy, COUNT(*), AVG(force) FROM passes GROUP BY alloy", purpose="fed:Benchmarking")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from keyong.asking import Answered
    from keyong.ciphering import Ciphers
    from keyong.intersecting import Intersected
    from keyong.scoring import Scored


class Connection:
    """A live link of one home to its coordinator; use it as a context, or `close` it."""

    def __init__(self, home: Path, runtime: str) -> None:
        from federation.home import Home
        from keyong import runtime as runtimes
        from keyong.client import Client
        from keyong.upgrading import upgrade

        self._runtime = runtimes.load(runtime)
        self._ciphers: Ciphers | None = None
        identity = Home(home)
        upgrade(identity)
        self._client = Client(identity)
        self._client.__enter__()
        self._client.read_mail()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the link, and the sandboxes that its queries used."""
        if self._ciphers is not None:
            self._ciphers.close()
        self._client.close()

    def query(
        self,
        sql: str,
        *,
        purpose: str,
        datasets: Sequence[str] = (),
        frame: str = "pandas",
        again: bool = False,
        rho: str | None = None,
    ) -> Any:
        """Ask an aggregate query, under the agreements in force, and return its table.

        Args:
            sql: one SELECT; see docs/query.md for what is answered.
            purpose: for what, as the agreements name it.
            datasets: ``MEMBER/DATASET``; by default all of the name after FROM that agreements permit.
            frame: ``pandas`` or ``polars``.
            again: ask the nodes even where the identical query was answered before.
            rho: what its noise may cost of each dataset's privacy budget, a decimal; by default 0.005 where a dataset demands
                noise, else there is none. Figures then have columns ``NAME.low`` and ``NAME.high`` beside them.

        Raises:
            federation.errors.KeyongError: it is not answered; ``code`` says why, ``hint`` what to do.
        """
        from keyong.tabulating import frame as framed

        return framed(self.answer(sql, purpose=purpose, datasets=datasets, again=again, rho=rho), frame)

    def answer(
        self, sql: str, *, purpose: str, datasets: Sequence[str] = (), again: bool = False, rho: str | None = None
    ) -> Answered:
        """The same, with everything that is known of the answer."""
        from keyong.asking import ask, prepare
        from keyong.checking import tier_here
        from keyong.ciphering import Ciphers

        prepared = prepare(self._client, sql, purpose, datasets, rho)
        if self._ciphers is None:
            self._ciphers = Ciphers(self._runtime, tier_here(""), ahead=True)
        return ask(self._client, prepared, self._runtime, self._ciphers, again=again)

    def score(
        self,
        model: Mapping[str, Any] | Path,
        *,
        on: str,
        purpose: str,
        rho: str | None = None,
        clip: str | None = None,
        exact: bool = False,
    ) -> Scored:
        """Score a linear or logistic model on another company's rows; its weights stay encrypted, one loss comes back.

        Args:
            model: see docs/bilateral.md for its form; a mapping, or a JSON file's path.
            on: ``MEMBER/DATASET``.
            purpose: for what, as the agreement names it.
            rho: what it may cost of the dataset's privacy budget, a decimal; 0.005 by default.
            clip: largest L2 norm of a scaled row; a smaller one takes less noise.
            exact: without noise, where the agreement permits that in words.

        Raises:
            federation.errors.KeyongError: it is not answered; ``code`` says why, ``hint`` what to do.
        """
        from keyong.bilateral import micro_rho
        from keyong.checking import tier_here
        from keyong.scoring import prepare_score, read_model
        from keyong.scoring import score as ask

        budget = micro_rho(rho, exact)
        prepared = prepare_score(self._client, read_model(model), on, purpose, rho=budget, clip=clip)
        return ask(self._client, prepared, self._runtime, tier_here(""))

    def intersect(
        self,
        keys: Sequence[str],
        *,
        on: str,
        column: str,
        purpose: str,
        rho: str | None = None,
        least: int = 10,
        step: int = 5,
        exact: bool = False,
    ) -> Intersected:
        """Ask how many of these keys another company has, too; neither sees the other's, and only the size is told.

        Args:
            on: ``MEMBER/DATASET``; ``column``: its column of keys.
            purpose: for what, as the agreement names it.
            rho: what it may cost of the dataset's privacy budget, a decimal; 0.005 by default.
            least: fewest keys of either side, and of a size that is told; ``step``: it is told in steps of so many.
            exact: without noise, where the agreement permits that in words.

        Raises:
            federation.errors.KeyongError: it is not answered; ``code`` says why, ``hint`` what to do.
        """
        from keyong.bilateral import micro_rho
        from keyong.checking import tier_here
        from keyong.intersecting import intersect as ask
        from keyong.intersecting import prepare_intersection

        budget = micro_rho(rho, exact)
        prepared = prepare_intersection(self._client, keys, on, column, purpose, rho=budget, least=least, step=step)
        return ask(self._client, prepared, self._runtime, tier_here(""))


def connect(home: str | os.PathLike[str] | None = None, *, runtime: str = "torch") -> Connection:
    """Connect one identity to its coordinator.

    Args:
        home: its folder; by default what KEYONG_HOME says.
        runtime: name of the runtime that plans name.
    """
    place = Path(home if home is not None else os.environ.get("KEYONG_HOME", "~/.keyong")).expanduser()
    return Connection(place, runtime)

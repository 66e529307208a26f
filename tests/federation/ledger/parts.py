"""Verification in parts within one process: the same code, without the seconds that real processes take to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

import pytest

from federation.ledger import _parts, _rows


class Here(Executor):
    """Runs what is submitted at once, in this process."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*args, **kwargs))
        return future


@contextmanager
def in_parts_of(entries: int) -> Iterator[list[tuple[int, int]]]:
    """Let ``processes=2`` verify parts of so many entries; gives the parts that were judged sound."""
    sound: list[tuple[int, int]] = []

    def pool(_: int, task: _parts.Task) -> Executor:
        _parts._prepare(task)
        return Here()

    judge = _parts._judge

    def seen(start: int, stop: int) -> _parts.Part | None:
        part = judge(start, stop)
        if part is not None:
            sound.append((start, stop))
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parts, "PART_ENTRIES", entries)
        patch.setattr(_parts, "_pool", pool)
        patch.setattr(_parts, "_judge", seen)
        yield sound


@contextmanager
def in_pages_of(entries: int) -> Iterator[None]:
    """Read so many entries at a time, so that a short history has pages without anything special in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "PAGE", entries)
        yield

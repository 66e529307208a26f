"""Keeps torch's compiler unimported until something compiles: half of what a session with torch would import.

torch 2.13 imports ``torch._dynamo`` and with it some 800 modules (sympy, torch.distributed, parts of inductor) when the
first optimiser is made and stepped, only to tell a compiler that nobody has asked for to keep off. That is more than a
second of processor time in each new session, and some 100 MB that its end has to give back page by page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


def defer_compiler() -> None:
    """From now on, importing ``torch._dynamo`` costs nothing; its first use imports it. May be repeated."""
    if NAME not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Deferred(ModuleType):
    """``torch._dynamo`` as long as nothing compiles; the same object is the real one once anything else of it is used.

    The two functions here are what eager code calls on its way. Neither does anything where no function is being compiled.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # who only looks what kinds of modules there are
            raise AttributeError(name)
        _become_real(self)
        return ModuleType.__getattribute__(self, name)

    def graph_break(self, msg: str = "") -> None:
        """Do nothing, as the real one outside of a compiled function."""

    def disable(self, fn: Any = None, recursive: bool = True, *, wrapping: bool = True, **options: Any) -> Any:
        """Return ``fn`` so that no compiler looks into it: as it is for now, and as the real one wraps it from then on."""
        if wrapping or fn is None or options:  # not torch's own call
            _become_real(self)
            return self.disable(fn, recursive, wrapping=wrapping, **options)
        disabled: Callable[..., Any] | None = None

        def kept_off(*args: Any, **keywords: Any) -> Any:
            nonlocal disabled
            if isinstance(self, _Deferred):
                return fn(*args, **keywords)
            disabled = disabled or self.disable(fn, recursive, wrapping=False)
            return disabled(*args, **keywords)

        return kept_off


_turn = RLock()


def _become_real(module: ModuleType) -> None:
    """Import what was put off, into the module that everyone holds already."""
    with _turn:
        spec = module.__spec__
        if spec is None or not isinstance(loader := spec.loader, _Loader) or loader.begun:
            return  # it is real by now; or this is its own code on the way there
        loader.begun = True
        module.__path__ = list(spec.submodule_search_locations or ())
        module.__loader__ = loader.real
        try:
            loader.real.exec_module(module)
        except BaseException:
            loader.begun = False
            del module.__path__
            raise
        spec.loader = loader.real
        module.__class__ = ModuleType


class _Loader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real
        self.begun = False

    def exec_module(self, module: ModuleType) -> None:
        del module.__path__  # so that the import of any part of it is a use, too
        module.__class__ = _Deferred


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec

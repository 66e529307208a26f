"""Which strategies give the right result from one synthetic reply.

Under ``sum`` an app sees the weighted mean of the replies and no single reply. FedAvg and what builds on its mean
cannot tell the difference; Krum, a median or Flower's DP wrappers would take the one reply without complaint and be
wrong. This check is for honest apps, and keeps them from a wrong result. What keeps single replies from any app is
that the trusted side never hands them over.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .flower import FedOpt, aggregate_metricrecords, strategies

LISTED: tuple[type, ...] = (
    strategies.FedAvg,
    strategies.FedProx,
    strategies.FedAdam,
    strategies.FedYogi,
    strategies.FedAdagrad,
    strategies.FedAvgM,
)
_FLOWERS_FIT = (*LISTED, FedOpt, strategies.Strategy)  # the bases of the listed: FedOpt has FedAvg's aggregation
_LOOK_AT_REPLIES = ("start", "aggregate_train", "aggregate_evaluate", "_check_and_log_replies")
_AGGREGATORS = ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn")
DEFAULT_WEIGHT_KEY = "num-examples"


class RefusedError(Exception):
    """The app does what this job's aggregation cannot give it; raised inside the app, before the first exchange.

    Args:
        code: one of `failures.SERVER_CODES`.
        reason: what and why, for the requester.
        strategy: class of the strategy, where one is concerned.
    """

    def __init__(self, code: str, reason: str, strategy: str = "") -> None:
        self.code = code
        self.reason = reason
        self.strategy = strategy
        super().__init__(f"{code}: {reason}")


def weight_key(strategy: object) -> str:
    """Return the metric by which a strategy weighs replies."""
    key = getattr(strategy, "weighted_by_key", DEFAULT_WEIGHT_KEY)
    return key if isinstance(key, str) else DEFAULT_WEIGHT_KEY


def check_cohort(strategy: object, cohort: int) -> None:
    """Accept a strategy that can start with this many nodes; Flower's would wait for more for ever.

    Raises:
        RefusedError: it waits for nodes that the fixed cohort will never have.
    """
    name = type(strategy).__name__
    for setting in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
        needed = getattr(strategy, setting, 0)
        if isinstance(needed, int) and needed > cohort:
            raise RefusedError("cohort-too-small", f"{setting} is {needed}, the cohort has {cohort} nodes", name)


def check_for_sums(strategy: object, *, declared_fit: bool) -> None:
    """Accept a strategy to which one weighted mean is as good as all replies.

    Args:
        strategy: what the app starts.
        declared_fit: the app's ``[tool.keyong] fit-for-sums``; vouches for the app's own code, never for Flower's.

    Raises:
        RefusedError: it looks at single replies, or samples.
    """
    name = type(strategy).__name__
    unfit = _unfit(strategy)
    own = _own_aggregation(strategy)
    if unfit:
        raise RefusedError("strategy-not-for-sums", f"{unfit} looks at single replies", name)
    if own and not declared_fit:
        reason = f"{own} may look at single replies; declare [tool.keyong] fit-for-sums = true if it does not"
        raise RefusedError("strategy-not-for-sums", reason, name)
    for setting in ("fraction_train", "fraction_evaluate"):
        fraction = getattr(strategy, setting, 1.0)
        if fraction not in (0.0, 1.0):
            reason = f"{setting} is {fraction}; every node of the cohort takes part (1.0), or none (0.0)"
            raise RefusedError("sampling-not-whole", reason, name)


def _unfit(strategy: object) -> str:
    for cls in type(strategy).__mro__:
        if cls.__module__.partition(".")[0] == "flwr" and cls not in _FLOWERS_FIT:
            return cls.__name__
    return ""


def _own_aggregation(strategy: object) -> str:
    """Return what of a strategy is the app's own and gets the replies to see."""
    if not isinstance(strategy, LISTED):
        return type(strategy).__name__
    for method in _LOOK_AT_REPLIES:
        if method in vars(strategy):
            return method
        definer = next(cls for cls in type(strategy).__mro__ if method in vars(cls) or cls is object)
        if definer not in _FLOWERS_FIT and definer is not object:
            return f"{definer.__name__}.{method}"
    for setting in _AGGREGATORS:
        if getattr(strategy, setting, aggregate_metricrecords) is not aggregate_metricrecords:
            return setting
    return ""


def announce_starts(started: Callable[[object, object], Callable[[], None]]) -> None:
    """Call ``started(strategy, grid)`` whenever a Flower strategy starts, and what that returns when it ends."""
    original = strategies.Strategy.start

    @functools.wraps(original)
    def start(self: Any, grid: Any, *args: Any, **kwargs: Any) -> Any:
        ended = started(self, grid)
        try:
            return original(self, grid, *args, **kwargs)
        finally:
            ended()

    strategies.Strategy.start = start  # type: ignore[method-assign]

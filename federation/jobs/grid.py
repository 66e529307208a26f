"""The Grid that an app's server part sees: a proxy to the trusted process on the coordinator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from . import strategies
from .codec import Array, Content, ContentError, content_digest, decode_many, describe, header_bytes
from .flower import Grid, Message, RecordDict, Run, answer, to_content, to_records, valid_type
from .frames import Channel, FrameError
from .session import MAX_BODY, collect
from .strategies import RefusedError


class ExchangeError(Exception):
    """The trusted side could not make this exchange; the job is over. ``code`` is the trusted side's own."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the exchange failed: {code}")


class JobGrid(Grid):
    """Sends messages to the cohort through the channel and hands back the replies.

    Under ``sum`` all messages of an exchange are one broadcast to the whole cohort, and its replies are one: the
    weighted mean, in answer to the first message. `push_messages` returns when the replies are there, so a loop that
    pulls ends.
    """

    def __init__(
        self, channel: Channel, *, run_id: int, node_ids: Sequence[int], aggregation: str, declared_fit: bool
    ) -> None:
        self._channel = channel
        self._run = Run.create_empty(run_id)
        self._node_ids = list(node_ids)
        self._sums = aggregation == "sum"
        self._declared_fit = declared_fit
        self._strategy: object = None
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._whole: dict[tuple[str, str], np.dtype[Any]] = {}
        self._lock = threading.RLock()
        self.refusal: RefusedError | None = None

    def started(self, strategy: object, grid: object) -> Callable[[], None]:
        """Check a strategy that starts on this grid; the returned function says that it has ended.

        Raises:
            RefusedError: it cannot run in this job.
        """
        before = self._strategy
        if grid is self:
            try:
                strategies.check_cohort(strategy, len(self._node_ids))
                if self._sums:
                    strategies.check_for_sums(strategy, declared_fit=self._declared_fit)
            except RefusedError as refusal:
                self.refusal = refusal
                raise
            self._strategy = strategy

        def ended() -> None:
            self._strategy = before

        return ended

    def set_run(self, run: Run) -> None:
        """Do nothing: a session has one run."""

    @property
    def run(self) -> Run:
        """The run of this job."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the cohort, which is fixed for the job."""
        return list(self._node_ids)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and wait for their replies; returns an id for each message."""
        with self._lock:
            return self._exchange(list(messages), None)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return those replies to these messages that were not pulled before."""
        with self._lock:
            return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return their replies; the job's plan may allow less time than ``timeout``."""
        with self._lock:
            return self.pull_messages(self._exchange(list(messages), timeout))

    def _exchange(self, messages: list[Message], timeout: float | None) -> list[str]:
        if not messages:
            return []
        if self.refusal:
            raise self.refusal
        try:
            self._check(messages)
            header, buffers = self._describe(messages)
        except RefusedError as refusal:
            self.refusal = refusal
            raise
        header["timeout"] = timeout
        try:
            self._channel.send(header, buffers)
        except FrameError as error:  # nothing was written yet
            raise RefusedError("content-unsupported", f"the messages of an exchange: {error.code}") from None
        collect(sum(len(buffer) for buffer in buffers))  # while the nodes are at work
        ids = [f"message-{self._sent + number}" for number in range(len(messages))]
        self._sent += len(messages)
        self._receive(dict(zip(ids, messages, strict=True)))
        return ids

    def _check(self, messages: list[Message]) -> None:
        name = type(self._strategy).__name__ if self._strategy else ""
        nodes = [message.metadata.dst_node_id for message in messages]
        if self._sums and not self._strategy and not self._declared_fit:
            raise RefusedError(
                "no-strategy-for-sums",
                "the app uses the Grid without one of Flower's strategies; declare [tool.keyong] fit-for-sums = true "
                "if one weighted mean is all it needs",
            )
        if len({message.metadata.message_type for message in messages}) > 1 or not valid_type(
            messages[0].metadata.message_type
        ):
            raise RefusedError(
                "unsupported", "messages of one exchange are of one type: train, evaluate or query", name
            )
        if len(set(nodes)) != len(nodes) or not set(nodes) <= set(self._node_ids):
            raise RefusedError("unsupported", "an exchange has at most one message to each node of the cohort", name)
        if self._sums and len(nodes) != len(self._node_ids):
            reason = f"{len(nodes)} of {len(self._node_ids)} nodes are addressed; a sum is over the whole cohort"
            raise RefusedError("not-one-broadcast", reason, name)

    def _describe(self, messages: list[Message]) -> tuple[dict[str, Any], list[memoryview]]:
        """Return the frame of an exchange, equal contents in it once."""
        headers: list[dict[str, object]] = []
        body: list[memoryview] = []
        by_object: dict[int, int] = {}  # strategies send one object to all: no need to hash it for each
        several = len({id(message.content) for message in messages}) > 1
        by_digest: dict[str, int] = {}
        entries: list[dict[str, object]] = []
        name = type(self._strategy).__name__ if self._strategy else ""
        for message in messages:
            index = by_object.get(id(message.content))
            if index is None:
                try:
                    content, buffers = describe(self._as_first_sent(to_content(message.content)))
                except ValueError as error:
                    code = error.code if isinstance(error, ContentError) else "array"
                    raise RefusedError("content-unsupported", f"a message's content: {code}", name) from None
                digest = content_digest(header_bytes(content), buffers) if several else ""
                index = by_digest.setdefault(digest, len(headers))
                if index == len(headers):
                    headers.append(content)
                    body += buffers
                by_object[id(message.content)] = index
            entries.append(
                {
                    "node_id": message.metadata.dst_node_id,
                    "content_index": index,
                    "group_id": message.metadata.group_id,
                }
            )
        if self._sums and len(headers) != 1:
            raise RefusedError(
                "not-one-broadcast", "a sum is over answers to one content, the same for all nodes", name
            )
        header = {
            "op": "exchange",
            "type": messages[0].metadata.message_type,
            "messages": entries,
            "contents": headers,
            "weight_key": strategies.weight_key(self._strategy),
        }
        return header, body

    def _as_first_sent(self, content: Content) -> Content:
        """Return the content with integer and bool arrays in the type they were first sent in.

        Flower's mean turns a counter (BatchNorm's ``num_batches_tracked``) into float64 after the first round, while
        clients go on replying what their model holds; a node refuses a reply of another type than was sent.

        Raises:
            ContentError: a counter has become a number that is no integer's.
        """
        arrays: dict[str, dict[str, Array]] = {}
        for record, entries in content.arrays.items():
            arrays[record] = {}
            for name, array in entries.items():
                first = self._whole.get((record, name), array.dtype)
                if first.kind in "iub":
                    self._whole[record, name] = first
                arrays[record][name] = array if array.dtype == first else _rounded(array, first)
        return Content(arrays, content.metrics, content.configs)

    def _receive(self, sent: Mapping[str, Message]) -> None:
        header, body = self._channel.receive(MAX_BODY)
        if header["op"] == "abort":
            raise ExchangeError(str(header.get("code", "")))
        replies = header["replies"]
        if header["op"] != "replies" or not isinstance(replies, list) or (self._sums and len(replies) != 1):
            raise ExchangeError("protocol")
        contents = iter(decode_many([reply["content"] for reply in replies if "content" in reply], body))
        by_node = {message.metadata.dst_node_id: key for key, message in sent.items()}
        for reply in replies:
            key = next(iter(sent)) if self._sums else by_node[reply["node_id"]]
            records = to_records(next(contents)) if "content" in reply else str(reply["error"])
            self._replies[key] = answer(sent[key], key, records)


def _rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array as integers or bools, each to the nearest that the type holds."""
    if array.dtype.kind not in "iubf":
        raise ContentError("content-dtype")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ContentError("content-dtype")
    if dtype.kind == "b":
        return np.asarray(np.rint(array), dtype=np.bool_)
    limits = np.iinfo(dtype)
    if array.dtype.kind != "f":
        return np.asarray(np.clip(array, limits.min, limits.max), dtype=dtype)
    values = np.rint(array.astype(np.float64))
    # float64 has no 2^63 - 1: what rounds up to 2^63 is put in by hand, for the cast would wrap
    above, below = values >= float(limits.max), values <= float(limits.min)
    whole = np.where(above | below, 0, values).astype(dtype)
    whole[above], whole[below] = limits.max, limits.min
    return whole

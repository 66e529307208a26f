"""What a job's app was answered, on disk: with it the server part can be run again after the coordinator died.

A line a record in ``exchanges.jsonl``, each with its own digest; what is large lies in a file of its own beside it,
flushed before the line that names it; that of an aggregate is a safetensors file, so that the result need not be a
second one. A torn last line is what a crash leaves; whoever goes on writing cuts it off. Reading changes nothing:
another may be writing. Order of writing:

1. ``begun``: the numbers under which the app knows the nodes.
2. ``asked``: stage, content and the sealed invocations, before the first of them is sent. Asked again with these very
   bytes, a node answers from its record what it computed. Of a masked exchange once more with the set of survivors,
   before a node is shown it; the cohort's keys (``announced``) were written before that. Masked vectors never are.
3. ``answered``: before anything of the next exchange is sent. Died in between, the app with it, the coordinator asks
   again, and nodes answer from their records. Under ``sum`` the aggregate and nothing of its parts; under ``each``, which
   the agreements of the whole cohort permit in words, the replies.

An attacker who can modify a recording can make a resumed job go on from another model; not make a node do what its plan
does not hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.tensors import safetensors_head
from federation.errors import DeniedError
from federation.jobs.codec import Content, decode, encode
from federation.secagg import Aggregate
from federation.wire.body import Buffer, total_bytes

FOLDER = "exchanges"
JOURNAL = "exchanges.jsonl"
DROPPED = "dropped"
INLINE_BYTES = 64 * 1024
RECORDING_BYTES = 64 * 2**30
"""Of one job; a longer one goes on without, and cannot be resumed. About 600 rounds of 25 million parameters."""
RECORDINGS_BYTES = 128 * 2**30
"""Of all interrupted jobs; beyond it the oldest go, whose requesters have had the longest to resume."""
_METRICS = "metrics"
_BODY, _MODEL = "body", "safetensors"


@dataclass(frozen=True)
class Room:
    """How many bytes of disk recordings may take: that of one job, and those of all interrupted jobs together."""

    job: int = RECORDING_BYTES
    together: int = RECORDINGS_BYTES


ROOM = Room()


class NotRecordedError(DeniedError):
    """The job's recording is gone, so nothing can go on from it."""

    code = "not-recorded"


@dataclass(frozen=True)
class Asked:
    """An exchange as it was asked."""

    stage: str
    content: str
    invocations: dict[str, bytes]
    """The newest sealed invocation of each node that was asked."""
    survivors: bytes = b""
    """The sealed set of survivors of a masked round, from before it was shown to anybody."""
    announcements: tuple[bytes, ...] = ()
    """The sealed keys of the cohort that masked it."""


@dataclass(frozen=True)
class Answered:
    """An exchange as it was answered, and the entry that the job's history has of it."""

    stage: str
    content: str
    contributed: tuple[str, ...]
    fallen: dict[str, str]
    weights: dict[str, int]
    entry: dict[str, Any]
    aggregate: Aggregate | None = None
    replies: dict[str, Content] = field(default_factory=dict)


class Recording:
    """The recording of one job. Every method that writes returns once it is durable, and blocks on the disk.

    Args:
        folder: the job's.
    """

    def __init__(self, folder: Path, limit: int = RECORDING_BYTES) -> None:
        self._folder = folder / FOLDER
        self._limit = limit
        self._journal: int | None = None
        self._size = 0
        """Of the journal."""
        self._asked: dict[str, Any] = {}
        self._announced: list[str] = []
        self._answered: dict[int, tuple[int, int]] = {}
        """Where in the journal the line of each answered exchange lies: a long job's are not held in memory."""
        self.numbers: dict[str, int] = {}
        self.dropped = (self._folder / DROPPED).exists()
        self._load()

    # -- what it holds ------------------------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether a node was asked for anything."""
        return bool(self._asked) or self.dropped

    @property
    def answered(self) -> int:
        """How many exchanges were answered, from the first on."""
        return len(self._answered)

    def history(self) -> list[dict[str, Any]]:
        """The history's entries of all answered exchanges."""
        return [self._read(number)["entry"] for number in sorted(self._answered)]

    def size(self) -> int:
        """Its bytes on disk."""
        return sum(path.stat().st_size for path in self._folder.glob("*")) if self._folder.is_dir() else 0

    def touched(self) -> float:
        """When it was written to last."""
        path = self._folder / JOURNAL
        return path.stat().st_mtime if path.is_file() else 0.0

    def pending(self, number: int) -> Asked | None:
        """An exchange as it was asked; None where it never was."""
        found = self._asked
        if found.get("number") != number:
            return None
        invocations = {node: base64.b64decode(text) for node, text in found["invocations"].items()}
        survivors = base64.b64decode(found.get("survivors", ""))
        keys = tuple(base64.b64decode(text) for text in self._announced) if survivors else ()
        return Asked(found["stage"], found["content"], invocations, survivors, keys)

    def find(self, number: int) -> Answered | None:
        """An exchange as it was answered; None where it was not."""
        if number not in self._answered:
            return None
        found = self._read(number)
        body = self._body(found)
        aggregate: Aggregate | None = None
        replies: dict[str, Content] = {}
        if "aggregate" in found:
            aggregate = _read_aggregate(found["aggregate"], body)
        else:
            replies = _read_replies(found["replies"], body)
        return Answered(
            found["stage"],
            found["content"],
            tuple(found["contributed"]),
            found["fallen"],
            found["weights"],
            found["entry"],
            aggregate,
            replies,
        )

    # -- writing ------------------------------------------------------------------------------------------------------

    def begin(self, numbers: dict[str, int]) -> None:
        """Keep the numbers under which the app knows the nodes it started with."""
        self._append({"kind": "begun", "numbers": numbers})

    def ask(self, number: int, stage: str, content: str, invocations: dict[str, bytes]) -> None:
        """Keep what is about to be sent. Asked again, what is given for a node replaces what it was asked before."""
        texts = {node: base64.b64encode(sealed).decode() for node, sealed in invocations.items()}
        before = self._asked["invocations"] if self._asked.get("number") == number else {}
        self._append(
            {
                "kind": "asked",
                "number": number,
                "stage": stage,
                "content": content,
                "invocations": {**before, **texts},
            }
        )

    def announced(self, announcements: Sequence[bytes]) -> None:
        """Keep the announced keys of the cohort that masks the rounds from here on."""
        texts = [base64.b64encode(sealed).decode() for sealed in announcements]
        self._append({"kind": "announced", "announcements": texts})

    def survivors(self, number: int, sealed: bytes) -> None:
        """Keep the set of survivors of an exchange that was asked, before it is shown to anybody."""
        self._append({**self._asked, "number": number, "survivors": base64.b64encode(sealed).decode()})

    def answer(self, number: int, answered: Answered) -> None:
        """Keep what the app is about to be given; beyond the limit the whole recording is dropped instead."""
        record: dict[str, Any] = {
            "kind": "answered",
            "number": number,
            "stage": answered.stage,
            "content": answered.content,
            "contributed": list(answered.contributed),
            "fallen": answered.fallen,
            "weights": answered.weights,
            "entry": answered.entry,
        }
        body: list[Buffer]
        head: bytes | None = None
        if answered.aggregate is not None:
            record["aggregate"], body = _write_aggregate(answered.aggregate)
            head = safetensors_head(answered.aggregate.arrays)
        else:
            record["replies"], body = _write_replies(answered.replies)
        size = total_bytes(body)
        if not self.dropped and self.size() + size > self._limit:
            self.drop()
        if self.dropped:
            return
        if size <= INLINE_BYTES:
            record["body"] = base64.b64encode(b"".join(bytes(part) for part in body)).decode()
        else:
            record["start"] = len(head or b"")
            record["file"] = self._write_file(f"{number:06d}.{_BODY if head is None else _MODEL}", [head or b"", *body])
        self._append(record)

    def model(self, number: int) -> Path | None:
        """The safetensors file that an exchange's aggregate lies in; None where it lies in none."""
        path = self._folder / f"{number:06d}.{_MODEL}"
        return path if number in self._answered and path.is_file() else None

    def remove(self) -> None:
        """Forget it all: the job has its result, or ended for good."""
        self._close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def drop(self) -> None:
        """Give back its room; that it was dropped stays known."""
        self._close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / DROPPED).touch()
        for path in self._folder.glob("*"):
            if path.name != DROPPED:
                path.unlink(missing_ok=True)
        self.dropped = True

    def close(self) -> None:
        """Close the file."""
        self._close()

    # -- the files ----------------------------------------------------------------------------------------------------

    def _append(self, record: dict[str, Any]) -> None:
        if self.dropped:
            return
        if self._journal is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(self._folder / JOURNAL, flags, 0o600)
            os.ftruncate(self._journal, self._size)
            self._flush_folder(self._folder.parent)
            self._flush_folder(self._folder)
        text = json.dumps(record, ensure_ascii=False).encode()
        whole = line = memoryview(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
        try:
            while line:
                line = line[os.write(self._journal, line) :]
            os.fdatasync(self._journal)
        except OSError:
            self._close()  # what was written of it is cut off when the file is opened for the next line
            raise
        self._take(record, len(whole))

    def _write_file(self, name: str, body: Sequence[Buffer]) -> str:
        with (self._folder / name).open("wb", buffering=0) as file:
            for part in body:
                view = memoryview(part).cast("B")
                while view:
                    view = view[file.write(view) :]
            os.fdatasync(file.fileno())
        self._flush_folder(self._folder)
        return name

    def _flush_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _body(self, record: dict[str, Any]) -> memoryview:
        if "file" not in record:
            return memoryview(base64.b64decode(record["body"]))
        with (self._folder / record["file"]).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))[record.get("start", 0) :]

    def _load(self) -> None:
        path = self._folder / JOURNAL
        if not path.is_file():
            return
        with path.open("rb") as file:
            for line in file:
                text = _checked(line)
                if text is None:
                    break
                self._take(json.loads(text), len(line))

    def _read(self, number: int) -> dict[str, Any]:
        start, length = self._answered[number]
        with (self._folder / JOURNAL).open("rb") as file:
            file.seek(start)
            text = _checked(file.read(length))
        if text is None:
            raise NotRecordedError("the recording of exchange {number} is damaged", number=number)
        return dict(json.loads(text))

    def _take(self, record: dict[str, Any], length: int) -> None:
        match record["kind"]:
            case "begun":
                self.numbers = dict(record["numbers"])
            case "asked":
                self._asked = record  # those before it were answered
            case "announced":
                self._announced = list(record["announcements"])
            case "answered":
                self._answered[record["number"]] = (self._size, length)
        self._size += length

    def _close(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None


def _checked(line: bytes) -> bytes | None:
    """The text of a whole line that is what was written; None for any other."""
    digest, _, text = line.rstrip(b"\n").partition(b" ")
    return text if line.endswith(b"\n") and hashlib.sha256(text).hexdigest().encode() == digest else None


def _write_aggregate(aggregate: Aggregate) -> tuple[dict[str, Any], list[Buffer]]:
    name = _METRICS
    while name in aggregate.arrays:
        name += "-"
    header, views = encode(Content(aggregate.arrays, {name: aggregate.metrics}))
    counts = {"total_weight": aggregate.total_weight, "count": aggregate.count, "saturated": aggregate.saturated}
    return {"header": header.decode(), **counts}, list(views)


def _read_aggregate(record: dict[str, Any], body: memoryview) -> Aggregate:
    content = decode(record["header"].encode(), body)
    (metrics,) = content.metrics.values()
    arrays = {name: dict(entries) for name, entries in content.arrays.items()}
    return Aggregate(
        arrays,
        {name: float(value) for name, value in metrics.items()},  # type: ignore[arg-type]  # written as floats
        record["total_weight"],
        record["count"],
        record["saturated"],
    )


def _write_replies(replies: dict[str, Content]) -> tuple[list[dict[str, Any]], list[Buffer]]:
    records: list[dict[str, Any]] = []
    body: list[Buffer] = []
    for node, reply in replies.items():
        header, views = encode(reply)
        records.append({"node": node, "header": header.decode(), "size": total_bytes(views)})
        body += list(views)
    return records, body


def _read_replies(records: list[dict[str, Any]], body: memoryview) -> dict[str, Content]:
    replies: dict[str, Content] = {}
    at = 0
    for record in records:
        replies[record["node"]] = decode(record["header"].encode(), body[at : at + record["size"]])
        at += record["size"]
    return replies


def room_for(recordings: Sequence[Recording], limit: int) -> None:
    """Drop the oldest of some recordings until the others take no more than ``limit`` bytes."""
    sizes = sorted(((one.touched(), one.size(), one) for one in recordings), key=lambda found: found[0])
    total = sum(size for _, size, _ in sizes)
    for _, size, one in sizes:
        if total <= limit:
            return
        one.drop()
        total -= size

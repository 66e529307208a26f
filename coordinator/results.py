"""A job's result on disk: model, metrics, receipts, the server part's files. Written as files, never loaded."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from safetensors.numpy import save_file

from coordinator.answers import Answer
from coordinator.tensors import Arrays, named
from federation.errors import KeyongError, UnavailableError
from federation.jobs.frames import FrameError, result_path
from federation.statements import Envelope, receipts_digest
from federation.wire.body import Buffer

RESULT_BYTES = 1024 * 1024 * 1024
RESULT_FILES = 2000
PARTIAL = "partial"
"""Where files are written before they are put in place under their names."""
ACKNOWLEDGED = "acknowledged.json"
"""The last acknowledgement of the result that was recorded; no part of it."""
_NOT_PART = ("app", "code.bundle", "exchanges", PARTIAL, ACKNOWLEDGED)
_MAP_FROM = 256 * 1024


class ResultError(KeyongError):
    """The server part left more, or other, than a result may hold."""

    code = "result"


class ResultFolder:
    """The growing result of one job. Every method blocks on the disk; a crash leaves each file as it was or as it is
    to be, never a part of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place, self._partial = f"{folder}{os.sep}", folder / PARTIAL
        self._bytes = 0
        self._files = 0
        for name in ("receipts", "output", PARTIAL):
            (folder / name).mkdir(exist_ok=True)

    def put_model(self, arrays: Arrays, recorded: Path | None = None) -> None:
        """Replace the model.

        Args:
            recorded: a file that holds these very arrays, and that nobody changes: the model becomes another name of it.
        """
        if recorded is not None:
            with contextlib.suppress(OSError):  # not every file system has links
                # Where both were names of one file already, they are left alone, and the new name stays.
                self._put("model.safetensors", lambda partial: os.link(recorded, partial)).unlink(missing_ok=True)
                return
        flat = {name: np.asarray(array, order="C") for name, array in named(arrays).items()}
        self._put("model.safetensors", lambda partial: save_file(flat, partial))

    def put_json(self, name: str, value: object) -> None:
        """Write one JSON file."""
        text = json.dumps(value, ensure_ascii=False, indent=1)
        self._put_bytes(name, text.encode(errors="backslashreplace"))

    def put_text(self, name: str, data: bytes) -> None:
        """Write what a process printed."""
        self._put_bytes(name, data)

    def put_receipt(self, answer: Answer) -> None:
        """Keep a receipt and the inclusion proof beside it."""
        receipt = answer.receipt
        again = f".{receipt.attempt}" if receipt.attempt > 1 else ""
        stem = f"{receipt.round:06d}{again}-{receipt.stage}-{answer.node}"
        self._put_bytes(f"receipts/{stem}.receipt.json", answer.envelope.to_bytes())
        if answer.proof:
            self._put_bytes(f"receipts/{stem}.proof.json", answer.proof)

    def receipts(self) -> dict[str, dict[str, object]]:
        """Of each node, how many receipts there are, and the digest of them all."""
        digests: dict[str, list[str]] = {}
        for path in (self.folder / "receipts").glob("*.receipt.json"):
            envelope = Envelope.from_bytes(path.read_bytes())
            digests.setdefault(str(json.loads(envelope.payload)["node"]), []).append(envelope.digest)
        return {node: {"count": len(held), "digest": receipts_digest(held)} for node, held in sorted(digests.items())}

    def _put_bytes(self, name: str, data: bytes) -> None:
        self._put(name, lambda partial: partial.write_bytes(data))

    def _put(self, name: str, write: Callable[[Path], object]) -> Path:
        partial = self._partial / secrets.token_hex(8)
        try:
            write(partial)
            os.replace(partial, self._place + name)  # noqa: PTH105  # twice a receipt: a path object takes longer
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return partial

    def flush(self) -> None:
        """Make what stands in the folder itself durable: model, metrics, what the server part printed."""
        for path in [*self.folder.iterdir(), self.folder]:
            if path.is_file() or path == self.folder:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def break_off(self, summarise: Callable[[], object]) -> None:
        """After a crash: nothing half-written stays, and a summary says how the job ended.

        Args:
            summarise: writes it.

        Raises:
            UnavailableError: the disk does not take it.
        """
        try:
            shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)
            (self.folder / PARTIAL).mkdir(exist_ok=True)
            summarise()
        except OSError as error:
            raise UnavailableError(
                "a job's result cannot be written: {why}",
                hint="free the disk or mend the folder's permissions, then start again",
                code="disk",
                why=error.strerror or type(error).__name__,
            ) from None

    def restate(self, status: str, reason: str) -> None:
        """Correct the summary, where there is one."""
        path = self.folder / "summary.json"
        if path.is_file():
            self.put_json(path.name, json.loads(path.read_bytes()) | {"status": status, "reason": reason})
            self.flush()

    def put_output(self, path: object, data: memoryview) -> None:
        """Keep one file that the server part left in its working directory.

        Raises:
            ResultError: its path leaves the folder or cannot be a file's, or the caps are reached.
        """
        try:
            relative = result_path(path)
        except FrameError:
            raise ResultError("the server part named a file outside its folder") from None
        if self._bytes + len(data) > RESULT_BYTES or self._files >= RESULT_FILES:
            raise ResultError(
                "the server part left more than {files} files or {size} MiB",
                files=RESULT_FILES,
                size=RESULT_BYTES // 2**20,
            )
        self._bytes += len(data)
        self._files += 1
        target = self.folder / "output" / relative
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError
            self._put(f"output/{relative}", lambda partial: partial.write_bytes(data))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ResultError("the server part named two files of one name") from None
        except OSError as error:
            raise ResultError("a file of the result cannot be written here: {why}", why=error.strerror) from None

    def files(self) -> list[tuple[str, int]]:
        """Name and size of every file that the requester gets, in a fixed order."""
        # What is no part of it is not looked into: a recording goes while the result is already asked for.
        tops = [top for top in sorted(self.folder.iterdir()) if top.name not in _NOT_PART]
        found = []
        for path in (path for top in tops for path in (top, *sorted(top.rglob("*")))):
            if path.is_file() and not path.is_symlink():
                found.append((path.relative_to(self.folder).as_posix(), path.stat().st_size))
        return found


class FileBuffers(Sequence[Buffer]):
    """The bytes of files one after another, each mapped only while it is being sent."""

    def __init__(self, folder: Path, files: Sequence[tuple[str, int]]) -> None:
        self._places = [(folder / name, size) for name, size in files]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Buffer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Buffer]: ...
    def __getitem__(self, index: int | slice) -> Buffer | Sequence[Buffer]:
        if isinstance(index, slice):
            return [_read(*place) for place in self._places[index]]
        return _read(*self._places[index])

    def __iter__(self) -> Iterator[Buffer]:
        return (_read(*place) for place in self._places)


def _read(path: Path, size: int) -> Buffer:
    with path.open("rb") as file:
        if size < _MAP_FROM:
            data = file.read(size)
            if len(data) != size:
                raise ResultError("a file of the result has changed")
            return data
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))

"""A job's result on disk: model, metrics, receipts, the server part's files. Written as files, never loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from coordinator.rounds import Answer
from federation.errors import KeyongError
from federation.jobs.frames import FrameError, result_path

RESULT_BYTES = 1024 * 1024 * 1024
RESULT_FILES = 2000


class ResultError(KeyongError):
    """The server part left more, or other, than a result may hold."""

    code = "result"


class ResultFolder:
    """The growing result of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bytes = 0
        self._files = 0
        for name in ("receipts", "output"):
            (folder / name).mkdir(exist_ok=True)

    def put_model(self, arrays: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Replace the last aggregate; tensors are named as the app named them, with the record's name before where
        there are several records."""
        flat = {
            name if len(arrays) == 1 else f"{record}/{name}": np.ascontiguousarray(array)
            for record, entries in arrays.items()
            for name, array in entries.items()
        }
        partial = self.folder / "model.safetensors.partial"
        save_file(flat, partial)
        partial.replace(self.folder / "model.safetensors")

    def put_json(self, name: str, value: object) -> None:
        """Write one JSON file."""
        (self.folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")

    def put_receipt(self, answer: Answer) -> None:
        """Keep a receipt and the inclusion proof beside it."""
        receipt = answer.receipt
        stem = f"{receipt.round:06d}-{receipt.stage}-{answer.node}"
        (self.folder / "receipts" / f"{stem}.receipt.json").write_bytes(answer.envelope.to_bytes())
        if answer.proof:
            (self.folder / "receipts" / f"{stem}.proof.json").write_bytes(answer.proof)

    def put_output(self, path: object, data: memoryview) -> None:
        """Keep one file that the server part left in its working directory.

        Raises:
            ResultError: its path leaves the folder, or the caps are reached.
        """
        try:
            relative = result_path(path)
        except FrameError:
            raise ResultError("the server part named a file outside its folder") from None
        self._bytes += len(data)
        self._files += 1
        if self._bytes > RESULT_BYTES or self._files > RESULT_FILES:
            raise ResultError("the server part left more than {size} MiB", size=RESULT_BYTES // 2**20)
        target = self.folder / "output" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def files(self) -> list[Path]:
        """Every file of the result, in a fixed order."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith(".partial"))

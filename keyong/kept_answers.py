"""Answers as they came, with the keys that open them: in a home's folder ``queries``, one pair of files for each query.

Whoever can read the folder can read the answers, as their owner could anyway; whoever can change it can make an answer fail to
open, not change what it says.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

from federation.crypto import read_private, write_private
from federation.errors import KeyongError
from federation.home import Home

_HEAD = struct.Struct("<II")


@dataclass(frozen=True)
class KeptAnswer:
    """One answer.

    Attributes:
        nodes: whose vectors are in it.
        secret: the secret context that opens it.
        answer: ciphertexts.
    """

    job: str
    nodes: int
    secret: bytes = field(repr=False)
    answer: bytes = field(repr=False)


class KeptAnswers:
    """The answers of one home."""

    def __init__(self, home: Home) -> None:
        self._folder = home.folder("queries")

    def find(self, identity: str) -> KeptAnswer | None:
        """The answer to the query of this digest; None where there is none that can be read."""
        stem = self._folder / identity.removeprefix("sha256:")
        try:
            secret = read_private(stem.with_suffix(".key"))
            data = stem.with_suffix(".answer").read_bytes()
            size, _ = _HEAD.unpack_from(data)
            about = json.loads(data[_HEAD.size : _HEAD.size + size])
            return KeptAnswer(str(about["job"]), int(about["nodes"]), secret, data[_HEAD.size + size :])
        except (KeyongError, OSError, ValueError, KeyError, struct.error):
            return None

    def keep(self, identity: str, answer: KeptAnswer) -> None:
        """Keep an answer; one that is there for the same query gives way."""
        stem = self._folder / identity.removeprefix("sha256:")
        about = json.dumps({"job": answer.job, "nodes": answer.nodes}).encode()
        write_private(stem.with_suffix(".key"), answer.secret, replace=True)
        write_private(stem.with_suffix(".answer"), _HEAD.pack(len(about), 1) + about + answer.answer, replace=True)

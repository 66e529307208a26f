"""What an owner keeps of a dataset's rules: the key of its pseudonyms and shifts, and the maps of its codes.

Both stay on this machine (0600). Whoever can read the key can test guesses of a value against its pseudonym; whoever can
read a map can read the codes. Whoever can modify them can make new snapshots disagree with old ones, no more.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enterprise_node.rules.model import Pseudonym, Rule, Shift
from federation.errors import KeyongError, UnavailableError

KEY_BYTES: Final = 32
MAX_CODES: Final = 10_000
"""Distinct values that one map takes: a column of more is one of identifiers, which wants pseudonyms."""
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: nothing in it is read as something else."""
_LENGTH: Final = 5
_BUSY_SECONDS: Final = 30.0


class RulesKeyError(UnavailableError):
    """What the rules need is not there: a restored home without its keys, for example."""

    code = "rules-key"


@dataclass(frozen=True)
class Kept:
    """The key and the code maps of one dataset, below a node's home."""

    home: Path
    dataset: str

    @property
    def key_file(self) -> Path:
        """Below ``keys``, so that a backup takes it sealed or not at all."""
        return self.home / "keys" / f"rules-{self.dataset}.key"

    @property
    def maps(self) -> CodeMaps:
        """The code maps."""
        return CodeMaps(self.home / "rules" / f"{self.dataset}.db")

    def ensure_key(self) -> None:
        """Make the key where there is none yet; one that is there stays, for pseudonyms rest on it."""
        from federation.crypto import write_private

        if not self.key_file.exists():
            write_private(self.key_file, secrets.token_bytes(KEY_BYTES))

    def secret(self, rule: Rule, agreement: str) -> bytes:
        """What this rule's pseudonyms or shifts are made with under an agreement (its digest).

        Raises:
            RulesKeyError: the key is gone. None is made in its place: every pseudonym would be another.
        """
        from federation.crypto import read_private

        try:
            key = read_private(self.key_file)
        except KeyongError:
            key = b""
        if len(key) != KEY_BYTES:
            raise RulesKeyError(
                "the key of the dataset's rules is missing",
                hint="restore it from a backup with keys, or set the rules again (`keyong node dataset rules set`)",
            )
        return derive(key, rule, agreement)


def derive(key: bytes, rule: Rule, agreement: str) -> bytes:
    """The secret of one rule: another one for each agreement, unless its scope is the dataset."""
    match rule:
        case Pseudonym(scope=scope):
            purpose = "pseudonym"
        case Shift(days=days, unit=unit, scope=scope):
            purpose = f"shift\0{days}\0{unit}"
        case _:
            return b""
    return hmac.digest(
        key, f"keyong-rules-1\0{purpose}\0{agreement if scope == 'agreement' else ''}".encode(), "sha256"
    )


@dataclass(frozen=True)
class CodeMaps:
    """Value to code, by column and scope, in a small database of the owner's."""

    path: Path

    def codes(self, column: str, scope: str, values: Collection[str]) -> dict[str, str]:
        """The code of each value; new values get theirs here, in an order that says nothing about them.

        Raises:
            UnavailableError: the map would grow beyond what codes are for, or cannot be written.
        """
        try:
            with self._open() as connection:
                connection.execute("BEGIN IMMEDIATE")
                query = "SELECT value, code FROM code WHERE column_name = ? AND scope = ?"
                known: dict[str, str] = dict(connection.execute(query, (column, scope)).fetchall())
                new = [value for value in values if value not in known]
                if len(known) + len(new) > MAX_CODES:
                    raise UnavailableError(
                        "column {name} has more different values than a code map takes ({limit})",
                        hint="use the rule pseudonym for identifiers",
                        code="rules",
                        name=column,
                        limit=MAX_CODES,
                    )
                taken = set(known.values())
                for value in new:
                    while (code := "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))) in taken:
                        pass
                    taken.add(code)
                    known[value] = code
                rows = [(column, scope, value, known[value]) for value in new]
                connection.executemany("INSERT INTO code VALUES (?, ?, ?, ?)", rows)
                connection.execute("COMMIT")
        except sqlite3.Error:
            raise UnavailableError(
                "the owner's code maps cannot be used", hint="look at the disk and the folder's permissions"
            ) from None
        return {value: known[value] for value in values}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Column, scope (an agreement's digest or empty), value and code, all that is kept; the owner's eyes only."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            query = "SELECT column_name, scope, value, code FROM code ORDER BY column_name, scope, value"
            return [(str(a), str(b), str(c), str(d)) for a, b, c, d in connection.execute(query)]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS code (column_name TEXT NOT NULL, scope TEXT NOT NULL, value TEXT NOT NULL, "
                "code TEXT NOT NULL, PRIMARY KEY (column_name, scope, value), UNIQUE (column_name, scope, code)) STRICT"
            )
            yield connection

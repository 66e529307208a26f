"""The search index beside a ledger: derived from it, thrown away and made anew at will, never asked whether anything is true.

For each term (a party, a dataset, an agreement, ...) it holds which entries have it, as one bit an entry in blocks of
65,536. So any combination of terms, how rare or common ever, is a few kilobytes ANDed for each block, and its exact count
as quickly; a page of a million entries takes milliseconds.

What was erased from the ledger must not live on here: an erasure makes the whole index anew (`forget` removes it).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from federation.crypto import make_private_dir
from federation.ledger.store import DATABASE, reading
from keyong.pages.facets import NAMES, Glance, Term, bare
from keyong.pages.tallies import TALLY_SCHEMA, Tallies

FOLDER, FILE = "pages", "index.db"
VERSION = 2
BLOCK = 1 << 16
CHUNK = 4096
_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """CREATE TABLE term (id INTEGER PRIMARY KEY, facet TEXT NOT NULL, value TEXT NOT NULL, bare TEXT NOT NULL,
        count INTEGER NOT NULL, UNIQUE (facet, value)) STRICT""",
    "CREATE INDEX term_bare ON term (bare)",
    """CREATE TABLE posting (term INTEGER NOT NULL, block INTEGER NOT NULL, bits BLOB NOT NULL,
        PRIMARY KEY (term, block)) STRICT, WITHOUT ROWID""",
    *TALLY_SCHEMA,
)

Progress = Callable[[int, int], None]


def forget(home: Path) -> None:
    """Remove a home's index, because something was erased that it may hold; it is made anew when it is needed."""
    for path in sorted((home / FOLDER).glob(f"{FILE}*")):
        path.unlink(missing_ok=True)


class Index:
    """The index of one ledger, in a file of its own (0600: it repeats names and purposes).

    Args:
        ledger: the ledger's folder.
        folder: where the index lies; made where it is missing.
    """

    def __init__(self, ledger: Path, folder: Path) -> None:
        make_private_dir(folder)
        self.path = folder / FILE
        self._database = ledger / DATABASE

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads, or sees an empty index where there is none yet."""
        try:
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            connection.execute("SELECT value FROM meta").fetchone()
        except sqlite3.Error:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            _create(connection)
        with closing(connection):
            connection.execute("BEGIN")
            yield connection

    def bring_up(self, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> int:
        """Bring the index up to the ledger as it is now; returns how many entries it covers.

        Made anew where it is another ledger's, another release's, or where something was erased since.
        """
        with reading(self._database) as ledger, closing(self._writer(ledger)) as connection:
            total = int(ledger.execute("SELECT coalesce(max(idx), -1) + 1 FROM entry").fetchone()[0])
            done = covered(connection)
            while done < total and not stop():
                upto = min(done + CHUNK, total)
                self._take(connection, ledger, done, upto)
                done = upto
                if progress is not None:
                    progress(done, total)
        return done

    def _writer(self, ledger: sqlite3.Connection) -> sqlite3.Connection:
        connection = None
        try:
            connection = self._open()
            if _fits(connection, ledger):
                return connection
        except (sqlite3.Error, ValueError):
            pass  # whatever it is, it is made anew
        if connection is not None:
            connection.close()
        for path in self.path.parent.glob(f"{FILE}*"):
            path.unlink()
        connection = self._open()
        _create(connection)
        return connection

    def _open(self) -> sqlite3.Connection:
        self.path.touch(0o600)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # derived: what is lost is made anew
            connection.execute("PRAGMA secure_delete = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self, connection: sqlite3.Connection, ledger: sqlite3.Connection, start: int, stop: int) -> None:
        terms: dict[Term, dict[int, bytearray]] = {}
        connection.execute("BEGIN IMMEDIATE")
        try:
            tallies = Tallies(connection)
            for glance in glances(ledger, start, stop):
                for term in {*glance.terms(), *tallies.inherited(glance)}:
                    block, offset = divmod(glance.index, BLOCK)
                    bits = terms.setdefault(term, {}).setdefault(block, bytearray(BLOCK // 8))
                    bits[offset >> 3] |= 1 << (offset & 7)
                tallies.take(glance)
            tallies.write()
            for term, blocks in terms.items():
                _write(connection, term, blocks)
            _note(connection, ledger, stop)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def glances(ledger: sqlite3.Connection, start: int, stop: int) -> Iterator[Glance]:
    """What can be read of the entries ``start`` to before ``stop``, damaged or not."""
    found = {
        index: Glance(index, str(kind), str(time))
        for index, kind, time in ledger.execute(
            "SELECT idx, kind, time FROM entry WHERE idx >= ? AND idx < ?", (start, stop)
        )
    }
    names = ",".join("?" * len(NAMES))
    for index, name, form, payload in ledger.execute(
        f"SELECT idx, name, form, payload FROM field WHERE idx >= ? AND idx < ? AND name IN ({names})",  # noqa: S608
        (start, stop, *NAMES),
    ):
        if index in found:
            found[index].take(name, form, payload)
    yield from found.values()


def covered(connection: sqlite3.Connection) -> int:
    """How many entries an index covers."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'size'").fetchone()
    return int(row[0]) if row else 0


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))


def _fits(connection: sqlite3.Connection, ledger: sqlite3.Connection) -> bool:
    """Whether an index is of this ledger and of this release, and nothing was erased since."""
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if meta.get("version") != str(VERSION):
        return False
    size = int(meta.get("size", 0))
    if size and _leaf(ledger, size - 1) != meta.get("leaf"):
        return False
    return not ledger.execute("SELECT 1 FROM entry WHERE kind = 'erasure' AND idx >= ? LIMIT 1", (size,)).fetchone()


def _leaf(ledger: sqlite3.Connection, index: int) -> str:
    row = ledger.execute("SELECT leaf FROM entry WHERE idx = ?", (index,)).fetchone()
    return row[0].hex() if row and isinstance(row[0], bytes) else ""


def _note(connection: sqlite3.Connection, ledger: sqlite3.Connection, size: int) -> None:
    values = [("size", str(size)), ("leaf", _leaf(ledger, size - 1))]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)


def _write(connection: sqlite3.Connection, term: Term, blocks: dict[int, bytearray]) -> None:
    count = sum(int.from_bytes(bits).bit_count() for bits in blocks.values())
    (key,) = connection.execute(
        "INSERT INTO term (facet, value, bare, count) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (facet, value) DO UPDATE SET count = count + excluded.count RETURNING id",
        (*term, bare(term[1]), count),
    ).fetchone()
    for block, bits in blocks.items():
        merged = int.from_bytes(bits, "little") | postings(connection, (key,), block)
        data = zlib.compress(merged.to_bytes(BLOCK // 8, "little"), 1)
        connection.execute("INSERT OR REPLACE INTO posting VALUES (?, ?, ?)", (key, block, data))


def postings(connection: sqlite3.Connection, keys: Iterable[int], block: int) -> int:
    """The entries of a block that have any of these terms, as one bit each."""
    found = 0
    for key in keys:
        row = connection.execute("SELECT bits FROM posting WHERE term = ? AND block = ?", (key, block)).fetchone()
        if row is not None:
            found |= int.from_bytes(zlib.decompress(row[0]), "little")
    return found

"""Features kept between runs in an SQLite file, `features.db`: bytes by key, bounded, and never in training's way.

Several processes may use one file. What is damaged is put aside and begun anew, a row that does not match its checksum
is not there, and where nothing can be written (a full disk) training goes on without keeping: each said on stderr.
"""

import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from classifier.mistake import Mistake

DATABASE = "features.db"
# SQLite's field for telling one application's files from another's: "feat".
APPLICATION = 0x66656174
SCHEMA = (
    # Apart from the bytes, so that to note the use of a row does not write it again.
    "CREATE TABLE entry (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used REAL NOT NULL)",
    "CREATE INDEX entry_used ON entry (used)",
    "CREATE TABLE features (id INTEGER PRIMARY KEY REFERENCES entry ON DELETE CASCADE,"
    " row BLOB NOT NULL, checksum INTEGER NOT NULL)",
    f"PRAGMA application_id = {APPLICATION}",
)
BUSY_SECONDS = 60
EVICTED_TOGETHER = 256


class Foreign(sqlite3.DatabaseError):
    """The file is somebody else's database."""


class FeatureCache:
    """The file in `folder`, at most `limit` bytes of it; `given`, a folder whose file is only read, comes first.

    Raises Mistake where `given` has no such file.
    """

    def __init__(self, folder: Path | None, limit: int, given: Path | None = None):
        self._limit, self._began = limit, time.time()
        self._given = self._open_given(given / DATABASE) if given else None
        self._path, self._own = None, None
        if folder:
            self._path = folder / DATABASE
            with self._survived("opened"):
                folder.mkdir(parents=True, exist_ok=True)
                self._own = self._open()

    def __enter__(self) -> "FeatureCache":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (self._given, self._own):
            if connection:
                connection.close()

    def __str__(self) -> str:
        """How full it is, for people."""
        if not self._own:
            return "no feature cache is kept"
        with suppress(sqlite3.DatabaseError):
            (rows,) = self._own.execute("SELECT count(*) FROM entry").fetchone()
            megabytes = _size(self._own) / 1e6
            return f"{self._path}: {rows} rows, {megabytes:.1f} MB of at most {self._limit / 1e6:.0f} MB"
        return f"{self._path} cannot be read"

    def get(self, keys: Collection[bytes]) -> dict[bytes, bytes]:
        """The rows that are there, by key; that they were used is noted."""
        found = {}
        if self._given:
            try:
                found = dict(_rows(self._given, keys))
            except sqlite3.DatabaseError as error:
                _say(f"--features: {error}; it is not read further")
                self._given = None
        if self._own:
            with self._survived("read"):
                own = dict(_rows(self._own, (key for key in keys if key not in found)))
                found |= own
                with _transaction(self._own):
                    used = "UPDATE entry SET used = ? WHERE key = ?"
                    self._own.executemany(used, [(time.time(), key) for key in own])
        return found

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep these rows by their keys, and forget those used longest ago where the file would become too large.

        In one transaction: a process that is killed leaves all of them or none.
        """
        before = self._own
        self._put(rows)
        if self._own is not before:
            # It was damaged; these rows are the new file's first.
            self._put(rows)

    def _put(self, rows: Mapping[bytes, bytes]) -> None:
        if not rows or not self._own:
            return
        with self._survived("written"), _transaction(self._own):
            note = (
                "INSERT INTO entry (key, used) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET used = excluded.used"
                " RETURNING id"
            )
            for key, row in rows.items():
                ((number,),) = self._own.execute(note, (key, time.time())).fetchall()
                values = (number, row, _checksum(key, row))
                self._own.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", values)
            self._evict(self._own)

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Only what this run has not used: were that not enough, it would push out what it has just computed."""
        while _size(connection) > self._limit:
            oldest = "SELECT id FROM entry WHERE used < ? ORDER BY used, id LIMIT ?"
            gone = connection.execute(f"DELETE FROM entry WHERE id IN ({oldest})", (self._began, EVICTED_TOGETHER))
            if not gone.rowcount:
                raise OSError(f"the {self._limit / 1e9:g} GB of --feature-cache-gb are used up")

    def _open(self) -> sqlite3.Connection:
        self._inode = _inode(self._path)
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            # A kill cannot harm it so either; after a power cut what is damaged is computed again.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA foreign_keys = ON")
            # Of use before the first table exists only: the file shrinks with its content.
            connection.execute("PRAGMA auto_vacuum = FULL")
            with _transaction(connection):
                if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                    for statement in SCHEMA:
                        connection.execute(statement)
                _require_ours(connection)
                # The limit may have been higher.
                self._evict(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_given(self, path: Path) -> sqlite3.Connection | None:
        if not path.is_file():
            raise Mistake(f"--features {path.parent}: there is no {DATABASE} in it; give another run's --feature-cache")
        try:
            # Immutable: no lock and no journal, which a read-only file system could not have.
            connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
            _require_ours(connection)
            return connection
        except sqlite3.DatabaseError as error:
            _say(f"--features {path}: {error}; it is not used")
            return None

    @contextmanager
    def _survived(self, done: str) -> Iterator[None]:
        """Whatever the file or the disk has, training goes on: with a new file, or without any."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            if self._own:
                self._own.close()
                self._own = None
            if not _is_damage(error):
                _say(f"feature cache {self._path} cannot be {done}: {error}; training goes on without keeping features")
                return
            _say(f"feature cache {self._path}: {error}; it is kept as {DATABASE}.damaged and begun anew")
            with self._survived("begun anew"):
                self._set_aside()
                self._own = self._open()

    def _set_aside(self) -> None:
        if _inode(self._path) != self._inode:
            return  # Another process was quicker, and what lies there is its new file.
        os.replace(self._path, self._path.with_name(f"{DATABASE}.damaged"))
        # The journal of the old file would be rolled back into the new one.
        self._path.with_name(f"{DATABASE}-journal").unlink(missing_ok=True)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors.
        with suppress(sqlite3.DatabaseError):
            connection.execute("ROLLBACK")
        raise


def _require_ours(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION:
        raise Foreign("not a feature cache")


def _rows(connection: sqlite3.Connection, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    select = "SELECT row, checksum FROM features JOIN entry USING (id) WHERE key = ?"
    for key in keys:
        row, checksum = connection.execute(select, (key,)).fetchone() or (b"", None)
        # Of the key too: a row in another's place is as wrong as a changed one.
        if checksum == _checksum(key, row):
            yield key, row


def _checksum(key: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(key))


def _size(connection: sqlite3.Connection) -> int:
    pages, free, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * page_size


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _is_damage(error: Exception) -> bool:
    # The low byte is the kind; the rest says where SQLite noticed.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, Foreign) or kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)

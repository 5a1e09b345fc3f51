"""Stores of the ledger of the rate limit: in a file of this user, in PostgreSQL, and in memory as a fallback."""

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.client.rate_limiter import (
    Ledger,
    LedgerChange,
    MemoryRateLimitStore,
    RateLimitStore,
    StoreUnavailable,
)
from later_reporting_dagster.contract.safe_line import safe_line

try:
    import psycopg2
    from psycopg2.errors import DuplicateObject, DuplicateTable, UniqueViolation
    from psycopg2.extensions import parse_dsn
except ModuleNotFoundError:  # of the extra `postgres`
    psycopg2 = None

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002
RETRY_SECONDS = 60.0


@dataclass(eq=False, slots=True)
class FallbackRateLimitStore:
    """Counts the requests of this process only while a shared store is unavailable, so that no request fails."""

    shared: RateLimitStore
    shared_with: str
    clock: Callable[[], float] = time.time
    _retry_at: float | None = field(default=None, init=False)
    _memory: MemoryRateLimitStore = field(init=False)

    def __post_init__(self) -> None:
        self._memory = MemoryRateLimitStore(clock=self.clock)

    async def update(self, change: LedgerChange) -> None:
        if self._retry_at is None or self.clock() >= self._retry_at:
            try:
                await self.shared.update(change)
            except StoreUnavailable as error:
                if self._retry_at is None:
                    logger.warning("the rate limit is not shared with other %s: %s", self.shared_with, error)
                self._retry_at = self.clock() + RETRY_SECONDS
            else:
                if self._retry_at is not None:
                    logger.info("the rate limit is shared with other %s again", self.shared_with)
                self._retry_at = None
                return
        await self._memory.update(change)

    def close(self) -> None:
        self.shared.close()


def rate_limit_state_path(base_url: str) -> Path | None:
    """Return the file in which the processes of this user share reservations for the host of `base_url`.

    None if the user has neither a cache folder nor a home, as in some containers.
    """
    host = hashlib.sha256(validate_base_url(base_url).encode()).hexdigest()[:16]
    is_mac = sys.platform == "darwin"
    try:
        cache_of_user = "" if is_mac else os.environ.get("XDG_CACHE_HOME")
        folder = Path(cache_of_user) if cache_of_user else Path.home() / ("Library/Caches" if is_mac else ".cache")
    except RuntimeError:
        # The folder for temporary files is not a substitute: another user could have created the file there.
        return None
    return folder / "later-reporting" / f"rate-{host}"


class FileRateLimitStore:
    """Stores the ledger in a file; unavailable without a path."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        if self._path is None:
            raise StoreUnavailable("no cache folder; set HOME or XDG_CACHE_HOME")
        # In a thread, because another process may have locked the file.
        await asyncio.to_thread(self._update, self._path, change)

    def close(self) -> None:
        pass  # the file is open during an update only

    def _update(self, path: Path, change: LedgerChange) -> None:
        try:
            with _open_private(path) as stream:
                _lock(stream)
                ledger = Ledger.from_bytes(stream.read())
                change(ledger, self._clock())
                stream.seek(0)
                stream.write(ledger.to_bytes())
                stream.truncate()
        except OSError as error:
            raise StoreUnavailable(f"{path}: {error}") from error


def _open_private(path: Path) -> BinaryIO:
    """Open a file for reading and writing; create it and its folder if absent. Links are not followed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.parent.lstat()  # the mode of a link is 0777
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "must belong to this user and not be writable by others", str(path.parent))
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")


def _lock(stream: BinaryIO) -> None:
    """Lock a file until it is closed."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("stays locked") from None
        time.sleep(LOCK_POLL_SECONDS)


EXAMPLE = "postgresql://user:password@host:5432/database"


class StoreUrl:
    """The URL of a PostgreSQL database. Messages do not quote it, because it may contain a password."""

    def __init__(self, text: str) -> None:
        if psycopg2 is None:
            raise ValueError("psycopg2 is not installed: pip install 'later-reporting-dagster[postgres]'")
        self.text = text
        try:
            self._parts = parse_dsn(text) if "://" in text else {}
        except psycopg2.ProgrammingError:
            self._parts = {}
        # An @ in the database: the password has an unescaped slash, and what is before it looks like a port.
        if not self._parts.get("host") or "@" in self._parts.get("dbname", ""):
            raise ValueError(
                f"must be empty, or a URL such as {EXAMPLE}; in user and password, write @ : / ? # as %40 %3A %2F %3F"
                " %23"
            )

    def __str__(self) -> str:
        """Return host, port and database, without user, password and options."""
        host, port, database = (self._parts.get(name, "") for name in ("host", "port", "dbname"))
        return f"postgresql://{host}{port and f':{port}'}/{database}"

    def describe(self, error: Exception) -> str:
        """Return the first line of an error without password and options of the URL."""
        shown = ("user", "host", "port", "dbname")
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return safe_line(lines[0], [value for name, value in self._parts.items() if name not in shown])


CONNECT_TIMEOUT_SECONDS = 3
# Notice within seconds that the network to the server is gone.
TCP_OPTIONS = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 5000}
CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS later_reporting_rate_limit (
    host text PRIMARY KEY, ledger bytea NOT NULL, updated_at timestamptz NOT NULL
)
"""
CREATE_ROW = "INSERT INTO later_reporting_rate_limit VALUES (%s, '', clock_timestamp()) ON CONFLICT DO NOTHING"
# One round trip. A client that freezes or loses its network between the statements loses the lock on the row after a
# few seconds; that of a killed process is released at once. A crash of the server may lose the last reservations,
# which is better than a write to its disk for each request. The time is read after the row is locked, because the
# outer SELECT starts with the row of the inner one.
BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = off;
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '3s';
WITH locked AS MATERIALIZED (SELECT ledger FROM later_reporting_rate_limit WHERE host = %s FOR UPDATE)
SELECT ledger, extract(epoch FROM clock_timestamp())::float8 FROM locked
"""
COMMIT = "UPDATE later_reporting_rate_limit SET ledger = %s, updated_at = clock_timestamp() WHERE host = %s; COMMIT"


class PostgresRateLimitStore:
    """Stores the ledger in a row of the table `later_reporting_rate_limit`, which is created if absent.

    An update locks the row for one round trip of two.
    """

    def __init__(self, url: StoreUrl, *, host: str) -> None:
        self._url = url
        self._host = host
        self._connection: Any = None
        # A cancelled update goes on in its thread while the next one starts.
        self._lock = threading.Lock()

    async def update(self, change: LedgerChange) -> None:
        await asyncio.to_thread(self._update, change)

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _update(self, change: LedgerChange) -> None:
        with self._lock:
            was_connected = self._connection is not None
            try:
                try:
                    self._update_once(change)
                except (psycopg2.OperationalError, psycopg2.InterfaceError):
                    # The server may have closed a connection that was idle.
                    self._disconnect()
                    if not was_connected:
                        raise
                    self._update_once(change)
            # psycopg2 raises the latter if the server rejects a connection with a text that is not UTF-8.
            except (psycopg2.Error, UnicodeDecodeError) as error:
                self._disconnect()
                raise StoreUnavailable(f"{self._url}: {self._url.describe(error)}") from None

    def _update_once(self, change: LedgerChange) -> None:
        if self._connection is None:
            self._connect()
        with self._connection.cursor() as cursor:
            cursor.execute(BEGIN, (self._host,))
            row = cursor.fetchone()
            if row is None:
                raise psycopg2.OperationalError("the row has been deleted")  # the next connection creates it
            data, now = row
            ledger = Ledger.from_bytes(bytes(data))
            change(ledger, now)
            cursor.execute(COMMIT, (ledger.to_bytes(), self._host))

    def _connect(self) -> None:
        self._connection = psycopg2.connect(self._url.text, connect_timeout=CONNECT_TIMEOUT_SECONDS, **TCP_OPTIONS)
        self._connection.autocommit = True  # the statements contain BEGIN and COMMIT, which saves round trips
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('later_reporting_rate_limit')")
            if cursor.fetchone() == (None,):
                # Another machine may create it at the same moment, which IF NOT EXISTS does not cover.
                with suppress(UniqueViolation, DuplicateObject, DuplicateTable):
                    cursor.execute(CREATE_TABLE)
            cursor.execute(CREATE_ROW, (self._host,))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def rate_limit_store(url: str, *, base_url: str, clock: Callable[[], float] = time.time) -> RateLimitStore:
    """Return the store in which requests to the host of `base_url` are counted.

    Args:
        url: PostgreSQL, shared by machines; empty for a file of this user on this machine. While it is unavailable, a
            warning is logged, and this process counts its own requests only.
    """
    if url:
        return FallbackRateLimitStore(shared_rate_limit_store(url, base_url=base_url), "machines", clock)
    local = FileRateLimitStore(rate_limit_state_path(base_url), clock=clock)
    return FallbackRateLimitStore(local, "processes", clock)


def shared_rate_limit_store(url: str, *, base_url: str) -> RateLimitStore:
    """Return a store in PostgreSQL, without a fallback. Nothing is connected yet."""
    host = httpx.URL(validate_base_url(base_url)).netloc.decode()
    return PostgresRateLimitStore(StoreUrl(url), host=host)

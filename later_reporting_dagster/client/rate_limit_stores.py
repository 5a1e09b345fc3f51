"""Stores of the ledger of the rate limit: in a file of this user, in PostgreSQL, and another store as a fallback."""

import asyncio
import errno
import fcntl
import hashlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.client.rate_limiter import (
    Ledger,
    LedgerChange,
    MemoryRateLimitStore,
    RateLimitStore,
    StoreUnavailable,
)
from later_reporting_dagster.contract.redaction import redact

try:
    import psycopg2
except ModuleNotFoundError:  # of the extra `postgres`
    psycopg2 = None

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing; create it and its folder if absent."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_private(folder, path.parent)
        # Relative to the checked folder, because the path may point elsewhere by now.
        file = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "r+b") as stream:
        _check_private(file, path)
        yield stream


def _check_private(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "must belong to this user and not be writable by others", str(path))


class FallbackRateLimitStore:
    """Uses another store while the first one is unavailable, so that no request fails because of it."""

    def __init__(
        self,
        first: RateLimitStore,
        fallback: RateLimitStore,
        *,
        shared_with: str,
        retry_seconds: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._first = first
        self._fallback = fallback
        self._shared_with = shared_with
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._retry_at: float | None = None

    async def update(self, change: LedgerChange) -> None:
        if self._retry_at is None or self._clock() >= self._retry_at:
            try:
                await self._first.update(change)
            except StoreUnavailable as error:
                if self._retry_at is None:
                    logger.warning("the rate limit is not shared with other %s: %s", self._shared_with, error)
                self._retry_at = self._clock() + self._retry_seconds
            else:
                if self._retry_at is not None:
                    logger.info("the rate limit is shared with other %s again", self._shared_with)
                self._retry_at = None
                return
        await self._fallback.update(change)

    def close(self) -> None:
        self._first.close()
        self._fallback.close()


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
        _warn_once("the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME")
        return None
    return folder / "later-reporting" / f"rate-{host}"


_warn_once = cache(logger.warning)


class FileRateLimitStore:
    """Stores the ledger in a file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger, without blocking the event loop while another process has locked the file."""
        try:
            self._update(change, timeout_seconds=0)
        except BlockingIOError:
            try:
                await asyncio.to_thread(self._update, change, timeout_seconds=LOCK_TIMEOUT_SECONDS)
            except BlockingIOError:
                raise StoreUnavailable(f"{self._path} stays locked") from None

    def close(self) -> None:
        pass  # the file is open during an update only

    def _update(self, change: LedgerChange, *, timeout_seconds: float) -> None:
        try:
            with private_file(self._path) as stream:
                _lock(stream, timeout_seconds=timeout_seconds)
                ledger = Ledger.from_bytes(stream.read())
                change(ledger, self._clock())
                stream.seek(0)
                stream.write(ledger.to_bytes())
                stream.truncate()
        except BlockingIOError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error


def _lock(stream: BinaryIO, *, timeout_seconds: float) -> None:
    """Lock a file until it is closed; raise `BlockingIOError` if it stays locked for longer than the timeout."""
    for attempts_left in range(int(timeout_seconds / LOCK_POLL_SECONDS), -1, -1):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempts_left == 0:
                raise
            time.sleep(LOCK_POLL_SECONDS)


EXAMPLE = "postgresql://user:password@host:5432/database"
RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """The URL of a PostgreSQL database.

    Raises:
        ValueError: it is not such a URL. The message does not quote it, because it may contain a password.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.text)
            # An @ after the host: the password has an unescaped / ? or #, and what is before it looks like a port.
            rest = self.text.partition("://")[2].removeprefix(parts.netloc)
            is_valid = parts.scheme in ("postgresql", "postgres") and bool(parts.hostname) and "@" not in rest
            _ = parts.port
        except ValueError:
            is_valid = False
        if not is_valid or any(character <= " " for character in self.text):
            raise ValueError(
                f"must be empty, or a URL such as {EXAMPLE}; in user and password, write @ : / ? # as %40 %3A %2F %3F"
                " %23"
            )

    def __str__(self) -> str:
        """Return scheme, host, port and path, without user, password and options."""
        parts = urlsplit(self.text)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def redact(self, error: Exception) -> str:
        """Return the first line of an error without password and options of the URL."""
        parts = urlsplit(self.text)
        secrets = [parts.password or "", parts.query]
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return redact(lines[0], [*secrets, *map(unquote, secrets)])


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
            except psycopg2.Error as error:
                self._disconnect()
                raise StoreUnavailable(f"{self._url}: {self._url.redact(error)}") from None

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
                with suppress(psycopg2.IntegrityError):
                    cursor.execute(CREATE_TABLE)
            cursor.execute(CREATE_ROW, (self._host,))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def rate_limit_store(url: str, *, base_url: str, clock: Callable[[], float] = time.time) -> RateLimitStore:
    """Return the store in which requests to the host of `base_url` are counted.

    Args:
        url: PostgreSQL, shared by machines; empty for a file of this user on this machine. While the server is
            unavailable, a warning is logged and the file is used; if that is unavailable too, this process counts its
            own requests only.
    """
    store = local_rate_limit_store(rate_limit_state_path(base_url), clock=clock)
    if not url:
        return store
    return FallbackRateLimitStore(
        shared_rate_limit_store(url, base_url=base_url),
        store,
        shared_with="machines",
        retry_seconds=RETRY_SECONDS,
        clock=clock,
    )


def local_rate_limit_store(path: Path | None, *, clock: Callable[[], float] = time.time) -> RateLimitStore:
    """Return a store in a file, with memory as its fallback; a store in memory if `path` is None."""
    memory = MemoryRateLimitStore(clock=clock)
    if path is None:
        return memory
    file = FileRateLimitStore(path, clock=clock)
    return FallbackRateLimitStore(file, memory, shared_with="processes", clock=clock)


def shared_rate_limit_store(url: str, *, base_url: str) -> RateLimitStore:
    """Return a store in PostgreSQL, without a fallback. Nothing is connected yet."""
    store_url = StoreUrl(url)
    host = httpx.URL(validate_base_url(base_url)).netloc.decode()
    if psycopg2 is None:
        raise ValueError("psycopg2 is not installed: pip install 'later-reporting-dagster[postgres]'")
    return PostgresRateLimitStore(store_url, host=host)

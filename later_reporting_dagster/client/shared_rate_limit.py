"""The store of the rate limit that its URL names: a file of this user, or a row of a PostgreSQL database."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.client.rate_limit_stores import (
    FallbackRateLimitStore,
    FileRateLimitStore,
    rate_limit_state_path,
)
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

"""The ledger of the rate limit in a row of a PostgreSQL database, shared by machines."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import psycopg2

from later_reporting_dagster.client.rate_ledger import Ledger
from later_reporting_dagster.client.rate_limit_store import LedgerChange, StoreUnavailable
from later_reporting_dagster.client.store_url import StoreUrl

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

    Args:
        url: address of the database.
        host: key of the row.
    """

    def __init__(self, url: StoreUrl, *, host: str) -> None:
        self._url = url
        self._host = host
        self._connection: Any = None
        # A cancelled update goes on in its thread while the next one starts.
        self._lock = threading.Lock()

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger, in another thread.

        Raises:
            StoreUnavailable: the database cannot be reached, or refuses the statements.
        """
        await asyncio.to_thread(self._update, change)

    def close(self) -> None:
        """Close the connection."""
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
            if not isinstance(data, memoryview):
                raise psycopg2.DataError("the column ledger of later_reporting_rate_limit is not of type bytea")
            ledger = Ledger.from_bytes(bytes(data))
            change(ledger, now)
            cursor.execute(COMMIT, (ledger.to_bytes(), self._host))

    def _connect(self) -> None:
        self._connection = psycopg2.connect(self._url.text, connect_timeout=CONNECT_TIMEOUT_SECONDS, **TCP_OPTIONS)
        self._connection.autocommit = True  # the statements contain BEGIN and COMMIT, which saves round trips
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('later_reporting_rate_limit')")
            if cursor.fetchone() == (None,):
                self._create_table(cursor)
            cursor.execute(CREATE_ROW, (self._host,))

    def _create_table(self, cursor: Any) -> None:
        # Another machine may create it at the same moment, which IF NOT EXISTS does not cover.
        with suppress(psycopg2.IntegrityError):
            cursor.execute(CREATE_TABLE)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

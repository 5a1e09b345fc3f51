"""The ledger of the rate limit under a key of a Redis server, shared by machines."""

import asyncio
import time

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from later_reporting_dagster.client.rate_ledger import Ledger
from later_reporting_dagster.client.rate_limit_store import LedgerChange, StoreUnavailable
from later_reporting_dagster.client.store_url import StoreUrl

TIMEOUT_SECONDS = 3.0
# How long an update may be overtaken by those of others.
CONTENTION_TIMEOUT_SECONDS = 10.0
# Longer than any window or pause, so that only keys of hosts that are no longer used expire.
EXPIRY_SECONDS = 86_400
# A value that is no ledger, so that the first call of the script only reads.
READ_ONLY = b"?"
# Replaces the ledger if it is still the expected one; else returns it with the time. The time of the server is the
# clock that all machines share.
COMPARE_AND_SET = """
local stored = redis.call('GET', KEYS[1]) or ''
if stored == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    return false
end
local time = redis.call('TIME')
return {stored, time[1], time[2]}
"""


class RedisRateLimitStore:
    """Stores the ledger under a key of a Redis server.

    An update reads the ledger, and replaces it if nobody else has done so in between: two round trips, and one more for
    each time that another machine was faster. Nothing is locked, so a machine that dies holds nothing.

    Args:
        url: address of the server.
        key: the key.

    Raises:
        ValueError: an option in the URL is invalid.
    """

    def __init__(self, url: StoreUrl, *, key: str) -> None:
        self._url = url
        self._key = key
        try:
            self._redis = redis.Redis.from_url(
                url.text,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                # The server may have closed a connection that was idle.
                retry=Retry(ConstantBackoff(0.05), 1),
            )
        except (ValueError, TypeError, redis.RedisError) as error:
            raise ValueError(url.redact(error)) from None
        self._compare_and_set = self._redis.register_script(COMPARE_AND_SET)

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger, in another thread.

        Raises:
            StoreUnavailable: the server cannot be reached, or refuses the commands.
        """
        await asyncio.to_thread(self._update, change)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _update(self, change: LedgerChange) -> None:
        deadline = time.monotonic() + CONTENTION_TIMEOUT_SECONDS
        stored, new = READ_ONLY, b""
        try:
            while response := self._compare_and_set(keys=[self._key], args=[stored, new, EXPIRY_SECONDS]):
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"{self._url}: other machines were faster for too long")
                stored, seconds, microseconds = response
                ledger = Ledger.from_bytes(stored)
                change(ledger, int(seconds) + int(microseconds) / 1e6)
                new = ledger.to_bytes()
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"{self._url}: {self._url.redact(error)}") from None

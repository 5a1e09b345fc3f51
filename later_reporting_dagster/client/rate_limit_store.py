"""Where the ledger of the rate limit is stored: what all stores have in common, a store in memory, and fallbacks."""

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from later_reporting_dagster.client.rate_ledger import Ledger

logger = logging.getLogger(__name__)

LedgerChange = Callable[[Ledger, float], None]


class StoreUnavailable(Exception):  # noqa: N818 - a state of the store, not a bug
    """A store of the rate limit cannot be used. The message names the store and the reason, without secrets."""


class RateLimitStore(Protocol):
    """Stores the ledger that several processes or machines share.

    Calls do not block the event loop for longer than it takes to read and write a small file.
    """

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger; changes of all processes happen one after the other.

        Args:
            change: called with the ledger and the current time, both on the clock of the store. It may be called again
                with a newer ledger, perhaps in another thread; only its last call counts.

        Raises:
            StoreUnavailable: the store cannot be used.
        """
        ...

    def close(self) -> None:
        """Close connections, if any. The next update opens them again."""
        ...


class MemoryRateLimitStore:
    """Stores the ledger of one process in memory."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = Ledger()
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger."""
        change(self._ledger, self._clock())

    def close(self) -> None:
        """Do nothing."""


class FallbackRateLimitStore:
    """Uses another store while the first one is unavailable, so that no request fails because of it.

    The other store takes over the reservations that this process has seen in the first one.

    Args:
        first: the store to use.
        fallback: the store to use while `first` is unavailable.
        shared_with: who shares the first store but not the other one, for the warning.
        retry_seconds: how long after a failure the first store is tried again.
        clock: returns seconds since any time.
    """

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
        # The last ledger of the first store, as bytes because changes modify it, and how far its clock was ahead.
        self._last_seen = (Ledger().to_bytes(), 0.0)

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger of the first store, or else of the other one."""

        def change_and_remember(ledger: Ledger, now: float) -> None:
            change(ledger, now)
            self._last_seen = (ledger.to_bytes(), now - self._clock())

        if self._retry_at is None or self._clock() >= self._retry_at:
            try:
                await self._first.update(change_and_remember)
            except StoreUnavailable as error:
                await self._switch_to_fallback(error)
            else:
                if self._retry_at is not None:
                    logger.info("the rate limit is shared with other %s again", self._shared_with)
                self._retry_at = None
                return
        await self._fallback.update(change)

    async def _switch_to_fallback(self, error: StoreUnavailable) -> None:
        is_new = self._retry_at is None
        self._retry_at = self._clock() + self._retry_seconds
        if not is_new:
            return
        logger.warning("the rate limit is not shared with other %s: %s", self._shared_with, error)

        def take_over(ledger: Ledger, now: float) -> None:
            data, ahead_seconds = self._last_seen
            ledger.merge(Ledger.from_bytes(data), ahead_seconds=ahead_seconds - (now - self._clock()))

        await self._fallback.update(take_over)

    def close(self) -> None:
        """Close the connections of both stores."""
        self._first.close()
        self._fallback.close()

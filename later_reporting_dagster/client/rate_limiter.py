"""Rate limiter that processes and machines share.

They share it because the API counts requests per IP address (docs/api.md, "Rate limit"). Each request reserves a slot
in a ledger (`rate_ledger.py`), which a store (`rate_limit_store.py`) keeps, and starts at that time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from later_reporting_dagster.client.rate_ledger import MAX_PAUSE_SECONDS, Ledger, Rate
from later_reporting_dagster.client.rate_limit_store import MemoryRateLimitStore, RateLimitStore

logger = logging.getLogger(__name__)

# A stated limit with more seconds per request than this is applied with a warning.
SLOW_SECONDS_PER_REQUEST = 10
# A header may hold any number; the ledger stores doubles, which are exact up to this one.
MAX_STATED_LIMIT = 2**53


@dataclass(frozen=True, slots=True)
class _Slot:
    """A reserved slot, on the clock of the store and on that of the limiter."""

    store_time: float
    local_time: float


class RateLimiter:
    """Rate limit of `requests` in any `window_seconds`, over all processes that share `store`.

    Args:
        requests: the user's limit. The limit that the API states in a response to any of the processes applies too.
        window_seconds: the window of `requests`.
        store: where reservations are stored; None to count the requests of this limiter only.
        clock: returns seconds since the epoch.
        sleep: waits for a number of seconds.

    Raises:
        ValueError: the limit is below 1, or the window is not between 0 and an hour.
    """

    def __init__(
        self,
        *,
        requests: int,
        window_seconds: float = 60.0,
        store: RateLimitStore | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._user_rate = Rate(requests, window_seconds)
        if not self._user_rate.is_valid:
            raise ValueError(
                f"a rate limit must be at least 1 request in 0 to 3600 s, not {requests} in {window_seconds} s"
            )
        # The limit that the API stated last in a response to this process, and when, on the clock of the limiter.
        self._stated: tuple[Rate, float] | None = None
        self._store = store or MemoryRateLimitStore(clock=clock)
        self._clock = clock
        self._sleep = sleep
        # The end of the last pause that an update has seen, on the clock of the store.
        self._not_before = 0.0
        # Requests without a slot, in the order of the calls. One update reserves slots for all of them, so that a slow
        # store does not make them wait for each other.
        self._waiting: dict[asyncio.Future[_Slot], None] = {}
        self._updating = asyncio.Lock()

    @property
    def window_seconds(self) -> float:
        """The window of the limit that the API states; until it states one, the window of the user's limit."""
        rate = self._stated[0] if self._stated else self._user_rate
        return rate.window_seconds

    def close(self) -> None:
        """Close the connections of the store. The next update opens them again."""
        self._store.close()

    async def acquire(self, *, on_wait: Callable[[float], object] | None = None) -> float:
        """Wait until a request may start, in the order of the calls; return the seconds waited.

        Args:
            on_wait: called before each wait, with its length in seconds.
        """
        called_at = self._clock()
        while True:
            slot = await self._reserve()
            wait = slot.local_time - self._clock()
            if on_wait is not None and wait > 0:
                on_wait(wait)
            while wait > 0:
                await self._sleep(wait)
                left = slot.local_time - self._clock()
                if left >= wait:
                    break  # the clock was set back during the sleep; the sleep itself took the whole wait
                wait = left
            # If a pause began during the wait and lasts beyond this slot, the loop reserves another slot.
            if self._not_before <= slot.store_time:
                return max(0.0, self._clock() - called_at)

    def set_stated_limit(self, *, limit: int, window_seconds: float) -> None:
        """Apply the limit that a response states, in addition to the limit of the user.

        The next reservation stores it for all processes.
        """
        stated = Rate(min(limit, MAX_STATED_LIMIT), window_seconds)
        if not stated.is_valid:
            return
        before, self._stated = self._stated, (stated, self._clock())
        if (before is None or before[0] != stated) and window_seconds > SLOW_SECONDS_PER_REQUEST * limit:
            text = f"{limit} requests in {window_seconds:g} s"
            logger.warning("the API states a rate limit of %s, which is applied: fetching will be very slow", text)

    async def pause(self, seconds: float) -> None:
        """Postpone the requests of all processes by `seconds`, after a 429.

        Requests of other processes that have reserved a slot already may still start.
        """
        until = self._clock() + min(max(seconds, 0.0), MAX_PAUSE_SECONDS)

        def postpone(ledger: Ledger, now: float) -> None:
            ledger.postpone(until + (now - self._clock()))
            self._not_before = ledger.not_before

        await self._store.update(postpone)

    async def _reserve(self) -> _Slot:
        waiting: asyncio.Future[_Slot] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            async with self._updating:
                if not waiting.done():
                    await self._reserve_for_all_waiting()
        finally:
            self._waiting.pop(waiting, None)
        return waiting.result()

    async def _reserve_for_all_waiting(self) -> None:
        all_waiting = list(self._waiting)
        slots: list[_Slot] = []

        def reserve(ledger: Ledger, now: float) -> None:
            ahead_seconds = now - self._clock()
            if self._stated is not None:
                rate, stated_at = self._stated
                ledger.state_rate(rate, at=stated_at + ahead_seconds, now=now)
            times = [ledger.reserve(now, user_rate=self._user_rate) for _ in all_waiting]
            slots[:] = [_Slot(time, time - ahead_seconds) for time in times]
            self._not_before = ledger.not_before

        await self._store.update(reserve)
        for waiting, slot in zip(all_waiting, slots, strict=True):
            waiting.set_result(slot)

"""Rate limiter that processes and machines share.

They share it because the API counts requests per IP address (docs/api.md, "Rate limit"). Requests are counted in a
sliding window. Each request reserves a slot in a ledger, which a store (`rate_limit_stores.py`) keeps: the earliest
time that is within the limit and not before the last reserved slot. A process that dies wastes only its own slots.
"""

import asyncio
import logging
import math
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

logger = logging.getLogger(__name__)

# A stated limit with more seconds per request than this is applied with a warning.
SLOW_SECONDS_PER_REQUEST = 10
# A header may hold any number; the ledger stores integers of 64 bits.
MAX_STATED_LIMIT = 2**53
MAX_WINDOW_SECONDS = 3600.0
MAX_PAUSE_SECONDS = 3600.0
# A reservation further ahead than this many windows is taken as a sign that the clock was set back; all reservations
# are then dropped.
MAX_QUEUE_WINDOWS = 20
# From the reserved slot to the arrival of a request. A retransmission on an open connection takes 0.2 s and more; four
# processes on two busy cores were measured at up to 0.54 s.
MAX_JITTER_SECONDS = 0.5
# The API states its limit in each response, so a limit that was last stated longer ago belongs to no running process.
STATED_RATE_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of `limit` requests in any window of `window_seconds`."""

    limit: int
    window_seconds: float

    @property
    def is_valid(self) -> bool:
        return self.limit >= 1 and math.isfinite(self.window_seconds) and 0 < self.window_seconds <= MAX_WINDOW_SECONDS

    @property
    def padded_window_seconds(self) -> float:
        """The window plus the largest expected delay of a request.

        Two requests that are sent a full window apart arrive less than a window apart if only the first is delayed. The
        delay does not depend on the window, but short windows get less padding, so that they are not much slower.
        """
        return self.window_seconds + min(0.1 + 0.08 * self.window_seconds, MAX_JITTER_SECONDS)


def next_slot(reserved: Sequence[float], now: float, *, limit: int, window_seconds: float) -> float:
    """Return the earliest time, not before `now` or the last reserved slot, at which one more request is allowed.

    `reserved`: the reserved slots, ascending; slots older than a window may be omitted.
    """
    slot = max(now, reserved[-1]) if reserved else now
    return max(slot, reserved[-limit] + window_seconds) if len(reserved) >= limit else slot


class Ledger(msgspec.Struct, array_like=True):
    """What all processes know of the rate limit.

    Attributes:
        reserved: the reserved slots, ascending.
        not_before: the time before which no request may start.
        stated_rate: the limit that the API stated last, so that a new process keeps it from its first request on.
        stated_at: when the API stated it.
    """

    reserved: list[float] = []
    not_before: float = 0.0
    stated_rate: Rate | None = None
    stated_at: float = 0.0

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ledger":
        """Return a stored ledger; an empty one if the data is damaged or of another version of this package."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError:
            return cls()

    def __post_init__(self) -> None:
        if self.reserved != sorted(self.reserved) or (self.stated_rate and not self.stated_rate.is_valid):
            raise ValueError("a damaged ledger")  # in decoding, msgspec raises it as a MsgspecError

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def is_plausible(self, now: float, *, window_seconds: float) -> bool:
        """Return whether the stored times are plausible; they are not if the clock has been set back."""
        horizon = max(now, self.not_before) + MAX_QUEUE_WINDOWS * window_seconds
        return self.not_before <= now + MAX_PAUSE_SECONDS and (not self.reserved or self.reserved[-1] <= horizon)

    def reserve(self, now: float, *, user_rate: Rate) -> float:
        """Reserve and return the next slot within the limits of the user and of the API.

        Slots that no longer count are dropped.
        """
        rates = [user_rate]
        if self.stated_rate is not None and abs(now - self.stated_at) <= STATED_RATE_SECONDS:
            rates.append(self.stated_rate)
        longest = max(rate.padded_window_seconds for rate in rates)
        if not self.is_plausible(now, window_seconds=longest):
            self.reserved, self.not_before = [], 0.0
        del self.reserved[: bisect_left(self.reserved, now - longest)]
        earliest = max(now, self.not_before)
        slot = max(
            next_slot(self.reserved, earliest, limit=rate.limit, window_seconds=rate.padded_window_seconds)
            for rate in rates
        )
        self.reserved.append(slot)
        return slot


LedgerChange = Callable[[Ledger, float], None]


class StoreUnavailable(Exception):  # noqa: N818 - a state of the store, not a bug
    """A store of the rate limit cannot be used. The message names the store and the reason, without secrets."""


class RateLimitStore(Protocol):
    """Stores the ledger that several processes or machines share.

    Calls do not block the event loop, and raise `StoreUnavailable` if the store cannot be used.
    """

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger; changes of all processes happen one after the other.

        Args:
            change: called with the ledger and the current time, both on the clock of the store. It may be called again
                with a newer ledger, perhaps in another thread; only its last call counts.
        """

    def close(self) -> None:
        """Close connections, if any. The next update opens them again."""


class MemoryRateLimitStore:
    """Stores the ledger of one process in memory."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = Ledger()
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        change(self._ledger, self._clock())

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Slot:
    """A reserved slot, on the clock of the store and on that of the limiter."""

    store_time: float
    local_time: float


class RateLimiter:
    """Rate limit of `requests` in any `window_seconds`, over all processes that share `store`.

    Args:
        requests: the user's limit. The limit that the API states in a response to any of the processes applies too.
        store: where reservations are stored; None to count the requests of this limiter only.

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
        # The limit that the API stated last in a response to this process, and whether it is to be stored.
        self._stated: Rate | None = None
        self._unstored: Rate | None = None
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
        return (self._stated or self._user_rate).window_seconds

    def close(self) -> None:
        self._store.close()

    async def acquire(self, *, on_wait: Callable[[float], object] | None = None) -> None:
        """Wait until a request may start, in the order of the calls.

        `on_wait` is called before each wait, with its length in seconds.
        """
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
                return

    def set_stated_limit(self, *, limit: int, window_seconds: float) -> None:
        """Apply the limit that a response states, in addition to the limit of the user.

        The next reservation stores it for all processes.
        """
        stated = Rate(min(limit, MAX_STATED_LIMIT), window_seconds)
        if not stated.is_valid:
            return
        before, self._stated = self._stated, stated
        self._unstored = stated
        if stated != before and window_seconds > SLOW_SECONDS_PER_REQUEST * limit:
            text = f"{limit} requests in {window_seconds:g} s"
            logger.warning("the API states a rate limit of %s, which is applied: fetching will be very slow", text)

    async def pause(self, seconds: float) -> None:
        """Postpone the requests of all processes by `seconds`, after a 429.

        Requests of other processes that have reserved a slot already may still start.
        """
        until = self._clock() + min(max(seconds, 0.0), MAX_PAUSE_SECONDS)

        def postpone(ledger: Ledger, now: float) -> None:
            self._not_before = ledger.not_before = max(ledger.not_before, until + (now - self._clock()))

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
        all_waiting, unstored = list(self._waiting), self._unstored
        slots: list[_Slot] = []

        def reserve(ledger: Ledger, now: float) -> None:
            ahead_seconds = now - self._clock()
            if unstored is not None:
                ledger.stated_rate, ledger.stated_at = unstored, now
            times = [ledger.reserve(now, user_rate=self._user_rate) for _ in all_waiting]
            slots[:] = [_Slot(time, time - ahead_seconds) for time in times]
            self._not_before = ledger.not_before

        await self._store.update(reserve)
        if self._unstored is unstored:  # else a response has stated it during the update
            self._unstored = None
        for waiting, slot in zip(all_waiting, slots, strict=True):
            waiting.set_result(slot)

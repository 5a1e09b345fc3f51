"""Rate limiter that the processes of one user on a machine share.

They share it because the API counts requests per IP address (docs/api.md, "Rate limit").

Requests are counted in a sliding window. Each request reserves a slot in a file that the processes share: the earliest
time that is within the limit and not before the last reserved slot. The request starts at that time. A process that
dies wastes only its own reservations.
"""

import asyncio
import fcntl
import hashlib
import logging
import math
import os
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

from later_reporting_dagster.client.base_url import validate_base_url
from later_reporting_dagster.client.private_file import private_file

logger = logging.getLogger(__name__)

MAX_WINDOW_SECONDS = 3600.0
MAX_PAUSE_SECONDS = 3600.0
# A stated limit with more seconds per request than this is applied with a warning.
SLOW_SECONDS_PER_REQUEST = 10
# A reservation further ahead than this many windows is taken as a sign that the clock was set back; all reservations
# are then dropped.
MAX_QUEUE_WINDOWS = 20
# Delay between sending and arrival: a retransmission on an open connection takes 0.2 s and more.
MAX_JITTER_SECONDS = 0.5
LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002
STATE_MAGIC = b"LATER\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of `limit` requests in any window of `window_seconds`."""

    limit: int
    window_seconds: float

    @property
    def padded_window_seconds(self) -> float:
        """The window plus the largest expected delay of a request.

        Two requests that are sent a full window apart arrive less than a window apart if only the first is delayed.
        """
        return self.window_seconds + min(0.1 + 0.03 * self.window_seconds, MAX_JITTER_SECONDS)


def next_slot(reserved: Sequence[float], now: float, *, limit: int, window_seconds: float) -> float:
    """Return the earliest time, not before `now` or the last reserved slot, at which one more request is allowed.

    Args:
        reserved: the reserved slots, ascending; slots older than a window may be omitted.
        now: the current time, on the same clock.
        limit: maximum number of requests in a window.
        window_seconds: length of a window.
    """
    slot = max(now, reserved[-1]) if reserved else now
    return max(slot, reserved[-limit] + window_seconds) if len(reserved) >= limit else slot


def rate_limit_state_path(base_url: str) -> Path | None:
    """Return the file in which the processes of this user share reservations for the host of `base_url`.

    Returns:
        None if the user has neither a cache folder nor a home, as in some containers.

    Raises:
        ValueError: `base_url` is invalid.
    """
    host = hashlib.sha256(validate_base_url(base_url).encode()).hexdigest()[:16]
    directory = _cache_directory()
    return directory and directory / "later-reporting" / f"rate-{host}"


def _cache_directory() -> Path | None:
    if sys.platform != "darwin" and (directory := os.environ.get("XDG_CACHE_HOME")):
        return Path(directory)
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:
        # The folder for temporary files is not a substitute: another user could have created the file there.
        _warn_once("the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME")
        return None


_warn_once = cache(logger.warning)


@dataclass(slots=True)
class _Ledger:
    """The reserved slots, ascending, and the time before which no request may start."""

    reserved: MutableSequence[float] = field(default_factory=lambda: array("d"))
    not_before: float = 0.0

    @classmethod
    def from_bytes(cls, data: bytes) -> "_Ledger":
        """Parse a ledger; return an empty one if the data is invalid."""
        values = array("d")
        body = data.removeprefix(STATE_MAGIC)
        if len(body) == len(data) or len(body) < values.itemsize or len(body) % values.itemsize:
            return cls()
        values.frombytes(body)
        return cls(reserved=values[1:], not_before=values[0])

    def to_bytes(self) -> bytes:
        """Return the content of the shared file: a magic number, `not_before` and the slots, as doubles."""
        return STATE_MAGIC + array("d", [self.not_before, *self.reserved]).tobytes()

    def is_plausible(self, now: float, *, window_seconds: float) -> bool:
        """Return whether the stored times are plausible; they are not if the clock has been set back."""
        # A stored NaN is not plausible: written as `<=`, not as a negated `>`, the comparisons are False for NaN.
        horizon = max(now, self.not_before) + MAX_QUEUE_WINDOWS * window_seconds
        return self.not_before <= now + MAX_PAUSE_SECONDS and (
            not self.reserved or self.reserved[0] <= self.reserved[-1] <= horizon
        )

    def reserve(self, now: float, rates: Sequence[Rate]) -> float:
        """Reserve and return the next slot within all `rates`; drop slots that no longer count."""
        longest = max(rate.padded_window_seconds for rate in rates)
        if not self.is_plausible(now, window_seconds=longest):
            self.reserved, self.not_before = array("d"), 0.0
        del self.reserved[: bisect_left(self.reserved, now - longest)]
        earliest = max(now, self.not_before)
        slot = max(
            next_slot(self.reserved, earliest, limit=rate.limit, window_seconds=rate.padded_window_seconds)
            for rate in rates
        )
        self.reserved.append(slot)
        return slot


class RateLimiter:
    """Rate limit of `requests` in any `window_seconds`, over all processes that share `state_path`.

    Args:
        requests: the user's limit. The limit that the API states in its responses applies too.
        window_seconds: the window of `requests`.
        state_path: the shared file; None to keep reservations in memory. If the file cannot be used, a warning is
            logged and this process counts its own requests only.
        clock: returns seconds since the epoch; the same for all processes.
        sleep: waits for a number of seconds.

    Raises:
        ValueError: the limit is below 1, or the window is not between 0 and an hour.
    """

    def __init__(
        self,
        *,
        requests: int,
        window_seconds: float = 60.0,
        state_path: Path | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not _is_valid_rate(requests, window_seconds):
            raise ValueError(
                f"a rate limit must be at least 1 request in 0 to 3600 s, not {requests} in {window_seconds} s"
            )
        self._user_rate = Rate(requests, window_seconds)
        self._stated_rate: Rate | None = None
        self._ledger = _Ledger()
        self._state_path = state_path
        self._clock = clock
        self._sleep = sleep

    @property
    def window_seconds(self) -> float:
        """The window of the limit that the API states; until it states one, the window of the user's limit."""
        return (self._stated_rate or self._user_rate).window_seconds

    async def acquire(self, *, on_wait: Callable[[float], object] | None = None) -> float:
        """Wait until a request may start, in the order of the calls; return the seconds waited.

        Args:
            on_wait: called before each wait, with its length in seconds.
        """
        called_at = self._clock()
        while True:
            slot = await self._reserve()
            wait = slot - self._clock()
            if on_wait is not None and wait > 0:
                on_wait(wait)
            while wait > 0:
                await self._sleep(wait)
                left = slot - self._clock()
                if left >= wait:
                    break  # the clock was set back during the sleep; the sleep itself took the whole wait
                wait = left
            # If a pause began during the wait and lasts beyond this slot, the loop reserves another slot.
            if self._ledger.not_before <= slot:
                return max(0.0, self._clock() - called_at)

    def set_stated_limit(self, *, limit: int, window_seconds: float) -> None:
        """Apply the limit that a response states, in addition to the limit of the user."""
        if not _is_valid_rate(limit, window_seconds):
            return
        before, self._stated_rate = self._stated_rate, Rate(limit, window_seconds)
        if before != self._stated_rate and window_seconds > SLOW_SECONDS_PER_REQUEST * limit:
            stated = f"{limit} requests in {window_seconds:g} s"
            logger.warning("the API states a rate limit of %s, which is applied: fetching will be very slow", stated)

    async def pause(self, seconds: float) -> None:
        """Postpone the requests of all processes by `seconds`, after a 429.

        Requests of other processes that have reserved a slot already may still start.
        """
        until = self._clock() + min(max(seconds, 0.0), MAX_PAUSE_SECONDS)

        def postpone(ledger: _Ledger) -> None:
            ledger.not_before = max(ledger.not_before, until)

        await self._update_without_blocking(postpone)

    async def _reserve(self) -> float:
        slot = 0.0
        rates = (self._user_rate, self._stated_rate) if self._stated_rate else (self._user_rate,)

        def reserve(ledger: _Ledger) -> None:
            nonlocal slot
            slot = ledger.reserve(self._clock(), rates)

        await self._update_without_blocking(reserve)
        return slot

    async def _update_without_blocking(self, change: Callable[[_Ledger], None]) -> None:
        """Apply a change to the ledger, without blocking the event loop while another process has locked the file."""
        try:
            self._update(change, timeout_seconds=0)
        except BlockingIOError:
            await asyncio.to_thread(self._update, change, timeout_seconds=LOCK_TIMEOUT_SECONDS)

    def _update(self, change: Callable[[_Ledger], None], *, timeout_seconds: float) -> None:
        """Apply a change to the shared ledger, or to the one in memory if no file is shared.

        Raises:
            BlockingIOError: the timeout is 0 and another process has locked the ledger.
        """
        path = self._state_path
        if path is None:
            change(self._ledger)
            return
        try:
            with private_file(path) as stream:
                _lock(stream, timeout_seconds=timeout_seconds)
                self._ledger = _Ledger.from_bytes(stream.read())
                change(self._ledger)
                stream.seek(0)
                stream.write(self._ledger.to_bytes())
                stream.truncate()
                return
        except BlockingIOError:
            if timeout_seconds == 0:
                raise
            logger.warning("the rate limit is not shared with other processes: %s stays locked", path)
        except OSError as error:
            logger.warning("the rate limit is not shared with other processes: %s: %s", path, error)
        self._state_path = None
        change(self._ledger)


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


def _is_valid_rate(limit: int, window_seconds: float) -> bool:
    return limit >= 1 and math.isfinite(window_seconds) and 0 < window_seconds <= MAX_WINDOW_SECONDS

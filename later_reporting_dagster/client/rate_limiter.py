"""Keeps all processes of one machine together under the service's rate limit, which counts per IP [D].

The service counts a sliding window. So does this: an instant is reserved for each request, first come first served,
in a file that the processes share, and the request starts at its instant. A process that dies wastes only the
instants that it had reserved.
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

from later_reporting_dagster.client.base_url import checked_base_url
from later_reporting_dagster.client.private_file import private_file

logger = logging.getLogger(__name__)

LONGEST_WINDOW_SECONDS = 3600.0
LONGEST_PENALTY_SECONDS = 3600.0
# A limit that leaves more seconds between two requests is obeyed, with a warning.
NOTABLE_SECONDS_PER_REQUEST = 10
# Further ahead than this many windows, a reservation is no queue but the trace of a clock that was set back.
LONGEST_QUEUE_WINDOWS = 20
# How much later a request may arrive than it was due: a retransmission on an open connection takes 0.2 s and more.
LONGEST_JITTER_SECONDS = 0.5
LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002
STATE_MAGIC = b"LATER\x00\x00\x01"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in any `window_seconds`."""

    limit: int
    window_seconds: float

    @property
    def padded_window_seconds(self) -> float:
        """The window with room for jitter: one request arrives late, its successor a window later arrives early."""
        return self.window_seconds + min(0.1 + 0.03 * self.window_seconds, LONGEST_JITTER_SECONDS)


def next_slot(reserved: Sequence[float], now: float, *, limit: int, window_seconds: float) -> float:
    """Return the earliest instant, not before `now`, at which one more request keeps to the limit in any window.

    Args:
        reserved: the instants already reserved, ascending; those older than a window may be left out.
        now: the present, on the same clock.
        limit: requests that a window may hold.
        window_seconds: length of a window.
    """
    slot = max(now, reserved[-1]) if reserved else now
    return max(slot, reserved[-limit] + window_seconds) if len(reserved) >= limit else slot


def shared_state_path(base_url: str) -> Path | None:
    """Return where the processes of this user keep their reservations for the host of `base_url`.

    None for a user without a folder of caches or a home, as in some containers.

    Raises:
        ValueError: it is not a base URL.
    """
    host = hashlib.sha256(checked_base_url(base_url).encode()).hexdigest()[:16]
    directory = _cache_directory()
    return directory and directory / "later-reporting" / f"rate-{host}"


def _cache_directory() -> Path | None:
    if sys.platform != "darwin" and (directory := os.environ.get("XDG_CACHE_HOME")):
        return Path(directory)
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:
        # Not in the folder for temporary files: there, other users could have prepared what is to be opened.
        _warn_once("the rate limit is not shared with other processes: this user has no home; set HOME, XDG_CACHE_HOME")
        return None


_warn_once = cache(logger.warning)


@dataclass(slots=True)
class _Ledger:
    """The reserved instants, ascending, and the instant before which nobody starts."""

    reserved: MutableSequence[float] = field(default_factory=lambda: array("d"))
    not_before: float = 0.0

    @classmethod
    def from_bytes(cls, data: bytes) -> "_Ledger":
        """Read a ledger; anything that is not one reads as an empty one."""
        values = array("d")
        body = data.removeprefix(STATE_MAGIC)
        if len(body) == len(data) or len(body) < values.itemsize or len(body) % values.itemsize:
            return cls()
        values.frombytes(body)
        return cls(reserved=values[1:], not_before=values[0])

    def to_bytes(self) -> bytes:
        return STATE_MAGIC + array("d", [self.not_before, *self.reserved]).tobytes()

    def is_plausible(self, now: float, *, window_seconds: float) -> bool:
        # Written so that NaN is not plausible.
        horizon = max(now, self.not_before) + LONGEST_QUEUE_WINDOWS * window_seconds
        return self.not_before <= now + LONGEST_PENALTY_SECONDS and (
            not self.reserved or self.reserved[0] <= self.reserved[-1] <= horizon
        )

    def reserve(self, now: float, rates: Sequence[Rate]) -> float:
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
    """Paces requests: at most `requests` in any `window_seconds`, over all processes that share `state_path`.

    Args:
        requests: what the user allows; the service's own limit, once learned, applies beside it.
        window_seconds: the window of `requests`.
        state_path: the shared file; None keeps the reservations in memory. A file that cannot be used costs a warning
            and leaves each process to itself.
        clock: seconds since the epoch, the same for all processes.
        sleep: waits for seconds.

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
        if not _is_sensible(requests, window_seconds):
            raise ValueError(f"a rate limit is at least 1 request in 0 to 3600 s, not {requests} in {window_seconds} s")
        self._allowed = Rate(requests, window_seconds)
        self._learned: Rate | None = None
        self._ledger = _Ledger()
        self._state_path = state_path
        self._clock = clock
        self._sleep = sleep

    @property
    def window_seconds(self) -> float:
        """The window after which the service has forgotten what was sent, as far as known."""
        return (self._learned or self._allowed).window_seconds

    async def acquire(self, *, on_wait: Callable[[float], object] | None = None) -> float:
        """Wait until a request may start, first come first served; return the seconds waited.

        Args:
            on_wait: called with the seconds of the wait before it begins; not called when there is none.
        """
        asked_at = self._clock()
        while True:
            slot = await self._reserve()
            wait = slot - self._clock()
            if on_wait is not None and wait > 0:
                on_wait(wait)
            while wait > 0:
                await self._sleep(wait)
                left = slot - self._clock()
                if left >= wait:
                    break  # the clock was set back meanwhile: what was to be waited has been
                wait = left
            if self._ledger.not_before <= slot:  # else a refusal came meanwhile: this turn is void
                return max(0.0, self._clock() - asked_at)

    def learn(self, *, limit: int, window_seconds: float) -> None:
        """Take over the service's limit from a response [D]; what the user allows stays in force beside it."""
        if not _is_sensible(limit, window_seconds):
            return
        before, self._learned = self._learned, Rate(limit, window_seconds)
        if before != self._learned and window_seconds > NOTABLE_SECONDS_PER_REQUEST * limit:
            stated = f"{limit} requests in {window_seconds:g} s"
            logger.warning("the service states a rate limit of %s: it is obeyed, and fetching takes very long", stated)

    def penalize(self, seconds: float) -> None:
        """Let no request of any process start for `seconds`: the service has refused one."""
        until = self._clock() + min(max(seconds, 0.0), LONGEST_PENALTY_SECONDS)

        def postpone(ledger: _Ledger) -> None:
            ledger.not_before = max(ledger.not_before, until)

        self._change(postpone, patience_seconds=LOCK_TIMEOUT_SECONDS)

    async def _reserve(self) -> float:
        slot = 0.0
        rates = (self._allowed, self._learned) if self._learned else (self._allowed,)

        def reserve(ledger: _Ledger) -> None:
            nonlocal slot
            slot = ledger.reserve(self._clock(), rates)

        try:
            self._change(reserve, patience_seconds=0)
        except BlockingIOError:  # held by another process just now: rare, and short, but not on the event loop
            await asyncio.to_thread(self._change, reserve, patience_seconds=LOCK_TIMEOUT_SECONDS)
        return slot

    def _change(self, change: Callable[[_Ledger], None], *, patience_seconds: float) -> None:
        """Apply a change to the shared ledger, or to our own copy when there is none.

        Raises:
            BlockingIOError: only without patience: another process holds the ledger.
        """
        path = self._state_path
        if path is None:
            change(self._ledger)
            return
        try:
            with private_file(path) as stream:
                _lock(stream, patience_seconds=patience_seconds)
                self._ledger = _Ledger.from_bytes(stream.read())
                change(self._ledger)
                stream.seek(0)
                stream.write(self._ledger.to_bytes())
                stream.truncate()
                return
        except BlockingIOError:
            if patience_seconds == 0:
                raise
            logger.warning("the shared rate limit state %s stays locked: this process counts only itself", path)
        except OSError as error:
            logger.warning("the rate limit is not shared with other processes: %s: %s", path, error)
        self._state_path = None
        change(self._ledger)


def _lock(stream: BinaryIO, *, patience_seconds: float) -> None:
    """Lock a file until it is closed; raise `BlockingIOError` when others hold it for longer than that."""
    for left in range(int(patience_seconds / LOCK_POLL_SECONDS), -1, -1):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if left == 0:
                raise
            time.sleep(LOCK_POLL_SECONDS)


def _is_sensible(limit: int, window_seconds: float) -> bool:
    return limit >= 1 and math.isfinite(window_seconds) and 0 < window_seconds <= LONGEST_WINDOW_SECONDS

"""Rate limiter that the processes of a user on a machine share through a file.

They share it because the API counts requests per IP address (docs/api.md, "Rate limit"). Requests are counted in a
sliding window. Each request reserves a slot in a ledger: the earliest time that is within the limit and not before the
last reserved slot. A process that dies wastes only its own slots.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import msgspec

from later_reporting_dagster.client.auth import validate_base_url

logger = logging.getLogger(__name__)

MAX_STATED_LIMIT = 2**53  # a header may hold any number; the ledger stores integers of 64 bits
MAX_WINDOW_SECONDS = 3600.0
MAX_PAUSE_SECONDS = 1800.0
# From the reserved slot to the arrival of a request. A retransmission on an open connection takes 0.2 s and more; four
# processes on two busy cores were measured at up to 0.54 s.
MAX_JITTER_SECONDS = 0.5
# The API states its limit in each response, so a limit that was last stated longer ago belongs to no running process.
STATED_RATE_SECONDS = 86_400.0
LOCK_TIMEOUT_SECONDS = 10.0


class Rate(msgspec.Struct, array_like=True, frozen=True):
    """A limit of `limit` requests in any window of `window_seconds`; `stated_at` is when the API stated it."""

    limit: int
    window_seconds: float
    stated_at: float = 0.0

    @property
    def is_valid(self) -> bool:
        return self.limit >= 1 and 0 < self.window_seconds <= MAX_WINDOW_SECONDS

    @property
    def padded_window_seconds(self) -> float:
        """The window plus the largest expected delay of a request.

        Two requests that are sent a full window apart arrive less than a window apart if only the first is delayed. The
        delay does not depend on the window, but short windows get less padding, so that they are not much slower.
        """
        return self.window_seconds + min(0.1 + 0.08 * self.window_seconds, MAX_JITTER_SECONDS)


class Ledger(msgspec.Struct, array_like=True):
    """What all processes know of the rate limit."""

    reserved: list[float] = []  # slots, ascending
    not_before: float = 0.0  # the end of the last pause
    updated_at: float = 0.0  # when the last slot was reserved
    stated: Rate | None = None  # by the API: a new process keeps it from its first request on

    def reserve(self, now: float, user_rate: Rate) -> float:
        """Reserve and return the next slot within the limits of the user and of the API."""
        rates = [user_rate]
        if self.stated is not None and now - self.stated.stated_at <= STATED_RATE_SECONDS:
            rates.append(self.stated)
        longest = max(rate.padded_window_seconds for rate in rates)
        if self.updated_at > now + longest:  # the clock was set back
            self.reserved, self.not_before = [], 0.0
        del self.reserved[: bisect_left(self.reserved, now - longest)]
        slot = max(now, self.not_before, *self.reserved[-1:])
        for rate in rates:
            if len(self.reserved) >= rate.limit:
                slot = max(slot, self.reserved[-rate.limit] + rate.padded_window_seconds)
        self.reserved.append(slot)
        self.updated_at = now
        return slot


class RateLimiter:
    """Rate limit of `requests` in any `window_seconds`, over all processes that share the file `path`.

    Args:
        requests: the user's limit. The limit that the API states in a response to any of the processes applies too.
        path: the file of the ledger. Without one, and with a warning once it cannot be used, the limiter counts alone.
    """

    def __init__(
        self,
        *,
        requests: int,
        window_seconds: float = 60.0,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._user_rate = Rate(requests, window_seconds)
        if not self._user_rate.is_valid:
            raise ValueError(f"a rate limit must be at least 1 request in 0 to 3600 s: {requests} in {window_seconds}")
        self._path, self._clock, self._sleep = path, clock, sleep
        self._stated: Rate | None = None  # what the API stated last in a response to this process
        self._own = Ledger()  # without a file
        self._not_before = 0.0  # the end of the last pause that an update has seen
        self._turn = asyncio.Lock()

    @property
    def window_seconds(self) -> float:
        """The window of the limit that the API states; until it states one, the window of the user's limit."""
        return (self._stated or self._user_rate).window_seconds

    async def acquire(self, *, on_wait: Callable[[float], object] | None = None) -> None:
        """Wait until a request may start, in the order of the calls; `on_wait` gets the seconds of each wait."""
        while True:
            async with self._turn:
                slot = await self._update(pause=None)
            if (wait := slot - self._clock()) > 0:
                if on_wait is not None:
                    on_wait(wait)
                await self._sleep(wait)
            # If a pause began during the wait and lasts beyond this slot, the loop reserves another slot.
            if self._not_before <= slot:
                return

    def set_stated_limit(self, *, limit: int, window_seconds: float) -> None:
        """Apply the limit that a response states, too. The next reservation stores it for all processes."""
        stated = Rate(min(limit, MAX_STATED_LIMIT), window_seconds, self._clock())
        if stated.is_valid:
            self._stated = stated

    async def pause(self, seconds: float) -> None:
        """Postpone the requests of all processes, by half an hour at most, after a 429; those with a slot may start."""
        await self._update(pause=min(max(seconds, 0.0), MAX_PAUSE_SECONDS))

    async def _update(self, *, pause: float | None) -> float:
        if self._path is not None:
            try:
                # In a thread, because another process may have locked the file.
                return await asyncio.to_thread(self._update_file, self._path, pause)
            except OSError as error:
                logger.warning("the rate limit is not shared with other processes: %s: %s", self._path, error)
                self._path = None
        return self._change(self._own, pause)

    def _change(self, ledger: Ledger, pause: float | None) -> float:
        """Begin a pause, or reserve a slot; return its time."""
        now = self._clock()
        if pause is not None:
            slot = ledger.not_before = max(ledger.not_before, now + pause)
        else:
            if self._stated and not (ledger.stated and self._stated.stated_at <= ledger.stated.stated_at <= now):
                ledger.stated = self._stated
            slot = ledger.reserve(now, self._user_rate)
        self._not_before = ledger.not_before
        return slot

    def _update_file(self, path: Path, pause: float | None) -> float:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.parent.lstat()  # the mode of a link is 0777
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError("its folder must belong to this user and not be writable by others")
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as stream:
            _lock(stream)
            checksum, data, ledger = stream.read(4), stream.read(), Ledger()
            if checksum == crc32(data).to_bytes(4):  # else the file is new or damaged
                with suppress(msgspec.MsgspecError):  # of another version of this package
                    ledger = msgspec.msgpack.decode(data, type=Ledger)
            result = self._change(ledger, pause)
            data = msgspec.msgpack.encode(ledger)
            stream.seek(0)
            stream.write(crc32(data).to_bytes(4) + data)
            stream.truncate()
            return result


def _lock(stream: BinaryIO) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("stays locked") from None
        time.sleep(0.002)


def rate_limit_path(base_url: str) -> Path | None:
    """Return the file that a user's processes share for a host; None, with a warning, if the user has no folder."""
    host = hashlib.sha256(validate_base_url(base_url).encode()).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        # The folder for temporary files is not a substitute: another user could have created the file there.
        logger.warning("the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME")
        return None
    return folder / "later-reporting" / f"rate-{host}"

"""The ledger of the rate limit: which request may start when. Pure: no clock, no file, no network.

Requests are counted in a sliding window. Each request reserves a slot: the earliest time that is within the limit and
not before the last reserved slot. A process that dies wastes only its own reservations.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
# The last byte is the version of the format. Ledgers of other versions are ignored.
LEDGER_MAGIC = b"LATER\x00\x00\x02"


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of `limit` requests in any window of `window_seconds`."""

    limit: int
    window_seconds: float

    @property
    def is_valid(self) -> bool:
        """Whether the limit is at least 1, and the window between 0 and an hour."""
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

    Args:
        reserved: the reserved slots, ascending; slots older than a window may be omitted.
        now: the current time, on the same clock.
        limit: maximum number of requests in a window.
        window_seconds: length of a window.
    """
    slot = max(now, reserved[-1]) if reserved else now
    return max(slot, reserved[-limit] + window_seconds) if len(reserved) >= limit else slot


@dataclass(slots=True)
class Ledger:
    """What all processes know of the rate limit.

    Attributes:
        reserved: the reserved slots, ascending.
        not_before: the time before which no request may start.
        stated_rate: the limit that the API stated last, so that a new process keeps it from its first request on.
        stated_at: when the API stated it.
    """

    reserved: MutableSequence[float] = field(default_factory=lambda: array("d"))
    not_before: float = 0.0
    stated_rate: Rate | None = None
    stated_at: float = 0.0

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ledger":
        """Parse a ledger; return an empty one if the data is invalid."""
        values = array("d")
        body = data.removeprefix(LEDGER_MAGIC)
        if len(body) == len(data) or len(body) < 4 * values.itemsize or len(body) % values.itemsize:
            return cls()
        values.frombytes(body)
        not_before, limit, window_seconds, stated_at = values[:4]
        stated_rate = Rate(int(limit), window_seconds) if math.isfinite(limit) else None
        if stated_rate is not None and not stated_rate.is_valid:
            stated_rate = None
        # A slot between the first and the last that is later than both would be waited for. False for NaN.
        if not all(slot <= later for slot, later in pairwise(values[4:])):
            return cls()
        return cls(reserved=values[4:], not_before=not_before, stated_rate=stated_rate, stated_at=stated_at)

    def to_bytes(self) -> bytes:
        """Return the content of a store: a magic number and doubles.

        The doubles are `not_before`, the limit and the window of the stated rate (both 0 without one), `stated_at`, and
        the slots.
        """
        rate = self.stated_rate or Rate(0, 0.0)
        header = [self.not_before, rate.limit, rate.window_seconds, self.stated_at]
        return LEDGER_MAGIC + array("d", [*header, *self.reserved]).tobytes()

    def is_plausible(self, now: float, *, window_seconds: float) -> bool:
        """Return whether the stored times are plausible; they are not if the clock has been set back."""
        # A stored NaN is not plausible: written as `<=`, not as a negated `>`, the comparisons are False for NaN.
        horizon = max(now, self.not_before) + MAX_QUEUE_WINDOWS * window_seconds
        return self.not_before <= now + MAX_PAUSE_SECONDS and (
            not self.reserved or self.reserved[0] <= self.reserved[-1] <= horizon
        )

    def state_rate(self, rate: Rate, *, at: float, now: float) -> None:
        """Store the limit that the API stated at `at`, unless it has stated one later."""
        # Also False for a stored NaN, and for a time in the future, which was stored before the clock was set back.
        if at <= self.stated_at <= now:
            return
        self.stated_rate, self.stated_at = rate, min(at, now)

    def reserve(self, now: float, *, user_rate: Rate) -> float:
        """Reserve and return the next slot within the limits of the user and of the API.

        Slots that no longer count are dropped.
        """
        rates = [user_rate]
        if self.stated_rate is not None and abs(now - self.stated_at) <= STATED_RATE_SECONDS:
            rates.append(self.stated_rate)
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

    def postpone(self, until: float) -> None:
        """Let no request start before `until`."""
        self.not_before = max(self.not_before, until)

    def merge(self, other: "Ledger", *, ahead_seconds: float) -> None:
        """Add the slots, the pause and the stated rate of another ledger.

        Args:
            other: the other ledger.
            ahead_seconds: by how much the clock of the other ledger is ahead of the clock of this one.
        """
        slots = sorted([*self.reserved, *(slot - ahead_seconds for slot in other.reserved)])
        self.reserved = array("d", slots)
        self.postpone(other.not_before - ahead_seconds)
        if other.stated_rate is not None and other.stated_at - ahead_seconds > self.stated_at:
            self.stated_rate, self.stated_at = other.stated_rate, other.stated_at - ahead_seconds

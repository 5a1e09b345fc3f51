"""The ledger of the rate limit: which request may start when. Pure: no clock, no file, no network.

Requests are counted in a sliding window. Each request reserves a slot: the earliest time that is within the limit and
not before the last reserved slot. A process that dies wastes only its own reservations.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field

MAX_WINDOW_SECONDS = 3600.0
MAX_PAUSE_SECONDS = 3600.0
# A reservation further ahead than this many windows is taken as a sign that the clock was set back; all reservations
# are then dropped.
MAX_QUEUE_WINDOWS = 20
# Delay between sending and arrival: a retransmission on an open connection takes 0.2 s and more.
MAX_JITTER_SECONDS = 0.5
LEDGER_MAGIC = b"LATER\x00\x00\x01"


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


@dataclass(slots=True)
class Ledger:
    """The reserved slots, ascending, and the time before which no request may start."""

    reserved: MutableSequence[float] = field(default_factory=lambda: array("d"))
    not_before: float = 0.0

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ledger":
        """Parse a ledger; return an empty one if the data is invalid."""
        values = array("d")
        body = data.removeprefix(LEDGER_MAGIC)
        if len(body) == len(data) or len(body) < values.itemsize or len(body) % values.itemsize:
            return cls()
        values.frombytes(body)
        return cls(reserved=values[1:], not_before=values[0])

    def to_bytes(self) -> bytes:
        """Return the content of a store: a magic number, `not_before` and the slots, as doubles."""
        return LEDGER_MAGIC + array("d", [self.not_before, *self.reserved]).tobytes()

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

    def postpone(self, until: float) -> None:
        """Let no request start before `until`."""
        self.not_before = max(self.not_before, until)

    def merge(self, other: "Ledger", *, ahead_seconds: float) -> None:
        """Add the slots of another ledger.

        Args:
            other: the other ledger.
            ahead_seconds: by how much the clock of the other ledger is ahead of the clock of this one.
        """
        slots = sorted([*self.reserved, *(slot - ahead_seconds for slot in other.reserved)])
        self.reserved = array("d", slots)
        self.postpone(other.not_before - ahead_seconds)

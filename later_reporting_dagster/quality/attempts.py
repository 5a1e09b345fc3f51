"""What sensors have requested, and when they request it again: after waits that double from request to request."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

import msgspec

# Half of the wait after the first request. A fetch that recorded nothing was killed, or its files were lost again.
WAIT_FOR_FETCH = timedelta(minutes=15)
WAIT_AFTER_FAILED_FETCH = timedelta(hours=12)
# Also the wait before the first request, because most often a condition has requested the rollup.
WAIT_FOR_ROLLUP = timedelta(minutes=4)
MAX_WAIT = timedelta(days=32)


class Attempt(msgspec.Struct, frozen=True):
    """How often files were requested together, while they stay missing or outdated.

    Attributes:
        name: an instance id, for files of the raw tables; else a table.
        first: the first day, `last` the last one; None for a table of one file.
        requests: 0 if they were only found.
        since: when they were last requested, or found.
        failed: whether the fetch has recorded a failure since.
        inputs: the digest of what a rollup would be made from; empty for a fetch.
    """

    name: str
    first: date | None
    last: date | None
    requests: Annotated[int, msgspec.Meta(ge=0)]
    since: Annotated[datetime, msgspec.Meta(tz=True)]
    failed: bool = False
    inputs: str = ""

    def is_due(self, now: datetime) -> bool:
        """Return whether to request again: after a wait that doubles with each request.

        After a failure, days are counted and not hours.
        """
        if self.failed:
            since, wait = datetime.combine(self.since, time(), UTC), WAIT_AFTER_FAILED_FETCH
        else:
            since, wait = self.since, WAIT_FOR_ROLLUP if self.inputs else WAIT_FOR_FETCH
        doublings = min(self.requests, 20)  # more exceed the longest wait, and then the longest timedelta
        return now >= since + min(wait * (1 << doublings), MAX_WAIT)


class Cursor(msgspec.Struct, frozen=True):
    """The state of a sensor.

    Attributes:
        attempts: for what is missing or outdated.
        instances: the instances whose history was requested or is complete.
    """

    attempts: list[Attempt] = []
    instances: list[str] = []


def parse_cursor(text: str | None) -> Cursor:
    """Return the cursor in a text; an empty one if it is not a cursor, because it can be edited in the UI."""
    try:
        return msgspec.json.decode(text or "{}", type=Cursor)
    except msgspec.MsgspecError:
        return Cursor()


def cursor_text(cursor: Cursor) -> str:
    return msgspec.json.encode(cursor).decode()

"""What sensors have requested, and when they request it again: after waits that double from request to request."""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

# After the first request of files whose fetch has recorded a failure.
WAIT_AFTER_FAILURE = timedelta(days=1)
# After that of files whose fetch has recorded nothing: its run was killed, or the files were lost again.
WAIT_FOR_FETCH = timedelta(minutes=30)
# After that of a rollup. Before the first request it is half of this: most often, a condition has requested it.
WAIT_FOR_ROLLUP = timedelta(minutes=8)
MAX_WAIT = timedelta(days=32)


class Attempt(msgspec.Struct, frozen=True):
    """How often files were requested together, while they stay missing or outdated.

    Attributes:
        name: an instance id, for files of the raw tables; else a table.
        first: the first day, `last` the last one; None for a table of one file.
        requests: 0 if they were only found.
        since: when they were last requested, or found.
        failed: whether the fetch has recorded a failure since.
        inputs: the digest of what a rollup would be made from.
    """

    name: str
    first: date | None
    last: date | None
    requests: int
    since: datetime
    failed: bool = False
    inputs: str = ""

    def is_due(self, now: datetime, *, first_wait: timedelta) -> bool:
        """Return whether to request again. After a failure, waits end at midnight (UTC)."""
        since = self.since
        if self.failed:
            since, first_wait = datetime.combine(since.date(), time(), UTC), WAIT_AFTER_FAILURE
        return now >= since + min(first_wait / 2 * (1 << self.requests), MAX_WAIT)


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

"""Progress: counted for whoever listens, and told to the log where there would be silence."""

from collections.abc import Callable

from later_reporting_dagster.client import PageFetched, Retried, RevisionChanged, Waited, WalkRepeated
from later_reporting_dagster.ingest.progress import Progress, ProgressTeller


def teller(log: Callable[[str], None] = lambda line: None, *, time: list[float] | None = None) -> ProgressTeller:
    clock = [0.0] if time is None else time
    return ProgressTeller(Progress("posts_published", partitions=3), log=log, clock=lambda: clock[0])


def test_events_are_counted() -> None:
    counting = teller()
    counting.note(PageFetched(page=1, rows=100))
    counting.note(PageFetched(page=2, rows=42))
    counting.note(Retried(reason="HTTP 503", wait_seconds=0.5))
    counting.note(Waited(seconds=1.0, reason="rate limit"))
    counting.landed()
    counting.landed()
    counting.failed()
    assert counting.progress == Progress(
        "posts_published",
        partitions=3,
        landed=2,
        failed=1,
        rows=142,
        pages=2,
        retries=1,
        waits=1,
        waiting="asking again in 0 s",
    )


def test_a_long_wait_is_told_once_for_all_that_wait() -> None:
    lines: list[str] = []
    time = [100.0]
    waiting = teller(lines.append, time=time)
    for _ in range(8):
        waiting.note(Waited(seconds=40.0, reason="rate limit"))
    assert lines == ["Waiting 40 s for the rate limit"]
    assert waiting.progress.waiting == "waiting 40 s for the rate limit"
    waiting.note(PageFetched(page=1, rows=100))
    assert waiting.progress.waiting == ""
    time[0] += 41
    waiting.note(Waited(seconds=20.0, reason="rate limit"))
    assert lines[1:] == ["Waiting 20 s for the rate limit"]


def test_the_pace_of_the_work_is_no_news() -> None:
    lines: list[str] = []
    pacing = teller(lines.append)
    pacing.note(Waited(seconds=0.5, reason="rate limit"))
    assert lines == []
    assert pacing.progress.waiting == ""


def test_what_is_asked_again_is_told() -> None:
    lines: list[str] = []
    asking = teller(lines.append)
    asking.note(Retried(reason="HTTP 503", wait_seconds=0.5))
    asking.note(WalkRepeated(reason="3 rows came twice"))
    assert lines == ["Asking again in 0.5 s: HTTP 503", "Walking again from the first page: 3 rows came twice"]


def test_a_change_of_the_api_is_a_warning_where_there_is_one_to_be_had() -> None:
    for warn in (True, False):
        lines: list[str] = []
        warnings: list[str] = []
        progress = Progress("posts_published", partitions=1)
        changing = ProgressTeller(progress, log=lines.append, warn=warnings.append if warn else None)
        changing.note(RevisionChanged("paged", "cursor"))
        (line,) = warnings if warn else lines
        assert line.startswith("The API has changed: the service speaks the revision cursor of the API now")

"""What a run logs: its progress, data versions, previews, one failure for all partitions, also if interrupted."""

from datetime import date

import pyarrow as pa

from later_reporting_dagster.client import ClientEvent
from later_reporting_dagster.defs.events import combined_failure, describe_failures, preview
from later_reporting_dagster.ingest.decide import ALLOW_ROW_LOSS
from later_reporting_dagster.ingest.progress import Progress


def test_failure_limits_the_partitions_it_lists() -> None:
    failure = combined_failure(
        {f"{number:04}": f"why {number}" for number in range(6000)}, asset="posts", what="file", written=0
    )
    lines = (failure.description or "").splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "… and 5980 more reasons, in the metadata"
    assert len(failure.metadata["failed_partitions"].value) == 5000
    assert failure.allow_retries is False


def test_equal_reasons_are_one_line_with_number_days_and_instances() -> None:
    pairs = [f"2024-03-{day:02} {name}" for day in (1, 2, 3, 7) for name in ("a", "b c")]
    failed = {**dict.fromkeys(pairs, "HTTP 500"), "2024-03-04 a": "HTTP 403"}
    assert describe_failures(failed, asset="posts") == [
        ("8 files, 2024-03-01 to 2024-03-03, 2024-03-07, a, b c", "HTTP 500"),
        ("2024-03-04 a", "HTTP 403"),
    ]
    assert describe_failures(dict.fromkeys(["2024-03-01", "2024-03-02"], "why"), asset="posts") == [
        ("2 files, 2024-03-01 to 2024-03-02", "why")
    ]
    assert describe_failures(dict.fromkeys(["posts", "costs"], "why"), asset="posts") == [
        ("2 files, costs, posts", "why")
    ]


def test_advice_to_accept_a_loss_is_a_whole_command_for_the_files_that_failed() -> None:
    reason = f"gone: {ALLOW_ROW_LOSS}"
    files = [f"2024-03-0{day} {name}" for day in (1, 2, 5) for name in ("a", "b c")]

    def advice(*failed: str) -> str:
        ((_, text),) = describe_failures(dict.fromkeys(failed, reason), asset="posts")
        return text.removeprefix("gone: ").removesuffix(", or with allow_row_loss: true in the run config")

    command = "`later-reporting backfill --asset posts --start {} --end {}{} --allow-row-loss`"
    of_instances = " --instances 'a,b c'"
    assert advice(*files) == ", ".join(
        command.format(f"2024-03-0{first}", f"2024-03-0{last}", of_instances) for first, last in ((1, 2), (5, 5))
    )
    assert advice("2024-03-01") == command.format("2024-03-01", "2024-03-01", "")
    assert advice("90d 2024-01-01 to 2024-03-30 of a") == "`later-reporting backfill --asset posts --allow-row-loss`"


def test_preview_shows_the_first_rows_and_cuts_texts() -> None:
    names, rates = ["n" * 2**20, *"abcdef"], [1.5, None, *[0.0] * 5]
    table = pa.table({"name": names, "day": [date(2024, 1, 3)] * 7, "rate": rates, "ids": [[1, 2]] * 7})
    records = [each.data for each in preview(table).records]
    assert len(records) == 5
    assert records[:2] == [
        {"name": "n" * 60, "day": "2024-01-03", "rate": 1.5, "ids": "[1, 2]"},
        {"name": "a", "day": "2024-01-03", "rate": None, "ids": "[1, 2]"},
    ]
    assert [column.name for column in preview(table.slice(0, 0)).schema.columns] == ["name", "day", "rate", "ids"]


def test_preview_of_a_wide_table_has_its_first_columns() -> None:
    shown = preview(pa.table({f"column_{number}": [number] for number in range(45)}))
    assert [column.name for column in shown.schema.columns] == [f"column_{number}" for number in range(12)]
    assert shown.records[0].data == {f"column_{number}": number for number in range(12)}


def test_progress_counts_events_and_tells_what_to_log() -> None:
    progress = Progress("posts_published")
    events = [
        ClientEvent("page"),
        ClientEvent("retry", "HTTP 503", 0.5, attempts=1),
        ClientEvent("refetch", "3 rows are duplicates"),
        ClientEvent("rate limit", seconds=1.0),
    ]
    lines = [line for event in events if (line := progress.count(event))]
    assert lines == ["Retrying in 0.5 s: HTTP 503", "Fetching again from the first page: 3 rows are duplicates"]
    expected = Progress("posts_published", requests=1, retries=1, rate_limit_waits=1, status="retrying in 0 s")
    expected.logged_attempts = 1
    assert progress == expected

    # Of concurrent requests that fail, one is logged for each attempt, until a page arrives.
    events = [ClientEvent("retry", "HTTP 503", 0.5, attempts=attempts) for attempts in (1, 2, 2, 3, 3, 1)]
    lines = [line for event in events if (line := progress.count(event))]
    assert lines == ["Retrying in 0.5 s: HTTP 503", "Retrying in 0.5 s, after 3 attempts at : HTTP 503"]
    assert progress.retries == 7
    progress.count(ClientEvent("page"))
    assert progress.count(events[0]) == "Retrying in 0.5 s: HTTP 503"

    # Of concurrent requests that wait for long, one is logged.
    lines = [progress.count(ClientEvent("rate limit", seconds=40.0)) for _ in range(3)]
    assert lines == ["Waiting 40 s for the rate limit", "", ""]
    assert progress.status == "waiting 40 s for the rate limit"
    progress.count(ClientEvent("page"))
    assert progress.status == ""
    assert progress.count(ClientEvent("rate limit", seconds=20.0)) == "Waiting 20 s for the rate limit"

"""Bad rows are kept with their reasons, by partition where they tell one, else by query, until they are gone."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import Lake, Partition, PartitionDamaged
from tests.lake.conftest import DAY


def test_bad_rows_are_set_aside_with_reason_and_raw_json_by_partition(lake: Lake) -> None:
    bad = [BadRow(reason="impressions is a whole number, not 8500.5", raw='{"impressions":8500.5}')]
    where = lake.quarantine("posts", DAY, bad, query="startDate=2024-01-03")
    assert where is not None
    assert where.endswith("/_quarantine/posts/date=2024-01-03/instance_id=instance_000/part-0.jsonl")
    (row,) = lake.quarantined("posts")
    assert (row.partition, row.reason, row.raw, row.query) == (DAY, bad[0].reason, bad[0].raw, "startDate=2024-01-03")
    assert lake.partitions("posts") == []
    assert lake.quarantined("other") == []


def test_newer_bad_rows_replace_older_ones_and_none_clear_them(lake: Lake) -> None:
    two = [BadRow(reason="first\nline", raw="1"), BadRow(reason="second \u2028", raw="2")]
    lake.quarantine("posts", DAY, two, query="q")
    assert [row.reason for row in lake.quarantined("posts")] == ["first\nline", "second \u2028"]
    lake.quarantine("posts", DAY, two[1:], query="q")
    assert [row.raw for row in lake.quarantined("posts")] == ["2"]
    for _ in range(2):
        assert lake.quarantine("posts", DAY, [], query="q") is None
        assert lake.quarantined("posts") == []


def test_bad_rows_that_tell_no_partition_are_filed_under_their_query_and_belong_to_every_day(lake: Lake) -> None:
    bad = BadRow(reason="postDate is missing", raw="{}", post_date=datetime(2024, 1, 3, tzinfo=UTC))
    lake.quarantine_query("posts", [bad], query="one")
    lake.quarantine_query("posts", [bad], query="two")
    lake.quarantine("posts", DAY, [bad], query="three")
    lake.quarantine("posts", Partition(date(2024, 1, 9), "a"), [bad], query="four")
    assert sorted(row.query for row in lake.quarantined("posts")) == ["four", "one", "three", "two"]
    of_day = lake.quarantined("posts", days=[DAY.day])
    assert {(row.query, row.partition) for row in of_day} == {("one", None), ("two", None), ("three", DAY)}
    assert lake.quarantine_query("posts", [], query="one") is None
    assert [row.query for row in lake.quarantined("posts", days=[])] == ["two"]


def test_bad_rows_that_tell_no_partition_say_which_they_may_belong_to(lake: Lake) -> None:
    bad = [BadRow(reason="postDate is missing", raw=raw) for raw in ("{}", "[]")]
    possible = {Partition(date(2024, 1, day), name) for day in (3, 9) for name in ("a/b", "..", "x|y", "é", "\udcff")}
    lake.quarantine_query("posts", bad, query="q", possible=possible)
    assert [(row.raw, row.partition, row.possible) for row in lake.quarantined("posts")] == [
        ("{}", None, possible),
        ("[]", None, possible),
    ]
    lake.quarantine_query("posts", bad[:1], query="q")
    assert [row.possible for row in lake.quarantined("posts")] == [frozenset()]
    assert lake.quarantine_query("posts", [], query="q", possible=possible) is None
    assert lake.quarantined("posts") == []


def test_a_quarantine_file_that_nobody_wrote_so_is_damaged(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    where = lake.quarantine("posts", DAY, [BadRow(reason="r", raw="{}")], query="q")
    assert where is not None
    for text in ("{", "[]\n", "5\n", '{"reason": "r"}\n', '{"possible": 5}\n', '{"possible": {"x": ["a"]}}\n'):
        Path(where).write_text(text, encoding="utf-8")
        with pytest.raises(PartitionDamaged, match="is damaged: .") as raised:
            lake.quarantined("posts")
        assert str(raised.value).startswith(f"{where} is damaged: ")
        assert "damaged: None" not in str(raised.value)

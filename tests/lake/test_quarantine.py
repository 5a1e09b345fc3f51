from datetime import date
from pathlib import Path

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import FileDamaged, Lake
from tests.lake.conftest import DAY


def test_write_stores_reason_and_raw_json_by_partition(lake: Lake) -> None:
    bad = [BadRow(reason="impressions must be a whole number, not 8500.5", raw='{"impressions":8500.5}')]
    location = lake.quarantine.write("posts", DAY, bad, query="startDate=2024-01-03")
    assert location.endswith("/_quarantine/posts/date=2024-01-03/instance_id=instance_000/part-0.jsonl")
    (row,) = lake.quarantine.rows("posts")
    assert (row.partition, row.reason, row.raw, row.query) == (DAY, bad[0].reason, bad[0].raw, "startDate=2024-01-03")
    assert lake.partitions("posts") == []
    assert lake.quarantine.rows("other") == []


def test_write_replaces_earlier_rows_and_remove_removes_them(lake: Lake) -> None:
    two = [BadRow(reason="first\nline", raw="1"), BadRow(reason="second \u2028", raw="2")]
    lake.quarantine.write("posts", DAY, two, query="q")
    assert [row.reason for row in lake.quarantine.rows("posts")] == ["first\nline", "second \u2028"]
    lake.quarantine.write("posts", DAY, two[1:], query="q")
    assert [row.raw for row in lake.quarantine.rows("posts")] == ["2"]
    (file,) = lake.quarantine.files("posts")
    for _ in range(2):
        lake.storage.remove(file.path)
        assert lake.quarantine.rows("posts") == []


def test_rows_of_a_file_in_another_format_raises(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    location = lake.quarantine.write("posts", DAY, [BadRow(reason="r", raw="{}")], query="q")
    for text in ("{", "[]\n", "5\n", '{"reason": "r"}\n'):
        Path(location).write_text(text, encoding="utf-8")
        with pytest.raises(FileDamaged, match="is damaged: .") as raised:
            lake.quarantine.rows("posts")
        assert str(raised.value).startswith(f"{location} is damaged: ")
        assert "damaged: None" not in str(raised.value)
        assert str(raised.value).endswith("Next step: materialize this partition again")


def test_damaged_file_of_a_query_names_another_next_step(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    bad, day_range = [BadRow(reason="r", raw="{}")], (date(2024, 1, 1), date(2024, 1, 2))
    Path(lake.quarantine.write_rows_without_partition("posts", bad, query="q", day_range=day_range)).write_text("{")
    with pytest.raises(FileDamaged, match="Next step: materialize the days of the query again, or remove this file$"):
        lake.quarantine.rows("posts")

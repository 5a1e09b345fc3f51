"""Tables without partitions: one file, replaced whole."""

import os
from pathlib import Path

import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, PartitionDamaged, content_hash_of
from tests.lake.conftest import DAY, files_of, rows


def test_what_is_written_is_read_back_exactly(lake: Lake) -> None:
    written = lake.write_table("posts", rows(), facts={"as_of": "2024-01-03"})
    assert (written.rows, written.content_hash, written.changed) == (20, content_hash_of(rows()), True)
    found = lake.read_table("posts", schema=POSTS_SCHEMA)
    assert found is not None
    assert found.equals(rows())


def test_it_can_be_scanned_lazily(lake: Lake) -> None:
    assert lake.table_dataset("posts", POSTS_SCHEMA).to_table().equals(POSTS_SCHEMA.empty_table())
    lake.write_table("posts", rows())
    assert lake.table_dataset("posts", POSTS_SCHEMA).to_table().equals(rows())
    few = POSTS_SCHEMA.empty_table().select(["post_id", "impressions"]).schema
    assert lake.table_dataset("posts", few).to_table().equals(rows().select(few.names))


def test_it_is_replaced_whole_and_the_same_rows_again_change_nothing(lake: Lake) -> None:
    lake.write_table("posts", rows(20))
    assert lake.write_table("posts", rows(3)).changed
    again = lake.write_table("posts", rows(3))
    assert not again.changed
    assert lake.read_table("posts", schema=POSTS_SCHEMA) == rows(3)


def test_a_rerun_touches_no_byte_and_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    file = Path(lake.write_table("posts", rows()).url)
    assert file == tmp_path / "posts" / "part-0.parquet"
    before = (files_of(tmp_path), file.stat().st_mtime_ns)
    lake.write_table("posts", rows())
    assert (files_of(tmp_path), file.stat().st_mtime_ns) == before
    file.write_bytes(b"no Parquet")
    with pytest.raises(PartitionDamaged, match="part-0.parquet is damaged"):
        lake.read_table("posts", schema=POSTS_SCHEMA)
    assert lake.write_table("posts", rows()).changed
    assert files_of(tmp_path) == before[0]


def test_what_is_not_there_is_none_and_no_partition(lake: Lake) -> None:
    assert lake.read_table("posts", schema=POSTS_SCHEMA) is None
    lake.write_table("posts", rows())
    assert lake.partitions("posts") == []
    lake.write("posts", DAY, rows(3))
    assert lake.partitions("posts") == [DAY]


def test_what_does_not_read_back_as_it_was_written_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    lake.write_table("posts", rows(3))
    before = files_of(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1))
    with pytest.raises(LakeUnavailable, match="does not read back as it was written"):
        lake.write_table("posts", rows(20))
    assert files_of(tmp_path) == before

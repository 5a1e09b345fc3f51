"""Lakes to write to, one suite over each kind of storage, and posts to write."""

import secrets
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings

from later_reporting_dagster.contract import CreatorProfile, Post
from later_reporting_dagster.lake import Lake, Partition, posts_table

# The same examples in every run, and no clock: a shared machine stalls at times.
steady = settings(deadline=None, derandomize=True)

DAY = Partition(date(2024, 1, 3), "instance_000")


class MovingFileSystem(MemoryFileSystem):
    """A filesystem whose puts are not atomic, such as SFTP: the lake has to stage and move."""

    protocol = "moving"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("moving://", "memory://"))

    def mv(self, path1: str, path2: str, **_kwargs: Any) -> None:
        self.store[path2] = self.store.pop(path1)


fsspec.register_implementation("moving", MovingFileSystem, clobber=True)


@pytest.fixture(params=["file", "memory", "moving"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/a lake"
    return f"{request.param}://{secrets.token_hex(8)}/a lake"


@pytest.fixture
def lake(root: str) -> Lake:
    return Lake(root)


def post(post_id: int = 1, **fields: Any) -> Post:
    fields = {"instance_id": "instance_000", "campaign_id": 7, "post_date": datetime(2024, 1, 3, tzinfo=UTC)} | fields
    return Post(post_id=post_id, **fields)


def rows(count: int = 20, **fields: Any) -> pa.Table:
    """`count` posts, of which every third has no metrics and every second no creator."""
    return posts_table(
        [
            post(
                number,
                content_type="instagram_reel",
                creator_profile=CreatorProfile(full_name=f"Jané {number}") if number % 2 else None,
                impressions=None if number % 3 == 0 else number * 100,
                cpm=None if number % 3 == 0 else number / 8,
                **fields,
            )
            for number in range(count)
        ]
    )


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }

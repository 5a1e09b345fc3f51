"""Lakes on each kind of storage, and posts to write to them."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from later_reporting_dagster.contract import DEFAULT_METRICS, Metric, Post
from later_reporting_dagster.contract.rows import CreatorProfile, with_metrics
from later_reporting_dagster.lake import Lake, Partition, posts_table

DAY = Partition(date(2024, 1, 3), "instance_000")


class BucketFileSystem(MemoryFileSystem):
    """An object store: its puts are atomic, it lists by prefix, and its listings have ETags."""

    protocol = ("bucket", "s3")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("bucket://", "memory://"))

    def find(
        self, path: str, maxdepth: Any = None, withdirs: bool = False, detail: bool = False, prefix: str = "", **_: Any
    ) -> Any:
        path = f"/{path.lstrip('/')}"
        self.requests.append(f"list {path}/{prefix}")
        found = {
            name: {"name": name, "size": file.size, "type": "file", "ETag": f'"{hash(file.getvalue())}"'}
            for name, file in self.store.items()
            if name.startswith(f"{path}/{prefix}")
        }
        return found if detail else sorted(found)

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        self.requests.append(f"get {path}")
        return super().cat_file(path, *args, **options)

    def info(self, path: str, **_: Any) -> Any:
        raise AssertionError("a request for one file alone")


fsspec.register_implementation("bucket", BucketFileSystem, clobber=True)


@pytest.fixture(params=["file", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """An empty lake, on each kind of storage."""
    return Lake(f"file://{tmp_path}/a lake, 'Zoë'") if request.param == "file" else remote_lake("bucket")


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    """An empty lake on a local disk."""
    return Lake(str(tmp_path / "lake"))


def remote_lake(scheme: str) -> Lake:
    """Return an empty lake on an object store, or in memory."""
    return Lake(f"{scheme}://{secrets.token_hex(8)}/lake")


def post(post_id: int = 1, *, metrics: tuple[Metric, ...] = DEFAULT_METRICS, **fields: Any) -> Post:
    fields = {"instance_id": "instance_000", "campaign_id": 7, "post_date": datetime(2024, 1, 3, tzinfo=UTC)} | fields
    created: Post = with_metrics(Post, metrics)(post_id=post_id, **fields)
    return created


def rows(count: int = 20, **fields: Any) -> pa.Table:
    """Return `count` posts; every third has no metrics and every second no creator."""
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


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def put_directory_in_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


# Ways to spoil a file.
SPOIL: dict[str, Callable[[Path], object]] = {
    "lose": Path.unlink,
    "truncate": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "obstruct": put_directory_in_place,
}


@contextmanager
def unreadable(paths: Iterable[Path]) -> Iterator[None]:
    """Overwrite files with zeros for a while, keeping their sizes and modification times."""
    stored = {path: (path.read_bytes(), path.stat()) for path in paths if path.exists()}

    def put(path: Path, data: bytes, status: os.stat_result) -> None:
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    for path, (data, status) in stored.items():
        put(path, bytes(len(data)), status)
    yield
    for path, (data, status) in stored.items():
        put(path, data, status)

"""List the partitions of a directory in the lake."""

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain, groupby

from later_reporting_dagster.lake.concurrency import map_concurrently
from later_reporting_dagster.lake.partition_paths import (
    Partition,
    day_directory,
    first_of_month,
    parse_partition_directory,
)
from later_reporting_dagster.lake.storage import Storage


def find_directories(
    storage: Storage, parent: str, file_name: str, *, days: Iterable[date] | None = None
) -> Iterator[tuple[str, Partition | None]]:
    """Yield each directory below `parent` that has a file `file_name`.

    Args:
        storage: the lake's files.
        parent: a directory below the lake's root, `/`-separated.
        file_name: the name of the file to look for.
        days: list only the directories of these days; by default all of `parent`. On an object store, it takes one
            request for each month.

    Yields:
        The directory's path below the lake's root, and its partition; None if it is not the directory of a partition.

    Raises:
        LakeUnavailable: a directory cannot be listed.
    """
    listings = [[parent]]
    if days is not None:
        months = groupby(sorted(set(days)), key=first_of_month)
        listings = [[day_directory(parent, day) for day in of_month] for _, of_month in months]
    for path in chain.from_iterable(map_concurrently(storage.files_of, listings)):
        directory, _, name = path.rpartition("/")
        if name == file_name:
            yield directory, parse_partition_directory(directory.removeprefix(f"{parent}/"))


def partition_sort_key(partition: Partition) -> tuple[date, str]:
    """Return the key that sorts partitions by day, then instance; partitions without an instance come first."""
    return partition.day, partition.instance_id or ""

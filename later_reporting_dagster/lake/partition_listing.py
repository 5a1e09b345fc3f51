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
from later_reporting_dagster.lake.storage import FileVersion, Storage


def find_directories(
    storage: Storage, parent: str, file_name: str, *, days: Iterable[date] | None = None
) -> Iterator[tuple[str, Partition | None, FileVersion]]:
    """Yield each directory below `parent` that has a file `file_name`.

    Args:
        storage: the lake's files.
        parent: a directory below the lake's root, `/`-separated.
        file_name: the name of the file to look for.
        days: list only the directories of these days; by default all of `parent`. On an object store, it takes one
            request for each month.

    Yields:
        The directory's path below the lake's root; its partition, None if it is not the directory of one; and the
        version of the file.

    Raises:
        LakeUnavailable: a directory cannot be listed.
    """
    listings = [[parent]]
    if days is not None:
        months = groupby(sorted(set(days)), key=first_of_month)
        listings = [[day_directory(parent, day) for day in of_month] for _, of_month in months]
    found = map_concurrently(lambda directories: storage.named_files(directories, file_name), listings)
    for path, version in chain.from_iterable(versions.items() for versions in found):
        directory = path.rpartition("/")[0]
        yield directory, parse_partition_directory(directory.removeprefix(f"{parent}/")), version


def partition_sort_key(partition: Partition) -> tuple[date, str]:
    """Return the key that sorts partitions by day, then instance; partitions without an instance come first."""
    return partition.day, partition.instance_id or ""

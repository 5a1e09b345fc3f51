"""Which partitions have a file of a name, below a directory of the lake."""

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain

from later_reporting_dagster.lake.concurrency import side_by_side
from later_reporting_dagster.lake.partition_paths import Partition, day_directory, partition_of
from later_reporting_dagster.lake.storage import Storage


def directories_with(
    storage: Storage, under: str, name: str, *, days: Iterable[date] | None = None
) -> Iterator[tuple[str, Partition | None]]:
    """Directories below `under` that hold a file `name`, each with its partition where it is one; of `days`, if given.

    Raises:
        LakeUnavailable: they cannot be listed.
    """
    places = [under] if days is None else [day_directory(under, day) for day in sorted(set(days))]
    for path in chain.from_iterable(side_by_side(storage.files, places)):
        directory, _, file = path.rpartition("/")
        if file == name:
            yield directory, partition_of(directory.removeprefix(f"{under}/"))


def by_day(partition: Partition) -> tuple[date, str]:
    """Sorts partitions by day, then instance."""
    return partition.day, partition.instance_id or ""

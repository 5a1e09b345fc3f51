"""What happened to each partition of a fetch."""

from dataclasses import dataclass

import pyarrow as pa

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.ingest.write_guard import PartitionDiff
from later_reporting_dagster.lake import LakeUnavailable, Partition, ReplacementRejected, WriteResult


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPartition:
    """A partition that is stored in the lake, complete and verified.

    `bad_rows`: number of its rows in quarantine. `diff`: None if nothing changed, or if there was no readable file.
    """

    partition: Partition
    file: WriteResult
    rows: pa.Table
    bad_rows: int
    diff: PartitionDiff | None = None


# The API, the lake or the write guard failed, or the instance id cannot be part of a path.
PartitionError = LaterError | LakeUnavailable | ReplacementRejected | ValueError


def reason_of(error: Exception) -> str:
    """Return the message of an error, without its query."""
    return error.reason if isinstance(error, LaterError) else str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPartition:
    """A partition that was not replaced, and the reason."""

    partition: Partition
    error: PartitionError

    def __post_init__(self) -> None:
        # Results are kept until the end of a run, and the frames of a traceback keep whole pages in memory.
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None

    @property
    def reason(self) -> str:
        """The error without its query, which may be that of other days or instances, whose failure decided this one."""
        return reason_of(self.error)


PartitionResult = WrittenPartition | FailedPartition

"""What a snapshot is read from: the state of the lake's files for a query, and the protocol of a source of rows."""

import hashlib
import secrets
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Protocol

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.server.missing_files import MissingFiles
from later_reporting_dagster.server.snapshots import Snapshot

_VERSION_BYTES = 12


class LakeChanged(Exception):  # noqa: N818 - named for what happened
    """A file was replaced or removed between its listing and its read."""


class RowsNotRead(Exception):  # noqa: N818 - named for what happened
    """The rows cannot be read.

    Args:
        reason: The reason and the next step, for clients: without the location of the lake.
        may_be_of_files: Whether it may be because of a file of the lake, rather than of memory.
    """

    def __init__(self, reason: str, *, may_be_of_files: bool = True) -> None:
        super().__init__(reason)
        self.may_be_of_files = may_be_of_files


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Limits of reads.

    Attributes:
        memory_gb: Memory limit of DuckDB, in GB.
        directory: Directory of temporary files; empty: for what DuckDB spills as in `open_database`, else the system's.
    """

    memory_gb: float
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeState:
    """The files that a query reads.

    Attributes:
        version: Identifies the versions of the files.
        partitions: The partitions that exist.
        missing: The files that do not.
        unknown_instances: Requested instances of which nothing is known.
    """

    version: bytes
    partitions: Sequence[Partition] = ()
    missing: MissingFiles = MissingFiles()
    unknown_instances: Sequence[str] = ()


class RowSource(Hashable, Protocol):
    """The rows of a query, without their order."""

    def inspect(self, lake: Lake, now: datetime) -> LakeState:
        """Return the state of the files of the query.

        Raises:
            ProblemError: The lake does not have these rows.
            LakeUnavailable: The files cannot be listed.
        """

    def read(self, lake: Lake, state: LakeState, limits: ReadLimits) -> Snapshot:
        """Return a snapshot of the rows. Its version is that of the state, if no file changed meanwhile.

        Raises:
            LakeChanged: A file was replaced or removed. Inspect the files again.
            RowsNotRead: A file cannot be read, or the query needs too much memory.
            SnapshotNotWritten: A temporary file cannot be written.
        """


def version_of_files(lake: Lake, paths: Iterable[str]) -> bytes:
    """Return a digest of the current versions of some files, by path.

    It also depends on the versions of the libraries that decide the order of equal rows. If the filesystem does not
    report versions, the digest is random.
    """
    wanted = sorted(paths)
    versions = lake.storage.versions(wanted) if wanted else {}
    identities = [(path, versions[path].identity if path in versions else "") for path in wanted]
    if any(identity is None for _, identity in identities):
        return random_version()
    text = repr((identities, version("duckdb"), version("later-reporting-dagster")))
    return hashlib.blake2b(text.encode(), digest_size=_VERSION_BYTES).digest()


def random_version() -> bytes:
    """Return a version that no state of the files has."""
    return secrets.token_bytes(_VERSION_BYTES)

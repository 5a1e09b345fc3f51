"""Versions of a partition that were replaced, kept for as long as somebody may want one of them back.

They lie under `{root}/_versions/{asset}/date=…/instance_id=…/{when replaced}-{start of the content's hash}.parquet`,
and are the very bytes that were replaced. Other readers of the lake skip what begins with an underscore.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from later_reporting_dagster.lake.partition import Partition, versions_directory
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage

# Without colons, which some filesystems and shells take for something else; by name they sort by time.
_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{12})\.parquet")
_HASH_CHARACTERS = 12


@dataclass(frozen=True, order=True, slots=True)
class KeptVersion:
    """A version of a partition that was replaced. `content_hash` is the start of the hash of its content."""

    replaced_at: datetime
    content_hash: str


class KeptVersions:
    """The versions that a lake keeps: written before what replaces them is shown, and pruned after it is.

    So a crash at any moment leaves at worst one version too many: one that still is what lies in the lake, which the
    next writer finds and does not keep again.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def of(self, asset: str, partition: Partition) -> list[KeptVersion]:
        """The versions of a partition, the newest first."""
        directory = versions_directory(asset, partition)
        found = [_version_of(path.removeprefix(f"{directory}/")) for path in self._storage.files(directory)]
        return sorted((version for version in found if version is not None), reverse=True)

    def read(self, asset: str, partition: Partition, version: KeptVersion) -> bytes | None:
        """The file as it was when it was replaced; None when it is not kept any more."""
        return self._storage.read(_path(asset, partition, version))

    def keep(
        self, asset: str, replaced: Mapping[Partition, tuple[str, bytes]], *, now: datetime
    ) -> dict[Partition, LakeUnavailable]:
        """Keeps what is about to be replaced, by partition its content's hash and its file.

        Returns:
            Those that could not be kept, each with why.
        """
        failed: dict[Partition, LakeUnavailable] = {}
        files: dict[str, bytes] = {}
        of_path: dict[str, Partition] = {}
        for partition, (content_hash, data) in replaced.items():
            version = KeptVersion(now.astimezone(UTC), content_hash[:_HASH_CHARACTERS])
            try:
                newest = self.of(asset, partition)[:1]
            except LakeUnavailable as error:
                failed[partition] = error
                continue
            if [each.content_hash for each in newest] != [version.content_hash]:
                path = _path(asset, partition, version)
                files[path], of_path[path] = data, partition
        unwritten = self._storage.write_all(files)
        return failed | {of_path[path]: error for path, error in unwritten.items()}

    def prune(self, asset: str, partitions: Iterable[Partition], *, keep: int) -> None:
        """Removes all but the newest `keep` versions of each, the oldest first.

        Raises:
            LakeUnavailable: one cannot be removed; it is the next writer's to remove then.
        """
        for partition in partitions:
            for version in reversed(self.of(asset, partition)[keep:]):
                self._storage.remove(_path(asset, partition, version))


def _path(asset: str, partition: Partition, version: KeptVersion) -> str:
    name = f"{version.replaced_at.strftime(_TIME)}-{version.content_hash}.parquet"
    return f"{versions_directory(asset, partition)}/{name}"


def _version_of(name: str) -> KeptVersion | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return KeptVersion(datetime.strptime(match[1], _TIME).replace(tzinfo=UTC), match[2])

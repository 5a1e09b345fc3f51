"""Cache of the detected API version, shared by the processes of a user, so that only one of them has to detect it."""

import logging
from pathlib import Path

from later_reporting_dagster.client.file_rate_limit_store import rate_limit_state_path
from later_reporting_dagster.client.private_file import private_file
from later_reporting_dagster.contract import API_VERSIONS, ApiVersion

logger = logging.getLogger(__name__)


def version_cache_path(base_url: str) -> Path | None:
    """Return the file of the cache, in the folder of the shared rate limit; None if the rate limit is not shared.

    Raises:
        ValueError: `base_url` is invalid.
    """
    rate_limit_state = rate_limit_state_path(base_url)
    return rate_limit_state and rate_limit_state.with_name(rate_limit_state.name.replace("rate-", "version-"))


class VersionCache:
    """Cache of the API version that a service used last.

    Args:
        path: the shared file; None to keep the version in memory. If the file cannot be used, each process has to
            detect the version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._version: ApiVersion | None = None

    def load(self) -> ApiVersion | None:
        """Return the cached version; None if none is cached or the file cannot be read."""
        if self._version is None and self._path is not None:
            try:
                with private_file(self._path) as file:
                    self._version = API_VERSIONS.get(file.read().decode("ascii"))
            except (OSError, ValueError):
                return None
        return self._version

    def store(self, version: ApiVersion) -> None:
        """Cache a version."""
        self._version = version
        if self._path is None:
            return
        try:
            with private_file(self._path) as file:
                # Not atomic: a process that reads in between finds no valid name, and detects the version.
                file.truncate()
                file.write(version.name.encode("ascii"))
        except OSError as error:
            logger.info("the API version is not cached for other processes: %s: %s", self._path, error)

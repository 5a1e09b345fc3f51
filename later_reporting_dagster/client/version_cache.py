"""Which revision of the API a service was last heard to speak, kept for the next process so that it need not ask."""

import logging
from pathlib import Path

from later_reporting_dagster.client.private_file import private_file
from later_reporting_dagster.client.rate_limiter import shared_state_path
from later_reporting_dagster.contract import REVISIONS, Revision

logger = logging.getLogger(__name__)


def remembered_revision_path(base_url: str) -> Path | None:
    """Where the processes of this user keep it, beside the rate limit that they share; None where they share none.

    Raises:
        ValueError: it is not a base URL.
    """
    rate = shared_state_path(base_url)
    return rate and rate.with_name(rate.name.replace("rate-", "revision-"))


class RevisionMemory:
    """What is known of a service's revision.

    Args:
        path: the shared file; None keeps it for whoever holds this object. One that cannot be used costs a question a
            process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: Revision | None = None

    def recall(self) -> Revision | None:
        """The revision that was last heard of; None when none was, or when what is there is not readable."""
        if self._known is None and self._path is not None:
            try:
                with private_file(self._path) as file:
                    self._known = REVISIONS.get(file.read().decode("ascii"))
            except (OSError, ValueError):
                return None
        return self._known

    def keep(self, revision: Revision) -> None:
        """Keeps what was heard."""
        self._known = revision
        if self._path is None:
            return
        try:
            with private_file(self._path) as file:
                # A reader who comes in between finds what names no revision, and asks.
                file.truncate()
                file.write(revision.name.encode("ascii"))
        except OSError as error:
            logger.info("the revision of the API is not kept for other processes: %s: %s", self._path, error)

"""The ledger of the rate limit in a file that the processes of one user on a machine share."""

import asyncio
import fcntl
import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

from later_reporting_dagster.client.base_url import validate_base_url
from later_reporting_dagster.client.private_file import private_file
from later_reporting_dagster.client.rate_ledger import Ledger
from later_reporting_dagster.client.rate_limit_store import LedgerChange, StoreUnavailable

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002


def rate_limit_state_path(base_url: str) -> Path | None:
    """Return the file in which the processes of this user share reservations for the host of `base_url`.

    Returns:
        None if the user has neither a cache folder nor a home, as in some containers.

    Raises:
        ValueError: `base_url` is invalid.
    """
    host = hashlib.sha256(validate_base_url(base_url).encode()).hexdigest()[:16]
    directory = _cache_directory()
    return directory and directory / "later-reporting" / f"rate-{host}"


def _cache_directory() -> Path | None:
    if sys.platform != "darwin" and (directory := os.environ.get("XDG_CACHE_HOME")):
        return Path(directory)
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:
        # The folder for temporary files is not a substitute: another user could have created the file there.
        _warn_once("the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME")
        return None


_warn_once = cache(logger.warning)


class FileRateLimitStore:
    """Stores the ledger in a file.

    Args:
        path: the file; created if absent.
        clock: returns seconds since the epoch; the same for all processes.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger, without blocking the event loop while another process has locked the file.

        Raises:
            StoreUnavailable: the file cannot be written, or stays locked.
        """
        try:
            self._update(change, timeout_seconds=0)
        except BlockingIOError:
            try:
                await asyncio.to_thread(self._update, change, timeout_seconds=LOCK_TIMEOUT_SECONDS)
            except BlockingIOError:
                raise StoreUnavailable(f"{self._path} stays locked") from None

    def close(self) -> None:
        """Do nothing: the file is open during an update only."""

    def _update(self, change: LedgerChange, *, timeout_seconds: float) -> None:
        try:
            with private_file(self._path) as stream:
                _lock(stream, timeout_seconds=timeout_seconds)
                ledger = Ledger.from_bytes(stream.read())
                change(ledger, self._clock())
                stream.seek(0)
                stream.write(ledger.to_bytes())
                stream.truncate()
        except BlockingIOError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error


def _lock(stream: BinaryIO, *, timeout_seconds: float) -> None:
    """Lock a file until it is closed; raise `BlockingIOError` if it stays locked for longer than the timeout."""
    for attempts_left in range(int(timeout_seconds / LOCK_POLL_SECONDS), -1, -1):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if attempts_left == 0:
                raise
            time.sleep(LOCK_POLL_SECONDS)

"""Stores of the ledger of the rate limit: in memory, in a file of this user, and another store as a fallback."""

import asyncio
import errno
import fcntl
import hashlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from later_reporting_dagster.client.auth import validate_base_url
from later_reporting_dagster.client.rate_limiter import Ledger, LedgerChange, RateLimitStore, StoreUnavailable

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.002


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing; create it and its folder if absent."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _check_private(folder, path.parent)
        # Relative to the checked folder, because the path may point elsewhere by now.
        file = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "r+b") as stream:
        _check_private(file, path)
        yield stream


def _check_private(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "must belong to this user and not be writable by others", str(path))


class FallbackRateLimitStore:
    """Uses another store while the first one is unavailable, so that no request fails because of it."""

    def __init__(
        self,
        first: RateLimitStore,
        fallback: RateLimitStore,
        *,
        shared_with: str,
        retry_seconds: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._first = first
        self._fallback = fallback
        self._shared_with = shared_with
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._retry_at: float | None = None

    async def update(self, change: LedgerChange) -> None:
        if self._retry_at is None or self._clock() >= self._retry_at:
            try:
                await self._first.update(change)
            except StoreUnavailable as error:
                if self._retry_at is None:
                    logger.warning("the rate limit is not shared with other %s: %s", self._shared_with, error)
                self._retry_at = self._clock() + self._retry_seconds
            else:
                if self._retry_at is not None:
                    logger.info("the rate limit is shared with other %s again", self._shared_with)
                self._retry_at = None
                return
        await self._fallback.update(change)

    def close(self) -> None:
        self._first.close()
        self._fallback.close()


def rate_limit_state_path(base_url: str) -> Path | None:
    """Return the file in which the processes of this user share reservations for the host of `base_url`.

    None if the user has neither a cache folder nor a home, as in some containers.
    """
    host = hashlib.sha256(validate_base_url(base_url).encode()).hexdigest()[:16]
    is_mac = sys.platform == "darwin"
    try:
        cache_of_user = "" if is_mac else os.environ.get("XDG_CACHE_HOME")
        folder = Path(cache_of_user) if cache_of_user else Path.home() / ("Library/Caches" if is_mac else ".cache")
    except RuntimeError:
        # The folder for temporary files is not a substitute: another user could have created the file there.
        _warn_once("the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME")
        return None
    return folder / "later-reporting" / f"rate-{host}"


_warn_once = cache(logger.warning)


class FileRateLimitStore:
    """Stores the ledger in a file."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock

    async def update(self, change: LedgerChange) -> None:
        """Apply a change to the ledger, without blocking the event loop while another process has locked the file."""
        try:
            self._update(change, timeout_seconds=0)
        except BlockingIOError:
            try:
                await asyncio.to_thread(self._update, change, timeout_seconds=LOCK_TIMEOUT_SECONDS)
            except BlockingIOError:
                raise StoreUnavailable(f"{self._path} stays locked") from None

    def close(self) -> None:
        pass  # the file is open during an update only

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

"""Chooses the store of the rate limit by its URL."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from later_reporting_dagster.client.base_url import validate_base_url
from later_reporting_dagster.client.file_rate_limit_store import FileRateLimitStore, rate_limit_state_path
from later_reporting_dagster.client.rate_limit_store import FallbackRateLimitStore, MemoryRateLimitStore, RateLimitStore
from later_reporting_dagster.client.store_url import StoreUrl

RETRY_SECONDS = 60.0


def rate_limit_store(url: str, *, base_url: str, clock: Callable[[], float] = time.time) -> RateLimitStore:
    """Return the store in which requests to the host of `base_url` are counted.

    Args:
        url: PostgreSQL, shared by machines; empty for a file of this user on this machine. While the server is
            unavailable, a warning is logged and the file is used; if that is unavailable too, this process counts its
            own requests only.
        base_url: address of the API.
        clock: returns seconds since the epoch.

    Raises:
        ValueError: `url` or `base_url` is invalid, or the library for `url` is not installed.
    """
    store = local_rate_limit_store(rate_limit_state_path(base_url), clock=clock)
    if not url:
        return store
    return FallbackRateLimitStore(
        shared_rate_limit_store(url, base_url=base_url),
        store,
        shared_with="machines",
        retry_seconds=RETRY_SECONDS,
        clock=clock,
    )


def local_rate_limit_store(path: Path | None, *, clock: Callable[[], float] = time.time) -> RateLimitStore:
    """Return a store in a file, with memory as its fallback; a store in memory if `path` is None."""
    memory = MemoryRateLimitStore(clock=clock)
    if path is None:
        return memory
    file = FileRateLimitStore(path, clock=clock)
    return FallbackRateLimitStore(file, memory, shared_with="processes", clock=clock)


def shared_rate_limit_store(url: str, *, base_url: str) -> RateLimitStore:
    """Return a store in PostgreSQL, without a fallback. Nothing is connected yet.

    Raises:
        ValueError: `url` or `base_url` is invalid, or the library for `url` is not installed.
    """
    store_url = StoreUrl(url)
    host = httpx.URL(validate_base_url(base_url)).netloc.decode()
    try:
        from later_reporting_dagster.client.postgres_rate_limit_store import PostgresRateLimitStore
    except ModuleNotFoundError as error:
        if error.name != "psycopg2":
            raise
        raise ValueError("psycopg2 is not installed: pip install 'later-reporting-dagster[postgres]'") from None
    return PostgresRateLimitStore(store_url, host=host)

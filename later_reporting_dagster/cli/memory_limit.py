"""A limit of the memory of this process, for what DuckDB's own limit does not count, such as single large values."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def limited_memory(gigabytes: float) -> Iterator[None]:
    """Let allocations beyond what the process has now and some GB fail while the block runs; on Linux only."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
    # A limit of the caller that is lower stays.
    resource.setrlimit(resource.RLIMIT_DATA, (min(each for each in (limit, soft, hard) if each >= 0), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

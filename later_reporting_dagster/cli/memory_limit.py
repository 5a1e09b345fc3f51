"""A limit of the memory of the process for a query. DuckDB's own limit does not count single large values."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from later_reporting_dagster.reading.sql_query import out_of_memory


@contextmanager
def limited_memory(memory_gb: float) -> Iterator[None]:
    """Run a query and format its result within the memory of DuckDB, as much again for the rows, and 1 GB.

    Only on Linux: elsewhere, the block runs without this limit.

    Raises:
        QueryError: the memory does not suffice.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text(encoding="ascii").split()[5]) * resource.getpagesize()
        limit = used + int((2 * memory_gb + 1) * 1e9)
        # A lower limit of the caller stays.
        resource.setrlimit(resource.RLIMIT_DATA, (min(each for each in (limit, soft, hard) if each >= 0), hard))
    try:
        yield
    except MemoryError as error:
        raise out_of_memory(memory_gb) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

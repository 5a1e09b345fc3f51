from collections.abc import Iterator

import pytest

from tests.crash.fork_server import ForkServer, fork_server


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Fork server for processes that write partitions."""
    with fork_server("tests.crash.lake_writers", log=tmp_path_factory.mktemp("writers") / "log") as server:
        yield server

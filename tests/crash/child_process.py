"""Start processes to be killed: forks of a server that has imported their modules, so that they start fast."""

import multiprocessing
import signal
from collections.abc import Callable
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
# Not gcsfs: the gRPC that it imports does not survive forks, so each child has to import it itself.
_CONTEXT.set_forkserver_preload(["pytest", "s3fs", "adlfs", "tests.crash.lake_writers", "tests.crash.backfill_command"])


class ChildProcess:
    """A process that calls a function of a module."""

    def __init__(self, function: Callable[..., object], **arguments: Any) -> None:
        self._process = _CONTEXT.Process(target=function, kwargs=arguments)
        self._process.start()

    def kill(self) -> bool:
        """Kill the process with SIGKILL; return whether it was still running."""
        self._process.kill()
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int | None:
        """Wait for the end of the process; return its exit code, or the negative number of the signal."""
        self._process.join()
        return self._process.exitcode

    def wait_for_success(self) -> None:
        """Wait for the end of the process; fail if its exit code is not 0. It has printed the reason."""
        assert self.wait() == 0

"""Start processes to be killed: forks of a server process that has imported their modules, so that they start fast."""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process that runs one function of the server's module."""

    pid: int
    server: "ForkServer"

    def kill(self) -> bool:
        """Kill the process with SIGKILL; return whether it was still running."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the pid is not reused
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Wait for the end of the process; return its exit code, or the negative number of the signal."""
        return os.waitstatus_to_exitcode(self.server.request({"wait": self.pid}))

    def wait_for_success(self) -> None:
        """Wait for the end of the process; fail with its output if its exit code is not 0."""
        assert self.wait() == 0, self.server.log.read_text(encoding="utf-8", errors="replace")[-4000:]


class ForkServer:
    """Starts child processes. Not thread-safe."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self.log = log

    def start(self, function: str, **arguments: Any) -> ChildProcess:
        """Start a child that calls a function of the module with JSON values as arguments."""
        return ChildProcess(self.request({"call": function, "arguments": arguments}), self)

    def request(self, request: Mapping[str, Any]) -> int:
        """Send a request to the server process; return the pid or the wait status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def fork_server(
    module: str, *imports: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ForkServer]:
    """Run a fork server while the block runs.

    Args:
        module: Module with the functions to call.
        *imports: More modules to import before the forks.
        log: File for the output of the children.
        environment: Environment variables; None: those of this process.

    Yields:
        The fork server.
    """
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(
            [sys.executable, "-m", "tests.crash.fork_server", module, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        ) as process,
    ):
        yield ForkServer(process, log)
        assert process.stdin is not None
        process.stdin.close()


def main(module: str, *imports: str) -> None:
    """Fork a child, or wait for one, for each request on standard input. This process has no threads."""
    functions, *_ = [importlib.import_module(name) for name in (module, *imports)]
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitpid(request["wait"], 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os._exit(_call(functions, request["call"], request["arguments"]))
        print(pid, flush=True)


def _call(functions: ModuleType, name: str, arguments: Mapping[str, Any]) -> int:
    """Call a function; return the exit code of the child."""
    # Standard output belongs to the server's responses.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        getattr(functions, name)(**arguments)
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            return 0
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])

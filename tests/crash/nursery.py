"""Processes to be killed: forked from one that has imported what they need, so that they live within milliseconds."""

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
class Child:
    """A process of its own that runs one function of the nursery's module."""

    pid: int
    nursery: "Nursery"

    def kill(self) -> bool:
        """Ends it as a loss of power would, with SIGKILL; whether it was still at work."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the pid is no one else's
        return self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Its exit code, once it has ended; negative, the signal that ended it."""
        return os.waitstatus_to_exitcode(self.nursery.ask({"wait": self.pid}))

    def succeed(self) -> None:
        """Waits for it, and fails with what it said when it failed."""
        assert self.wait() == 0, self.nursery.log.read_text(encoding="utf-8", errors="replace")[-4000:]


class Nursery:
    """Starts children. Ask it from one thread at a time."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self.log = log

    def start(self, function: str, **arguments: Any) -> Child:
        """A child that calls a function of the module with JSON values."""
        return Child(self.ask({"call": function, "arguments": arguments}), self)

    def ask(self, request: Mapping[str, Any]) -> int:
        """The pid or the status that the nursery answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def nursery(module: str, *also: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """A nursery for the functions of a module, while the block runs, with other modules imported `also`.

    What its children say is in `log`.
    """
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery", module, *also],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=REPOSITORY,
            env=environment,
        ) as process,
    ):
        yield Nursery(process, log)
        assert process.stdin is not None
        process.stdin.close()


def main(module: str, *also: str) -> None:
    """Forks a child for each line of standard input that asks for one; this process has no threads of its own."""
    functions, *_ = [importlib.import_module(name) for name in (module, *also)]
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(os.waitpid(request["wait"], 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os._exit(_live(functions, request["call"], request["arguments"]))
        print(pid, flush=True)


def _live(functions: ModuleType, name: str, arguments: Mapping[str, Any]) -> int:
    # Standard output is where the nursery answers.
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

"""Test each mutant of a folder in a fork of one pytest process, which collects the tests once.

`python -m tests.mutation` starts it in mutmut's copy of the project. Forks start after the collection, before fixtures
and threads. A fork runs only the tests that call the mutated function, starting with those that killed its other
mutants, and stops at the first failure.

Functions that are called on import, such as those that build the column dictionaries, have run before the fork. If one
of their mutants survives, it is tested again in a fork that first imports the modules of the project again.
"""

import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import Phase, settings
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

# CPU seconds for the tests of one mutant; fast tests run first.
BUDGET_SECONDS = 10.0
# Limit of the CPU time of a test: a number of seconds plus a multiple of its time without a mutant. The limit of the
# wall time is three times that. On a busy machine any test can exceed it, so a mutant hangs only if it also exceeds
# a larger limit at a second attempt.
LIMIT_SECONDS = 10.0
LIMIT_FACTOR = 10.0
SECOND_LIMIT_SCALE = 4.0
# Hanging mutants mostly wait.
CONCURRENCY = (os.cpu_count() or 1) + 1
# Examples of each property test.
EXAMPLES = 30

# `--tb=native`, because pytest's tracebacks parse the source file, which has up to a megabyte with all mutants.
ARGUMENTS = (
    *("-q", "-x", "--tb=native", "--capture=no", "-W"),
    "ignore::pytest.PytestAssertRewriteWarning",  # for plugins that are already imported
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "pytest_cov")),
    "-pno:faulthandler",  # the traceback of a crashed interpreter is not needed
)
PROJECT = ("later_reporting_dagster", "tests")


class Outcome(StrEnum):
    """Result of the tests of a mutant."""

    KILLED = "killed"
    HANG = "hang"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to kill a mutant.

    Attributes:
        mutant: mutmut's name of the mutant.
        reimport: Whether to import the modules of the project again.
        limit_scale: Multiple of the usual time limit.
    """

    mutant: str
    reimport: bool = False
    limit_scale: float = 1.0

    @property
    def function(self) -> str:
        """mutmut's name of the mutated function."""
        return mangled_name_from_mutant_name(self.mutant)


class MutantTester:
    """A pytest plugin that runs some of the collected tests for each mutant, instead of all tests once."""

    def __init__(self, mutants: Sequence[str], file: Path) -> None:
        self._mutants = mutants
        self._file = file
        self._failure = ""
        self._items: list[pytest.Item] = []
        self._seconds: dict[str, float] = {}
        self._callers: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        self._on_import: frozenset[str] = frozenset()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failure = f"{report.nodeid}\n{report.longreprtext}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests without a mutant, then some tests for each mutant; write a JSON line for each mutant."""
        self._items = session.items
        self._on_import = frozenset(state()._stats)
        state()._stats.clear()
        gc.freeze()
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
            self._file.open("w", encoding="utf-8") as lines,
        ):
            self._run_without_mutant(Path(name))
            for mutant, outcome, test in self._outcomes(Path(name)):
                line = {"mutant": mutant, "outcome": outcome, "test": test}
                print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
        return True

    def _run_without_mutant(self, scratch: Path) -> None:
        """Run all tests in a fork; record the called functions and the time of each."""
        file = scratch / "calls.json"
        if not (child := os.fork()):
            _isolate(scratch)
            tests = {}
            for number, item in enumerate(self._items):
                started = time.process_time()
                if self._fails(item, following=self._items[(number + 1) % len(self._items)]):
                    file.write_text(self._failure, encoding="utf-8")
                    os._exit(1)
                tests[item.nodeid] = time.process_time() - started, sorted(state()._stats)
                state()._stats.clear()
            file.write_text(json.dumps({"tests": tests, "imported": [*sys.modules]}), encoding="utf-8")
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise pytest.UsageError(f"a test fails without a mutant: {file.read_text(encoding='utf-8')}")
        recorded = json.loads(file.read_text(encoding="utf-8"))
        for module in recorded["imported"]:  # by the tests; imported here once instead of in each fork
            if module.partition(".")[0] not in PROJECT:
                with suppress(ImportError):
                    importlib.import_module(module)
        self._seconds = {test: seconds for test, (seconds, _) in recorded["tests"].items()}
        self._items = sorted(self._items, key=lambda item: self._seconds[item.nodeid])
        for item in self._items:
            for function in recorded["tests"][item.nodeid][1]:
                self._callers[function].append(item)

    def _outcomes(self, scratch: Path) -> Iterator[tuple[str, Outcome, str]]:
        """Yield each mutant, its outcome, and the last test that ran."""
        waiting = deque(
            Attempt(mutant, reimport=mangled_name_from_mutant_name(mutant) not in self._callers)
            for mutant in self._mutants
        )
        hanging: list[Attempt] = []
        running: dict[int, tuple[Attempt, Path]] = {}
        while waiting or running or hanging:
            if not waiting and not running:
                waiting.extend(hanging)
                hanging.clear()
            while waiting and len(running) < CONCURRENCY:
                attempt = waiting.popleft()
                folder = Path(tempfile.mkdtemp(dir=scratch))
                if not (child := os.fork()):
                    _isolate(folder)
                    self._try(attempt, folder / "test")
                running[child] = attempt, folder
            child, status = os.wait()
            if child not in running:
                continue
            attempt, folder = running.pop(child)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes started by the tests
            test = (folder / "test").read_text(encoding="utf-8") if (folder / "test").exists() else ""
            shutil.rmtree(folder, ignore_errors=True)
            outcome = _outcome(os.waitstatus_to_exitcode(status))
            if outcome is Outcome.HANG and attempt.limit_scale == 1:
                hanging.append(replace(attempt, limit_scale=SECOND_LIMIT_SCALE))
            elif outcome is Outcome.SURVIVED and attempt.function in self._on_import and not attempt.reimport:
                waiting.append(replace(attempt, reimport=True))
            else:
                if outcome is Outcome.KILLED:
                    self._tests_for(attempt).sort(key=lambda item, test=test: item.nodeid != test)
                yield attempt.mutant, outcome, test

    def _tests_for(self, attempt: Attempt) -> list[pytest.Item]:
        return self._items if attempt.reimport else self._callers[attempt.function]

    def _try(self, attempt: Attempt, test: Path) -> NoReturn:
        """Run the tests of a mutant in this process; exit with 1 if one fails."""
        set_mutant_under_test(attempt.mutant)
        items = self._tests_for(attempt)
        spent = accumulate(self._seconds[item.nodeid] for item in items)
        items = items[: max(1, sum(seconds <= BUDGET_SECONDS for seconds in spent))]
        if attempt.reimport:
            tests = [item.nodeid for item in items]
            _limit(attempt, sum(self._seconds[each] for each in tests))
            for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
                del sys.modules[name]
            os._exit(min(1, pytest.main([*ARGUMENTS, *tests], plugins=[_Recorder(test)])))
        for number, item in enumerate(items):
            test.write_text(item.nodeid, encoding="utf-8")
            _limit(attempt, self._seconds[item.nodeid])
            # After the last test, session fixtures need not be torn down.
            if self._fails(item, following=items[number + 1] if number + 1 < len(items) else self._items[0]):
                os._exit(1)
        os._exit(0)

    def _fails(self, item: pytest.Item, *, following: pytest.Item) -> bool:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return bool(self._failure)


class _Recorder:
    """A pytest plugin that writes the name of the running test to a file."""

    def __init__(self, test: Path) -> None:
        self._test = test

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test.write_text(nodeid, encoding="utf-8")


def _isolate(folder: Path) -> None:
    """Redirect the temporary files of this process to a folder, and discard its output."""
    os.setpgid(0, 0)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _limit(attempt: Attempt, usual: float) -> None:
    """Let the kernel end this process when it exceeds the limit of CPU time, or three times that in wall time."""
    seconds = attempt.limit_scale * (LIMIT_SECONDS + LIMIT_FACTOR * usual)
    for timer, number, limit in (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, 3 * seconds),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def _outcome(exit_code: int) -> Outcome:
    if exit_code in (-signal.SIGPROF, -signal.SIGALRM):
        return Outcome.HANG
    return Outcome.SURVIVED if exit_code == 0 else Outcome.KILLED


def main(file: Path, tests: Sequence[str], mutants: Sequence[str]) -> int:
    """Test the mutants, write their outcomes to the file, and return pytest's exit code."""
    set_mutant_under_test("stats")
    # Failing examples need not be shrunk. The profile of the tests inherits these settings.
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None, max_examples=EXAMPLES)
    settings.load_profile("mutants")
    return int(pytest.main([*ARGUMENTS, *tests], plugins=[MutantTester(mutants, file)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:], sys.stdin.read().split()))

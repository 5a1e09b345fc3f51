"""Test each mutant of a folder, in forks of one pytest process that has collected the tests once.

Runs in mutmut's copy of the project; `python -m tests.mutation` starts it. A fork starts right after collection, before
any fixture is set up or thread started. It runs only the tests that call the mutated function, those that killed its
other mutants first, and ends with the first failure.

Functions that are called on import, such as those that build the column dictionaries, have run before the fork. When
one of their mutants survives, it is tested again in a fork that first imports the project's modules anew.
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

# CPU seconds for the tests of one mutant; the quickest tests run first.
BUDGET_SECONDS = 10.0
# A test hangs when it uses this much CPU time, or three times as much wall time, beyond a multiple of what it takes
# without a mutant. On a busy machine that can happen to any test, so it must happen twice, with a larger limit
# the second time.
PATIENCE_SECONDS = 10.0
PATIENCE_FACTOR = 10.0
SECOND_PATIENCE = 4.0
# Mutants that hang mostly wait.
CONCURRENCY = (os.cpu_count() or 1) + 1
# Examples of each property test.
EXAMPLES = 30

# `--tb=native`, because pytest's own tracebacks parse the source file, which is up to a megabyte with all its mutants.
ARGUMENTS = (
    *("-q", "-x", "--tb=native", "--capture=no", "-W"),
    "ignore::pytest.PytestAssertRewriteWarning",  # for plugins that are already imported
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "pytest_cov")),
    "-pno:faulthandler",  # a mutant that crashes the interpreter is killed, and its traceback is of no interest
)
PROJECT = ("later_reporting_dagster", "tests")


class Outcome(StrEnum):
    """What the tests make of a mutant."""

    KILLED = "killed"
    HANG = "hang"
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt at a mutant: with modules imported anew or not, and how many times the usual time limit."""

    mutant: str
    reimport: bool = False
    patience: float = 1.0

    @property
    def function(self) -> str:
        """mutmut's name of the mutated function."""
        return mangled_name_from_mutant_name(self.mutant)


class Campaign:
    """A pytest plugin that, instead of running the collected tests once, runs some of them for each mutant."""

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
        """Run all tests without a mutant, then the ones that matter for each mutant; write a JSON line for each."""
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
        """Run all tests in a fork; record which functions each calls and how long it takes."""
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
        for module in recorded["imported"]:  # by the tests; importing once here saves it in each fork
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
            Trial(mutant, reimport=mangled_name_from_mutant_name(mutant) not in self._callers)
            for mutant in self._mutants
        )
        hanging: list[Trial] = []
        running: dict[int, tuple[Trial, Path]] = {}
        while waiting or running or hanging:
            if not waiting and not running:
                waiting.extend(hanging)
                hanging.clear()
            while waiting and len(running) < CONCURRENCY:
                trial = waiting.popleft()
                folder = Path(tempfile.mkdtemp(dir=scratch))
                if not (child := os.fork()):
                    _isolate(folder)
                    self._try(trial, folder / "test")
                running[child] = trial, folder
            child, status = os.wait()
            if child not in running:
                continue
            trial, folder = running.pop(child)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # processes that the tests have started
            test = (folder / "test").read_text(encoding="utf-8") if (folder / "test").exists() else ""
            shutil.rmtree(folder, ignore_errors=True)
            outcome = _outcome_of(os.waitstatus_to_exitcode(status))
            if outcome is Outcome.HANG and trial.patience == 1:
                hanging.append(replace(trial, patience=SECOND_PATIENCE))
            elif outcome is Outcome.SURVIVED and trial.function in self._on_import and not trial.reimport:
                waiting.append(replace(trial, reimport=True))
            else:
                if outcome is Outcome.KILLED:
                    self._tests_for(trial).sort(key=lambda item, test=test: item.nodeid != test)
                yield trial.mutant, outcome, test

    def _tests_for(self, trial: Trial) -> list[pytest.Item]:
        return self._items if trial.reimport else self._callers[trial.function]

    def _try(self, trial: Trial, test: Path) -> NoReturn:
        """Run the tests of a mutant in this process, and exit with 1 when one fails."""
        set_mutant_under_test(trial.mutant)
        items = self._tests_for(trial)
        spent = accumulate(self._seconds[item.nodeid] for item in items)
        items = items[: max(1, sum(seconds <= BUDGET_SECONDS for seconds in spent))]
        if trial.reimport:
            tests = [item.nodeid for item in items]
            _limit(trial, sum(self._seconds[each] for each in tests))
            for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
                del sys.modules[name]
            os._exit(min(1, pytest.main([*ARGUMENTS, *tests], plugins=[_Recorder(test)])))
        for number, item in enumerate(items):
            test.write_text(item.nodeid, encoding="utf-8")
            _limit(trial, self._seconds[item.nodeid])
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
    """Make this process, a fork, write its files below `folder` and its output nowhere."""
    os.setpgid(0, 0)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _limit(trial: Trial, usual: float) -> None:
    """Have the kernel end this process when it takes far longer than usual: in CPU time, or thrice that in all."""
    seconds = trial.patience * (PATIENCE_SECONDS + PATIENCE_FACTOR * usual)
    for timer, number, limit in (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, 3 * seconds),
    ):
        signal.signal(number, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def _outcome_of(exit_code: int) -> Outcome:
    if exit_code in (-signal.SIGPROF, -signal.SIGALRM):
        return Outcome.HANG
    return Outcome.SURVIVED if exit_code == 0 else Outcome.KILLED


def main(file: Path, tests: Sequence[str], mutants: Sequence[str]) -> int:
    """Test the mutants, write their outcomes to the file, and return pytest's exit code."""
    set_mutant_under_test("stats")
    # Any failing example will do; it need not be shrunk. The profile of the tests inherits these settings.
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None, max_examples=EXAMPLES)
    settings.load_profile("mutants")
    return int(pytest.main([*ARGUMENTS, *tests], plugins=[Campaign(mutants, file)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:], sys.stdin.read().split()))

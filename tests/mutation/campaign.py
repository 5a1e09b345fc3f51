"""Puts each mutant of a folder to the tests of that folder, in forks of one pytest that has collected them once.

To be run in mutmut's copy of the project, which `python -m tests.mutation` does. A fork starts where collecting ended:
no fixture is set up yet and no thread runs. It runs just those tests that enter the mutated function, the ones that
found out its other mutants first, and ends with the first failure.

Functions that imports call, as those that make the tables' dictionaries, have done their work before the fork. When
their mutants survive, they get another fork, which forgets the project's modules and imports them anew.
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
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import Phase, settings
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

# A test that computes for so long, or takes three times that in all, beyond so many times what it took without a
# mutant, hangs. As the machine may be busy, a mutant is said to hang only when it does so twice, the second time with
# more patience.
PATIENCE_SECONDS = 10.0
PATIENCE_TIMES = 10.0
MORE_PATIENCE = 4.0
# Mutants that hang mostly wait.
AT_ONCE = (os.cpu_count() or 1) + 1
# Of each property test, for each mutant.
EXAMPLES = 30

# A longer traceback than Python's own is made by parsing the file that it leads to, and with all mutants in it that has
# up to a megabyte.
ARGUMENTS = (
    *("-q", "-x", "--tb=native", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:pytest_cov"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # the plugins that are imported already
)
PROJECT = ("later_reporting_dagster", "tests")


class Outcome(StrEnum):
    """What becomes of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeout"
    NOT_ENTERED = "not entered"  # by no test


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant and how it is to be tried: `anew` with all imports made again, `patience` times as patiently."""

    mutant: str
    anew: bool = False
    patience: float = 1.0

    @property
    def function(self) -> str:
        """The mutated function, by mutmut's name for it."""
        return mangled_name_from_mutant_name(self.mutant)


class Campaign:
    """A pytest plugin: in place of running the collected tests once, runs some of them for each mutant.

    Args:
        mutants: their names.
        found: a file to which a line of JSON is added for each, as soon as its outcome is known.
        budget: for how many seconds the tests of one mutant may compute; the quickest come first.
    """

    def __init__(self, mutants: Sequence[str], found: Path, *, budget: float) -> None:
        self._budget = budget
        self._mutants = mutants
        self._found = found
        self._failure = ""
        self._items: list[pytest.Item] = []
        self._seconds: dict[str, float] = {}
        self._entering: defaultdict[str, list[pytest.Item]] = defaultdict(list)
        self._at_import: frozenset[str] = frozenset()
        self._anew: list[pytest.Item] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remembers what went wrong, in a test or beside it."""
        if report.failed:
            self._failure = f"{report.nodeid}\n{report.longreprtext}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all tests without a mutant, and then those that concern each mutant."""
        self._items = session.items
        self._at_import = frozenset(state()._stats)
        state()._stats.clear()
        gc.freeze()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            self._enter_all(Path(name))
            with self._found.open("a", encoding="utf-8") as lines:
                for mutant, outcome, test, seconds in self._outcomes(Path(name)):
                    line = {"mutant": mutant, "outcome": outcome, "test": test, "seconds": round(seconds, 2)}
                    print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
        return True

    def _enter_all(self, scratch: Path) -> None:
        """Runs all tests without a mutant, in a fork too, and takes down what each enters and how long it takes."""
        told = scratch / "entered.json"
        if not (child := os.fork()):
            _alone(scratch)
            entered = {}
            for number, item in enumerate(self._items):
                started = time.process_time()
                if self._fails(item, following=self._items[(number + 1) % len(self._items)]):
                    told.write_text(self._failure, encoding="utf-8")
                    os._exit(1)
                entered[item.nodeid] = time.process_time() - started, sorted(state()._stats)
                state()._stats.clear()
            told.write_text(json.dumps({"tests": entered, "imported": [*sys.modules]}), encoding="utf-8")
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise pytest.UsageError(f"a test fails without a mutant: {told.read_text(encoding='utf-8')}")
        all_told = json.loads(told.read_text(encoding="utf-8"))
        entered = all_told["tests"]
        for module in all_told["imported"]:  # by the tests themselves, as is better done once than in each fork
            if module.partition(".")[0] not in PROJECT:
                with suppress(ImportError):
                    importlib.import_module(module)
        self._seconds = {test: seconds for test, (seconds, _) in entered.items()}
        self._anew = sorted(self._items, key=lambda item: self._seconds[item.nodeid])
        for item in self._anew:
            for function in entered[item.nodeid][1]:
                self._entering[function].append(item)

    def _outcomes(self, scratch: Path) -> Iterator[tuple[str, Outcome, str, float]]:
        """What became of each mutant, the last test that it was put to, and after how many seconds."""
        waiting = deque(Trial(mutant) for mutant in self._mutants)
        hanging: list[Trial] = []
        running: dict[int, tuple[Trial, Path, float]] = {}
        while waiting or running or hanging:
            if not waiting and not running:
                waiting.extend(hanging)
                hanging.clear()
            while waiting and len(running) < AT_ONCE:
                trial = waiting.popleft()
                if not trial.anew and trial.function not in self._entering:
                    if trial.function not in self._at_import:
                        yield trial.mutant, Outcome.NOT_ENTERED, "", 0.0
                        continue
                    trial = Trial(trial.mutant, anew=True)
                place = Path(tempfile.mkdtemp(dir=scratch))
                if not (child := os.fork()):
                    _alone(place)
                    self._try(trial, place / "test")
                running[child] = trial, place, time.monotonic()
            if not running:
                continue
            child, status = os.wait()
            if child not in running:
                continue
            trial, place, started = running.pop(child)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what its tests have started
            test = (place / "test").read_text(encoding="utf-8") if (place / "test").exists() else ""
            shutil.rmtree(place, ignore_errors=True)
            outcome = _outcome(os.waitstatus_to_exitcode(status))
            if outcome is Outcome.TIMEOUT and trial.patience == 1:
                hanging.append(Trial(trial.mutant, anew=trial.anew, patience=MORE_PATIENCE))
            elif outcome is Outcome.SURVIVED and trial.function in self._at_import and not trial.anew:
                waiting.append(Trial(trial.mutant, anew=True))
            else:
                if outcome is Outcome.KILLED:
                    self._put_first(test, trial)
                yield trial.mutant, outcome, test, time.monotonic() - started

    def _put_first(self, test: str, trial: Trial) -> None:
        """Has the test that found out a mutant be the first to look at the next one of its kind."""
        items = self._anew if trial.anew else self._entering[trial.function]
        items.sort(key=lambda item: item.nodeid != test)

    def _try(self, trial: Trial, test: Path) -> NoReturn:
        """Puts a mutant to its tests, and ends this process by what came of it."""
        set_mutant_under_test(trial.mutant)
        items = self._within_budget(self._anew if trial.anew else self._entering[trial.function])
        if trial.anew:
            tests = [item.nodeid for item in items]
            _die_after(
                trial.patience * (PATIENCE_SECONDS + PATIENCE_TIMES * sum(self._seconds[each] for each in tests))
            )
            for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
                del sys.modules[name]
            os._exit(min(1, pytest.main([*ARGUMENTS, *tests], plugins=[_Teller(test)])))
        for number, item in enumerate(items):
            test.write_text(item.nodeid, encoding="utf-8")
            _die_after(trial.patience * (PATIENCE_SECONDS + PATIENCE_TIMES * self._seconds[item.nodeid]))
            # The last one's fixtures of the session need not end in order.
            if self._fails(item, following=items[number + 1] if number + 1 < len(items) else self._items[0]):
                os._exit(1)
        os._exit(0)

    def _within_budget(self, items: Sequence[pytest.Item]) -> Sequence[pytest.Item]:
        spent = accumulate(self._seconds[item.nodeid] for item in items)
        return items[: max(1, sum(seconds <= self._budget for seconds in spent))]

    def _fails(self, item: pytest.Item, *, following: pytest.Item) -> bool:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return bool(self._failure)


class _Teller:
    """A pytest plugin that writes down which test is running."""

    def __init__(self, test: Path) -> None:
        self._test = test

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test.write_text(nodeid, encoding="utf-8")


def _alone(place: Path) -> None:
    """Has this process, a fork, write nothing but below `place`."""
    os.setpgid(0, 0)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ["TMPDIR"] = tempfile.tempdir = str(place)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _die_after(seconds: float) -> None:
    """Has the kernel end this process once it has computed for so long, or lived three times as long."""
    for timer, of_it, limit in (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, 3 * seconds),
    ):
        signal.signal(of_it, signal.SIG_DFL)
        signal.setitimer(timer, limit)


def _outcome(code: int) -> Outcome:
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return Outcome.TIMEOUT
    return Outcome.SURVIVED if code == 0 else Outcome.KILLED


def main(found: Path, budget: float, tests: Sequence[str], mutants: Sequence[str]) -> int:
    """Runs a campaign, and returns pytest's own verdict on how it went."""
    set_mutant_under_test("stats")
    # A failing example is enough, it need not be a small one. The profile of the tests inherits this.
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None, max_examples=EXAMPLES)
    settings.load_profile("mutants")
    return int(pytest.main([*ARGUMENTS, *tests], plugins=[Campaign(mutants, found, budget=budget)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:], sys.stdin.read().split()))

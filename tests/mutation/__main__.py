"""Mutation testing: put one fault at a time into the code, and count how many of them no test finds.

    python -m tests.mutation --sample 500

mutmut generates the mutants; `tests.mutation.campaign` tests them. They are tried in a random but fixed order, so that
`--sample N` takes a fair sample of each folder. `mutants/outcomes-<folder>.jsonl` lists the outcome of each mutant, and
`mutmut show <mutant>` prints what it changes. Exits with 1 when too few mutants are found.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import cpu_count
from pathlib import Path

from mutmut.__main__ import create_mutants
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files

from benchmarks.tables import Table
from tests.mutation.campaign import Outcome

# The tests for the mutants of each folder. Tests that need a store or a server of their own take too long.
TESTS = {
    "client": ["tests/client"],
    "ingest": ["tests/ingest"],
    "lake": ["tests/lake", "tests/crash/test_stages.py", "--ignore=tests/lake/test_s3.py"],
    "rollups": ["tests/rollups"],
}
MINIMUM_FOUND = 0.85
# The folder into which mutmut copies the project, with all mutants in it.
COPY = Path("mutants")


def generate() -> dict[str, list[str]]:
    """Update mutmut's copy of the project; return the names of its mutants by folder."""
    COPY.mkdir(exist_ok=True)
    set_mutant_under_test("mutant_generation")
    with redirect_stdout(StringIO()):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(cpu_count())
    mutants: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        mutants[path.parts[1]] += data.exit_code_by_key
    return dict(mutants)


def outcomes_of(folder: str, mutants: Sequence[str]) -> Counter[Outcome]:
    """Test the mutants in a process of its own; return how many had each outcome."""
    file = COPY / f"outcomes-{folder}.jsonl"
    command = [sys.executable, "-m", "tests.mutation.campaign", str(file.absolute()), *TESTS[folder]]
    subprocess.run(command, cwd=COPY, input="\n".join(mutants), text=True, check=True)
    return Counter(Outcome(json.loads(line)["outcome"]) for line in file.read_text(encoding="utf-8").splitlines())


def found_share(outcomes: Mapping[Outcome, int]) -> float:
    """Return the share of the mutants that the tests find."""
    return 1 - outcomes[Outcome.SURVIVED] / max(1, sum(outcomes.values()))


def main() -> None:
    """Test the mutants, print a table, and fail when too few are found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N", help="test only N mutants of each folder")
    parser.add_argument("--only", choices=TESTS, action="append", help="test only this folder; may be repeated")
    arguments = parser.parse_args()
    outcomes: dict[str, Counter[Outcome]] = {}
    for folder, mutants in generate().items():
        if not arguments.only or folder in arguments.only:
            random.Random(1).shuffle(mutants)
            outcomes[folder] = outcomes_of(folder, mutants[: arguments.sample])
    outcomes["all"] = sum(outcomes.values(), Counter())
    table = Table(
        title="Mutants",
        columns=("folder", "mutants", *Outcome, "found"),
        rows=[
            (folder, sum(each.values()), *(each[outcome] for outcome in Outcome), f"{found_share(each):.1%}")
            for folder, each in outcomes.items()
        ],
    )
    print(table.markdown())
    if found_share(outcomes["all"]) < MINIMUM_FOUND:
        sys.exit(f"The tests must find {MINIMUM_FOUND:.0%} of the mutants. `mutmut show <mutant>` prints a survivor.")


if __name__ == "__main__":
    main()

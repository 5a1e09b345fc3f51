"""Mutation testing: change the code in one place at a time, and count the changes that no test detects.

    python -m tests.mutation --sample 500

mutmut generates the mutants, and `tests.mutation.mutant_tester` tests them, in a random but fixed order: `--sample N`
is a random sample of each folder. `mutants/outcomes-<folder>.jsonl` has the outcome of each mutant, and
`mutmut show <mutant>` prints its change. The exit code is 1 if the tests detect too few mutants.
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

from benchmarks.markdown_table import Table
from tests.mutation.mutant_tester import Outcome

# Tests for the mutants of each folder, without slow ones that start a store or a server.
TESTS = {
    "client": ["tests/client"],
    "ingest": ["tests/ingest"],
    "lake": ["tests/lake", "tests/crash/test_stages.py", "--ignore=tests/lake/test_s3.py"],
    "rollups": ["tests/rollups"],
}
MIN_FOUND = 0.85
# mutmut's copy of the project, with all mutants.
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


def count_outcomes(folder: str, mutants: Sequence[str]) -> Counter[Outcome]:
    """Test mutants in a new process; return the number of mutants by outcome."""
    file = COPY / f"outcomes-{folder}.jsonl"
    command = [sys.executable, "-m", "tests.mutation.mutant_tester", str(file.absolute()), *TESTS[folder]]
    subprocess.run(command, cwd=COPY, input="\n".join(mutants), text=True, check=True)
    return Counter(Outcome(json.loads(line)["outcome"]) for line in file.read_text(encoding="utf-8").splitlines())


def found_share(outcomes: Mapping[Outcome, int]) -> float:
    """Return the share of the mutants that the tests detect."""
    return 1 - outcomes[Outcome.SURVIVED] / max(1, sum(outcomes.values()))


def main() -> None:
    """Test the mutants and print a table; exit with 1 if the tests detect too few."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, metavar="N", help="test only N mutants of each folder")
    parser.add_argument("--only", choices=TESTS, action="append", help="test only this folder; may be repeated")
    arguments = parser.parse_args()
    outcomes: dict[str, Counter[Outcome]] = {}
    for folder, mutants in generate().items():
        if not arguments.only or folder in arguments.only:
            random.Random(1).shuffle(mutants)
            outcomes[folder] = count_outcomes(folder, mutants[: arguments.sample])
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
    if found_share(outcomes["all"]) < MIN_FOUND:
        sys.exit(f"The tests must detect {MIN_FOUND:.0%} of the mutants. `mutmut show <mutant>` prints one.")


if __name__ == "__main__":
    main()

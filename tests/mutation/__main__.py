"""Puts faults into the code, one at a time, and tells which of them no test finds.

    python -m tests.mutation --write docs/mutation.md

What was found is kept in `mutants/found`, so that a run that was broken off goes on where it was, while the code is the
same. `--again` puts what no test found to the tests once more, as they are now. `--sample 300` tries but so many of
each folder, drawn by chance, and always the same ones. It ends with 1 when too few are found.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from tests.bench.tables import Table
from tests.mutation.campaign import EXAMPLES, Outcome
from tests.mutation.judgements import GROUPS, judged
from tests.mutation.mutations import COPY, Mutation, digest_of, made

# The tests that a folder's mutants are put to. What needs a store or a server of its own takes too long.
TESTS = {
    "client": ["tests/client"],
    "ingest": ["tests/ingest"],
    "lake": ["tests/lake", "tests/crash/test_stages.py", "--ignore=tests/lake/test_s3.py"],
    "rollups": ["tests/rollups"],
}
FEWEST_KILLED = 0.85
FOUND = COPY / "found"

INTRODUCTION = """\
# Mutation tests

Do the tests notice when the code is wrong? A mutant is the code with one small fault: `<` made `<=`, `and` made `or`, a
number one more, an argument left out or made `None`, a text in capitals. `make mutants` makes all that
[mutmut](https://mutmut.readthedocs.io) can make of `client/`, `ingest/`, `lake/` and `rollups/`, puts each to the tests
of its own folder, and writes this page. Tests of other folders, of whole runs in Dagster, of crashes and of stores find
more, but are too slow to be run so often, and do not count here.

A mutant is **killed** when a test fails. One that makes a test hang is told apart, as **timeout**, once it has hung
twice, the second time with four times the patience; it counts as found too. It **survives** when all tests that enter
the changed function pass, and is **not entered** when no test does. Neither can a property test think for long: it has
{examples} examples for each mutant instead of 100, which can only lessen what is found."""

SURVIVORS = """\
## Survivors, judged

What no test found, by what it comes to. The list is made by what each mutant changes, `-` to `+`."""


def sampled(names: Sequence[str], size: int | None) -> list[str]:
    """So many of the mutants, drawn by chance, but always the same ones; all of them by default."""
    drawn = list(names)
    random.Random(1).shuffle(drawn)
    return drawn[:size]


def tried(mutants: Mapping[str, Sequence[str]], *, again: bool, seconds: float) -> dict[str, Outcome]:
    """What became of each mutant, of which those are tried that are not known yet or, `again`, are not killed."""
    FOUND.mkdir(exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    for folder, names in mutants.items():
        file = FOUND / f"{folder}-{digest_of(folder)}.jsonl"
        known = _known(file)
        due = [name for name in names if name not in known or (again and known[name] != Outcome.KILLED)]
        if due:
            command = [sys.executable, "-m", "tests.mutation.campaign", str(file.absolute()), str(seconds)]
            subprocess.run([*command, *TESTS[folder]], cwd=COPY, input="\n".join(due), text=True, check=True)
            known = _known(file)
        outcomes |= {name: known[name] for name in names}
    return outcomes


def _known(file: Path) -> dict[str, Outcome]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {found["mutant"]: Outcome(found["outcome"]) for found in map(json.loads, lines)}


def survivors(outcomes: Mapping[str, Outcome]) -> dict[str, list[Mutation]]:
    """What no test found, by the group that it was judged to be of, each in the order of the files."""
    groups: dict[str, list[Mutation]] = {group: [] for group in GROUPS}
    for name, outcome in outcomes.items():
        if outcome in (Outcome.SURVIVED, Outcome.NOT_ENTERED):
            mutation = Mutation.of(name)
            groups[judged(mutation)].append(mutation)
    return {group: found for group, found in groups.items() if found}


def figures(mutants: Mapping[str, Iterable[str]], outcomes: Mapping[str, Outcome]) -> Table:
    """How many mutants of each folder were found, and of all."""
    counts = {folder: Counter(outcomes[name] for name in names) for folder, names in mutants.items()}
    counts["all"] = sum(counts.values(), Counter())
    return Table(
        title="Figures",
        columns=("folder", "mutants", *Outcome, "found"),
        rows=[
            (
                f"`{folder}/`" if folder in mutants else folder,
                count.total(),
                *(count[each] for each in Outcome),
                f"{found_of(count):.1%}",
            )
            for folder, count in counts.items()
        ],
    )


def found_of(count: Counter[Outcome]) -> float:
    """The share of mutants that the tests notice."""
    return (count[Outcome.KILLED] + count[Outcome.TIMEOUT]) / count.total()


def section(group: str, mutations: Sequence[Mutation]) -> str:
    """The mutants of one group, below the functions that they are of, folded up: there may be hundreds."""
    lines: list[str] = []
    for place, some in groupby(mutations, key=lambda each: f"{each.file} {each.function}"):
        lines += ["", f"@@ {place} @@", *(line for each in some for line in (f"- {each.before}", f"+ {each.after}"))]
    return "\n".join(
        [
            f"### {len(mutations)} × {group}",
            "",
            GROUPS[group],
            "",
            "<details><summary>which</summary>",
            "",
            "```diff",
            *lines[1:],
            "```",
            "",
            "</details>",
        ]
    )


def page(mutants: Mapping[str, Sequence[str]], outcomes: Mapping[str, Outcome]) -> str:
    """All of it, as Markdown."""
    parts = [
        INTRODUCTION.format(examples=EXAMPLES),
        figures(mutants, outcomes).markdown(),
        SURVIVORS,
        *(section(group, found) for group, found in survivors(outcomes).items()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Tries all mutants that are due, prints the figures or writes the page, and fails when too few were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there, instead of printing figures")
    parser.add_argument("--again", action="store_true", help="try those again that no test has found so far")
    parser.add_argument("--sample", type=int, metavar="N", help="try but N mutants of each folder, drawn by chance")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the tests of one mutant may compute")
    parser.add_argument("--only", choices=TESTS, action="append", help="just this folder; may be given several times")
    given = parser.parse_args()
    mutants = {
        folder: sampled(names, given.sample)
        for folder, names in made().items()
        if not given.only or folder in given.only
    }
    outcomes = tried(mutants, again=given.again, seconds=given.seconds)
    if given.write:
        given.write.write_text(page(mutants, outcomes), encoding="utf-8")
    else:
        print(figures(mutants, outcomes).markdown())
    found = found_of(Counter(outcomes.values()))
    if found < FEWEST_KILLED:
        print(f"{found:.1%} of the mutants were found, and {FEWEST_KILLED:.0%} are due", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

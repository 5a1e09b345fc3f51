"""Puts faults into the code, one at a time, and tells which of them no test finds.

    python -m tests.mutation --write docs/mutation.md

Mutants are tried in an order that is drawn by chance, but always the same, so that those tried first are a fair sample:
`--sample 500` tries but so many of each folder. What was found is kept in `mutants/found`; a run that was broken off
goes on where it was, and `--known` tells of what it came to. `--again` puts what no test found and nobody judged to the
tests once more, as they are now. It ends with 1 when too few are found.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, takewhile
from math import sqrt
from pathlib import Path

from tests.bench.tables import Table
from tests.mutation.campaign import EXAMPLES, Outcome
from tests.mutation.judgements import GROUPS, NOT_JUDGED, judged
from tests.mutation.mutations import COPY, Mutation, digest_of, made

# The tests that a folder's mutants are put to. What needs a store or a server of its own takes too long.
TESTS = {
    "client": ["tests/client"],
    "ingest": ["tests/ingest"],
    "lake": ["tests/lake", "tests/crash/test_stages.py", "--ignore=tests/lake/test_s3.py"],
    "rollups": ["tests/rollups"],
}
# For which the tests of one mutant may compute, the quickest first.
SECONDS = 10.0
FEWEST_FOUND = 0.85
NOT_FOUND = (Outcome.SURVIVED, Outcome.NOT_ENTERED)
FOUND = COPY / "found"

Outcomes = Mapping[str, Outcome]

INTRODUCTION = """\
# Mutation tests

Do the tests notice when the code is wrong? A mutant is the code with one small fault: `<` made `<=`, `and` made `or`, a
number one more, an argument left out or made `None`, a text in capitals. [mutmut](https://mutmut.readthedocs.io) makes
all that it can of `client/`, `ingest/`, `lake/` and `rollups/`; each is put to the tests of its own folder, and has to
make one of them fail. `make mutants` does so, and writes this page.

A mutant is **killed** when a test fails. It **survives** when all tests that enter the changed function pass, and is
**not entered** when none does. One with which a test hangs is told apart, as **timeout**, once it has hung twice, the
second time for four times as long; it counts as found too.

Found is at least what this page says. Tests of other folders, of whole runs in Dagster, of crashes and of stores do not
count. The tests of one mutant may compute for {seconds:g} seconds, the quickest first, and property tests have
{examples} examples instead of 100."""

SURVIVORS = """\
## Survivors, judged

What no test found, by what it comes to. Judgements go by what a mutant changes, `-` to `+`, and are kept in
`tests/mutation/judgements.py`."""


def in_an_order_of_chance(names: Iterable[str]) -> list[str]:
    """The same order each time."""
    drawn = list(names)
    random.Random(1).shuffle(drawn)
    return drawn


def known(file: Path) -> dict[str, Outcome]:
    """What was found so far, of each mutant the newest."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {found["mutant"]: Outcome(found["outcome"]) for found in map(json.loads, lines)}


def tried(folder: str, names: Sequence[str], file: Path, *, again: bool) -> Outcomes:
    """What became of each mutant, of which those are tried that are not known yet or, `again`, are open."""
    before = known(file)
    due = [name for name in names if name not in before or (again and _is_open(name, before[name]))]
    if due:
        command = [sys.executable, "-m", "tests.mutation.campaign", str(file.absolute()), str(SECONDS)]
        subprocess.run([*command, *TESTS[folder]], cwd=COPY, input="\n".join(due), text=True, check=True)
    outcomes = known(file)
    return {name: outcomes[name] for name in names}


def _is_open(name: str, outcome: Outcome) -> bool:
    """Whether no test found it, and nobody has judged what it comes to."""
    return outcome in NOT_FOUND and judged(Mutation.of(name)) == NOT_JUDGED


def share_found(outcomes: Outcomes) -> float:
    """The share of mutants that the tests notice."""
    return sum(each not in NOT_FOUND for each in outcomes.values()) / max(1, len(outcomes))


def variance(outcomes: Outcomes, *, of: int) -> float:
    """How far that share may be from the one of all mutants, of which these are a sample."""
    share, size = share_found(outcomes), max(1, len(outcomes))
    return share * (1 - share) / size * (1 - size / of)


def figures(by_folder: Mapping[str, Outcomes], made: Mapping[str, int]) -> Table:
    """How many mutants of each folder were found, and of all: there each folder counts by how many it has."""
    rows = [_row(f"`{folder}/`", outcomes, made[folder]) for folder, outcomes in by_folder.items()]
    everything = {name: outcome for outcomes in by_folder.values() for name, outcome in outcomes.items()}
    total = sum(made[folder] for folder in by_folder)
    rows.append(
        (
            *_row("all", everything, total)[:-1],
            _share(
                overall(by_folder, made),
                sum(
                    (made[folder] / total) ** 2 * variance(each, of=made[folder]) for folder, each in by_folder.items()
                ),
            ),
        )
    )
    return Table(
        title="Figures",
        columns=("folder", "mutants", "tried", *Outcome, "found"),
        rows=rows,
        note="" if len(everything) == total else SAMPLED,
    )


SAMPLED = (
    "Where not all were tried, those that were are drawn by chance, and what is found of all of them lies within the"
    " figure after ± in 95 of 100 such draws."
)


def overall(by_folder: Mapping[str, Outcomes], made: Mapping[str, int]) -> float:
    """The share of all mutants that the tests notice."""
    total = sum(made[folder] for folder in by_folder)
    return sum(share_found(outcomes) * made[folder] for folder, outcomes in by_folder.items()) / total


def _row(title: str, outcomes: Outcomes, made: int) -> tuple[object, ...]:
    count = Counter(outcomes.values())
    share = _share(share_found(outcomes), variance(outcomes, of=made))
    return (title, made, len(outcomes), *(count[each] for each in Outcome), share)


def _share(share: float, variance: float) -> str:
    return f"{share:.1%}" + (f" ± {196 * sqrt(variance):.1f}" if variance > 0 else "")


def survivors(outcomes: Outcomes) -> dict[str, list[Mutation]]:
    """What no test found, by the group that it was judged to be of, in the order of the files."""
    groups: dict[str, list[Mutation]] = {group: [] for group in GROUPS}
    for name, outcome in sorted(outcomes.items()):
        if outcome in NOT_FOUND:
            mutation = Mutation.of(name)
            groups[judged(mutation)].append(mutation)
    return {group: found for group, found in groups.items() if found}


def section(group: str, mutations: Sequence[Mutation]) -> str:
    """The mutants of one group, below the functions that they are of, folded up: there may be hundreds."""
    lines: list[str] = []
    for place, some in groupby(mutations, key=lambda each: f"{each.file} {each.function}"):
        lines += ["", f"@@ {place} @@", *(line for each in some for line in (f"- {each.before}", f"+ {each.after}"))]
    heading = f"### {group[0].upper()}{group[1:]}: {len(mutations)}"
    return "\n".join(
        [
            *(heading, "", GROUPS[group], "", "<details><summary>Which</summary>", "", "```diff"),
            *lines[1:],
            *("```", "", "</details>"),
        ]
    )


def page(by_folder: Mapping[str, Outcomes], made: Mapping[str, int]) -> str:
    """All of it, as Markdown."""
    everything = {name: outcome for outcomes in by_folder.values() for name, outcome in outcomes.items()}
    parts = [
        INTRODUCTION.format(seconds=SECONDS, examples=EXAMPLES),
        figures(by_folder, made).markdown(),
        SURVIVORS,
        *(section(group, found) for group, found in survivors(everything).items()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Tries all mutants that are due, prints the figures or writes the page, and fails when too few were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there, instead of printing figures")
    parser.add_argument("--sample", type=int, metavar="N", help="try but N mutants of each folder")
    parser.add_argument("--again", action="store_true", help="try those again that nobody found or judged")
    parser.add_argument("--known", action="store_true", help="try none, and tell of those that were tried")
    parser.add_argument("--only", choices=TESTS, action="append", help="just this folder; may be given several times")
    given = parser.parse_args()
    mutants = {
        folder: in_an_order_of_chance(names)
        for folder, names in made().items()
        if not given.only or folder in given.only
    }
    by_folder: dict[str, Outcomes] = {}
    for folder, names in mutants.items():
        file = FOUND / f"{folder}-{digest_of(folder)}.jsonl"
        file.parent.mkdir(exist_ok=True)
        if given.known:
            outcomes = known(file)
            by_folder[folder] = {name: outcomes[name] for name in takewhile(outcomes.__contains__, names)}
        else:
            by_folder[folder] = tried(folder, names[: given.sample], file, again=given.again)
    counts = {folder: len(names) for folder, names in mutants.items()}
    if given.write:
        given.write.write_text(page(by_folder, counts), encoding="utf-8")
    else:
        print(figures(by_folder, counts).markdown())
    found = overall(by_folder, counts)
    if found < FEWEST_FOUND:
        print(f"{found:.1%} of the mutants were found, and {FEWEST_FOUND:.0%} are due", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

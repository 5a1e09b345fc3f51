"""What was judged of mutants that survive, by what they change, so that it outlives other changes of a file."""

import re
from dataclasses import dataclass

from tests.mutation.mutations import Mutation

NOT_JUDGED = "not judged yet"

GROUPS = {
    "words": "Words for people, in another case or between `XX`, or left out. Tests hold what a message names and the"
    " step that it tells, not each of its letters.",
    "same": "The same behaviour by other means: nothing that anybody can observe differs.",
    "speed": "How fast, or with how much memory: threads, buffers and chunks, where to look first. The rows are the"
    " same.",
    "log": "What is logged, and how the number in it is rounded.",
    "elsewhere": "Found by tests that do not count here: of another folder, of whole runs in Dagster, of crashes or of"
    " a store.",
    NOT_JUDGED: "Looked at by nobody yet.",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A group for the mutants of a function that change text that `before` matches to text that `after` does."""

    group: str
    where: str
    before: str = ""
    after: str = ""

    def covers(self, mutation: Mutation) -> bool:
        """Whether it was made of this mutant."""
        return (
            re.fullmatch(self.where, f"{mutation.file} {mutation.function}") is not None
            and re.search(self.before, mutation.before) is not None
            and re.search(self.after, mutation.after) is not None
        )


JUDGED: tuple[Judgement, ...] = ()


def judged(mutation: Mutation) -> str:
    """The group of a mutant that survived."""
    if _changes_words_alone(mutation.before, mutation.after):
        return "words"
    return next((each.group for each in JUDGED if each.covers(mutation)), NOT_JUDGED)


def _changes_words_alone(before: str, after: str) -> bool:
    """Whether only a text differs that has a space in it, which no program reads."""
    if before.lower() == after.lower():  # in another case
        differing = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        quotes = [place for place, character in enumerate(before) if character in "\"'"]
        inside = slice(
            max((place for place in quotes if place < differing[0]), default=0),
            min((place for place in quotes if place > differing[-1]), default=0),
        )
        return " " in before[inside]
    start, _, rest = after.partition("XX")
    text, _, end = rest.rpartition("XX")
    return start + text + end == before and " " in text

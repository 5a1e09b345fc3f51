"""What befalls a request or a row, by given probabilities: at most one thing, and the same one for the same seed."""

from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from random import Random

_SLOP = 1e-9  # ten times 0.1 is a little more than 1


def read_chances(given: Iterable[str], *, known: Collection[str], what: str) -> dict[str, float]:
    """Reads chances as a person writes them, each as `NAME:PROBABILITY`.

    Args:
        given: what was written.
        known: the names that there are.
        what: what the names stand for, in one word.

    Raises:
        ValueError: in one line, what is wrong and what there is.
    """
    chances: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition(":")
        try:
            chance = float(number)
        except ValueError:
            raise ValueError(f"{text!r} is not a {what} and its probability, as {next(iter(known))}:0.05") from None
        if name in chances:
            raise ValueError(f"the {what} {name} is given twice")
        chances[name] = chance
    return checked_chances(chances, known=known, what=what)


def checked_chances(chances: Mapping[str, float], *, known: Collection[str], what: str) -> dict[str, float]:
    """The chances in the order of `known`, so that the order in which they were given decides nothing.

    Raises:
        ValueError: a name is unknown, a probability is none, or together they are more than 1.
    """
    for name, chance in chances.items():
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}; there are {', '.join(known)}")
        if not 0 <= chance <= 1:
            raise ValueError(f"the probability of {name} is from 0 to 1, not {chance:g}")
    if sum(chances.values()) > 1 + _SLOP:
        raise ValueError(
            f"each draws at most one {what}: the probabilities add up to {sum(chances.values()):g}, more than 1"
        )
    return {name: chances[name] for name in known if name in chances}


def drawn(chances: Mapping[str, float], random: Random) -> str | None:
    """One of the names, or none of them."""
    number = random.random()
    for name, bound in zip(chances, accumulate(chances.values()), strict=True):
        if number < bound:
            return name
    return None

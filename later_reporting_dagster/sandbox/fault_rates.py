"""Probabilities of faults and malformed rows: parse and validate them, and draw at most one name."""

from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from random import Random

_FLOAT_TOLERANCE = 1e-9  # ten times 0.1 adds up to a little more than 1


def parse_rates(texts: Iterable[str], *, known: Collection[str], kind: str) -> dict[str, float]:
    """Parse command-line values such as `http-500:0.05` into probabilities by name, in the order of `known`.

    Args:
        kind: What the names stand for, for error messages: `fault` or `malformed row`.
    """
    rates: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition(":")
        try:
            rate = float(number)
        except ValueError:
            example = f"{next(iter(known))}:0.05"
            raise ValueError(f"{text!r}: expected a {kind} and its probability, such as {example}") from None
        if name in rates:
            raise ValueError(f"the {kind} {name} is given twice")
        rates[name] = rate
    return validate_rates(rates, known=known, kind=kind)


def validate_rates(rates: Mapping[str, float], *, known: Collection[str], kind: str) -> dict[str, float]:
    """Return the probabilities in the order of `known`, so that draws do not depend on the order of the input."""
    for name, rate in rates.items():
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; use one of {', '.join(known)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"the probability of {name} must be from 0 to 1, not {rate:g}")
    if sum(rates.values()) > 1 + _FLOAT_TOLERANCE:
        raise ValueError(f"the {kind} probabilities add up to {sum(rates.values()):g}, more than 1")
    return {name: rates[name] for name in known if name in rates}


def draw(rates: Mapping[str, float], random: Random) -> str | None:
    """Draw one name with its probability; None with the remaining probability."""
    number = random.random()
    for name, bound in zip(rates, accumulate(rates.values()), strict=True):
        if number < bound:
            return name
    return None

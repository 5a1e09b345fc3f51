"""Environment variables, checked when they are read. An error names the variable and the accepted values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, PAGED, ApiVersion, Metric, parse_metrics

DEFAULT_BASE_URL = "https://reporting.api.later.com"
DEFAULT_START_DATE = date(2024, 1, 1)
DEFAULT_REQUESTS_PER_MINUTE = 120  # docs/api.md, "Rate limit"
DEFAULT_RESTATE_DAYS = 28
DEFAULT_DUE_HOUR_UTC = 12
DEFAULT_MEMORY_GB = 2.0
# A verification fetch repeats all requests of a query. The totals of the paged API version reveal every change but one:
# a post that replaces another between two pages (docs/reliability.md).
DEFAULT_VERIFY_PERCENT: Mapping[ApiVersion, int] = {PAGED: 0, CURSOR: 1}
# The value of LATER_API_VERSION that detects the API version from its responses.
AUTO = "auto"

# An earlier start is a typo, and would make more partitions than a browser can show.
EARLIEST_START_DATE = date(2000, 1, 1)
MAX_REQUESTS_PER_MINUTE = 1_000_000
# Longer values are cut off in messages.
MAX_SHOWN_CHARACTERS = 40

# The smallest and largest value of each whole number among the resource's fields.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "requests_per_minute": (1, MAX_REQUESTS_PER_MINUTE),
    "shrink_limit_percent": (0, 100),
    "bad_rows_limit_percent": (0, 100),
    "verify_percent": (0, 100),
}

# The interpreter and its libraries alone use this much.
MIN_MEMORY_GB = 0.25

_Default = TypeVar("_Default")


@dataclass(frozen=True, slots=True)
class DefinitionSettings:
    """The settings that the definitions depend on, and that are therefore read when the code location loads.

    Attributes:
        start_date: the first partition.
        restate_days: how many days the daily schedule fetches again.
        due_hour_utc: the hour of the day (UTC) at which the previous day is due (docs/api.md, "Freshness").
        metrics: the metrics that the tables have columns for, and that rollups sum.
    """

    start_date: date = DEFAULT_START_DATE
    restate_days: int = DEFAULT_RESTATE_DAYS
    due_hour_utc: int = DEFAULT_DUE_HOUR_UTC
    metrics: tuple[Metric, ...] = DEFAULT_METRICS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "DefinitionSettings":
        """Read `LATER_START_DATE`, `LATER_RESTATE_DAYS`, `LATER_DUE_HOUR_UTC` and `LATER_METRICS`.

        Raises:
            ValueError: the value of a variable is invalid; the message names the variable and the accepted values.
        """
        start = environment.get("LATER_START_DATE") or DEFAULT_START_DATE.isoformat()
        try:
            start_date = date.fromisoformat(start)
        except ValueError:
            raise ValueError(f"LATER_START_DATE must be a date as YYYY-MM-DD, not {_shown(start)}") from None
        if start_date < EARLIEST_START_DATE:
            raise ValueError(f"LATER_START_DATE must be {EARLIEST_START_DATE} or later, not {_shown(start)}")
        try:
            metrics = parse_metrics(environment.get("LATER_METRICS", ""))
        except ValueError as error:
            raise ValueError(f"LATER_METRICS: {error}") from None
        return cls(
            start_date=start_date,
            restate_days=_integer("LATER_RESTATE_DAYS", environment, default=DEFAULT_RESTATE_DAYS, bounds=(1, 730)),
            due_hour_utc=_integer("LATER_DUE_HOUR_UTC", environment, default=DEFAULT_DUE_HOUR_UTC, bounds=(0, 23)),
            metrics=metrics,
        )


def env_var_or_default(name: str, default: _Default) -> Any:
    """Return the value of a resource field from the environment variable `name`.

    Returns:
        An `EnvVar` if the variable is set, so that the UI shows its name and not its value; the number itself for
        `LATER_MEMORY_GB`; else `default`.

    Raises:
        ValueError: the field is a number, and the variable is not a number or is out of bounds.
    """
    text = os.environ.get(name)
    if not text:
        return default
    if name == "LATER_MEMORY_GB":
        return _memory_gb(name, text)  # dg.EnvVar supports text and whole numbers only
    if bounds := BOUNDS.get(name.removeprefix("LATER_").lower()):
        _integer(name, os.environ, default=0, bounds=bounds)
        return dg.EnvVar.int(name)
    return dg.EnvVar(name)


def default_lake_root() -> str:
    """Return the lake's root when `LATER_LAKE_ROOT` is not set: `later-lake` in the working directory."""
    return str(Path.cwd() / "later-lake")


def check_memory_gb(memory_gb: float) -> None:
    """Check that a memory limit is large enough to work with.

    Raises:
        ValueError: it is not above `MIN_MEMORY_GB`, or not finite.
    """
    if not MIN_MEMORY_GB < memory_gb < inf:
        raise ValueError(f"must be a number of GB above {MIN_MEMORY_GB}, such as 2 or 1.5, not {memory_gb:g}")


def _integer(name: str, environment: Mapping[str, str], *, default: int, bounds: tuple[int, int]) -> int:
    text, (minimum, maximum) = environment.get(name) or str(default), bounds
    # int() rejects numbers of thousands of digits with a message that names no setting.
    is_integer = text.isascii() and text.isdigit() and len(text) <= MAX_SHOWN_CHARACTERS
    if not (is_integer and minimum <= int(text) <= maximum):
        raise ValueError(f"{name} must be a whole number from {minimum} to {maximum}, not {_shown(text)}")
    return int(text)


def _memory_gb(name: str, text: str) -> float:
    try:
        memory_gb = float(text)
        check_memory_gb(memory_gb)
    except ValueError:
        raise ValueError(
            f"{name} must be a number of GB above {MIN_MEMORY_GB}, such as 2 or 1.5, not {_shown(text)}"
        ) from None
    return memory_gb


def _shown(text: str) -> str:
    return repr(text) if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]!r}…"

"""The environment variables, read once and checked, each with an error that names it and the fix."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from later_reporting_dagster.contract import CURSOR, DOCUMENT_METRICS, PAGED, Metric, Revision, metrics_named

DEFAULT_BASE_URL = "https://reporting.api.later.com"
DEFAULT_START_DATE = date(2024, 1, 1)
DEFAULT_REQUESTS_PER_MINUTE = 120
DEFAULT_RESTATE_DAYS = 28
DEFAULT_DUE_HOUR_UTC = 12
DEFAULT_MEMORY_GB = 2.0
# Each second look costs an answer's requests once more. Totals tell all that a second look does but for posts that
# arrive and vanish between the same two pages.
DEFAULT_SECOND_LOOK_PERCENT: Mapping[Revision, int] = {PAGED: 0, CURSOR: 1}
# Which revision of the API the service speaks: told by the service itself, or set.
AUTO = "auto"

# An earlier start is a slip of the finger, and would make more partitions than a browser can show.
EARLIEST_START_DATE = date(2000, 1, 1)
MOST_REQUESTS_PER_MINUTE = 1_000_000
SHOWN_CHARACTERS = 40

# The least and the most of each number that the resource takes, by its field.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "requests_per_minute": (1, MOST_REQUESTS_PER_MINUTE),
    "shrink_limit_percent": (0, 100),
    "bad_rows_limit_percent": (0, 100),
    "second_look_percent": (0, 100),
}

# Less is taken by the interpreter and its libraries alone.
LEAST_MEMORY_GB = 0.25

_Default = TypeVar("_Default")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What shapes the definitions themselves, and is therefore read when they load.

    `start_date` is the first partition. `restate_days` is how many days the daily schedule fetches again.
    `due_hour_utc` is the hour of the day at which the previous day is due: Later is current to the previous day [D].
    `metrics` are those whose columns the tables are shown with, and whose sums the rollups have.
    """

    start_date: date = DEFAULT_START_DATE
    restate_days: int = DEFAULT_RESTATE_DAYS
    due_hour_utc: int = DEFAULT_DUE_HOUR_UTC
    metrics: tuple[Metric, ...] = DOCUMENT_METRICS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "LoadSettings":
        """Reads `LATER_START_DATE`, `LATER_RESTATE_DAYS`, `LATER_DUE_HOUR_UTC` and `LATER_METRICS`.

        Raises:
            ValueError: one of them is not of its form; the message names it and says what it takes.
        """
        start = environment.get("LATER_START_DATE") or DEFAULT_START_DATE.isoformat()
        try:
            start_date = date.fromisoformat(start)
        except ValueError:
            raise ValueError(f"LATER_START_DATE is a day as YYYY-MM-DD, not {_shown(start)}") from None
        if start_date < EARLIEST_START_DATE:
            raise ValueError(f"LATER_START_DATE is a day from {EARLIEST_START_DATE} on, not {_shown(start)}")
        try:
            metrics = metrics_named(environment.get("LATER_METRICS", ""))
        except ValueError as error:
            raise ValueError(f"LATER_METRICS: {error}") from None
        return cls(
            start_date=start_date,
            restate_days=_whole("LATER_RESTATE_DAYS", environment, default=DEFAULT_RESTATE_DAYS, bounds=(1, 730)),
            due_hour_utc=_whole("LATER_DUE_HOUR_UTC", environment, default=DEFAULT_DUE_HOUR_UTC, bounds=(0, 23)),
            metrics=metrics,
        )


def from_environment(name: str, default: _Default) -> Any:
    """A resource field's value: an `EnvVar` where the variable is set, so that the UI shows its name; or `default`.

    Raises:
        ValueError: the field is a number, and what is set is none, or one out of its bounds.
    """
    text = os.environ.get(name)
    if not text:
        return default
    if name == "LATER_MEMORY_GB":
        return _memory_gb(name, text)  # Dagster has variables for text and whole numbers only
    if bounds := BOUNDS.get(name.removeprefix("LATER_").lower()):
        _whole(name, os.environ, default=0, bounds=bounds)
        return dg.EnvVar.int(name)
    return dg.EnvVar(name)


def default_lake_root() -> str:
    """Where partitions lie when `LATER_LAKE_ROOT` says nothing: a folder of the working directory."""
    return str(Path.cwd() / "later-lake")


def _whole(name: str, environment: Mapping[str, str], *, default: int, bounds: tuple[int, int]) -> int:
    text, (least, most) = environment.get(name) or str(default), bounds
    # Python refuses to read a number of thousands of digits, in words that name no setting.
    is_whole = text.isascii() and text.isdigit() and len(text) <= SHOWN_CHARACTERS
    if not (is_whole and least <= int(text) <= most):
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {_shown(text)}")
    return int(text)


def check_memory_gb(memory_gb: float) -> None:
    """Refuse what is too little memory to work with, or no number.

    Raises:
        ValueError: it is not above `LEAST_MEMORY_GB`, or not finite.
    """
    if not LEAST_MEMORY_GB < memory_gb < inf:
        raise ValueError(f"a number of GB above {LEAST_MEMORY_GB}, such as 2 or 1.5, not {memory_gb:g}")


def _memory_gb(name: str, text: str) -> float:
    try:
        memory_gb = float(text)
        check_memory_gb(memory_gb)
    except ValueError:
        raise ValueError(
            f"{name} is a number of GB above {LEAST_MEMORY_GB}, such as 2 or 1.5, not {_shown(text)}"
        ) from None
    return memory_gb


def _shown(text: str) -> str:
    return repr(text) if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]!r}…"

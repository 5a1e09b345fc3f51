"""The environment variables, read once and checked, each with an error that names it and the fix."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

DEFAULT_BASE_URL = "https://reporting.api.later.com"
DEFAULT_START_DATE = date(2024, 1, 1)
DEFAULT_REQUESTS_PER_MINUTE = 120
DEFAULT_RESTATE_DAYS = 28
DEFAULT_DUE_HOUR_UTC = 12

_Default = TypeVar("_Default")


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What shapes the definitions themselves, and is therefore read when they load.

    `start_date` is the first partition. `restate_days` is how many days the daily schedule fetches again.
    `due_hour_utc` is the hour of the day at which the previous day is due: Later is current to the previous day [D].
    """

    start_date: date = DEFAULT_START_DATE
    restate_days: int = DEFAULT_RESTATE_DAYS
    due_hour_utc: int = DEFAULT_DUE_HOUR_UTC

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "LoadSettings":
        """Reads `LATER_START_DATE`, `LATER_RESTATE_DAYS` and `LATER_DUE_HOUR_UTC`.

        Raises:
            ValueError: one of them is not of its form; the message names it and says what it takes.
        """
        start = environment.get("LATER_START_DATE") or DEFAULT_START_DATE.isoformat()
        try:
            start_date = date.fromisoformat(start)
        except ValueError:
            raise ValueError(f"LATER_START_DATE is a day as YYYY-MM-DD, not {start!r}") from None
        return cls(
            start_date=start_date,
            restate_days=_whole(environment, "LATER_RESTATE_DAYS", DEFAULT_RESTATE_DAYS, least=1, most=730),
            due_hour_utc=_whole(environment, "LATER_DUE_HOUR_UTC", DEFAULT_DUE_HOUR_UTC, least=0, most=23),
        )


def from_environment(name: str, default: _Default) -> Any:
    """A resource field's value: an `EnvVar` where the variable is set, so that the UI shows its name; or `default`.

    Raises:
        ValueError: the default is a number, and what is set is none from 1 to a million.
    """
    if not os.environ.get(name):
        return default
    if isinstance(default, int):
        _whole(os.environ, name, default, least=1, most=1_000_000)
        return dg.EnvVar.int(name)
    return dg.EnvVar(name)


def default_lake_root() -> str:
    """Where partitions lie when `LATER_LAKE_ROOT` says nothing: a folder of the working directory."""
    return str(Path.cwd() / "later-lake")


def _whole(environment: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {text!r}")
    return int(text)

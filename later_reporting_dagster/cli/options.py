"""What the commands share: option types, errors of one line, and text that is safe to print."""

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from later_reporting_dagster.contract.days import newest_day

if TYPE_CHECKING:
    from later_reporting_dagster.cli.project import Project

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_ListCallback = Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[str, ...]]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_line(text: str) -> str:
    """Return `text` without line breaks, and with control characters replaced, so that it cannot move the cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _REPLACEMENT for char in " ".join(text.split()))


def yesterday() -> date:
    """Return the newest day that is over in UTC."""
    return newest_day(datetime.now(UTC))


class FiniteNumber(click.FloatRange):
    """A finite number. `click.FloatRange` alone accepts `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with a usage error."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class AssetName(click.ParamType):  # type: ignore[type-arg] # generic in newer versions of click only
    """An asset of `names`, or any: by its key, such as `later/posts_published`, or by the name of its table alone."""

    name = "ASSET"

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name of the table, or fail with a usage error."""
        from later_reporting_dagster.defs.definition_settings import ASSET_NAMES

        name, names = value.rpartition("/")[2], self._names or ASSET_NAMES
        if name not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}", param, ctx)
        return name


def list_and_exit(descriptions: Mapping[str, str]) -> _ListCallback:
    """Return an option callback that prints names with their descriptions and exits when the value is `list`."""

    def callback(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        if "list" in values:
            for name, description in descriptions.items():
                click.echo(f"{name:<25} {description}")
            context.exit()
        return values

    return callback


def current_project() -> "Project":
    """Return the project that the options of the command line choose."""
    from later_reporting_dagster.cli.project import load_project

    module, name = click.get_current_context().find_root().obj
    return load_project(module, name=name)


def one_line_errors(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorate a command so that errors that a user can fix are printed as one line without a traceback."""

    @wraps(command)
    def wrapper(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        from later_reporting_dagster.client import LaterError
        from later_reporting_dagster.lake import LakeUnavailable

        try:
            return command(*args, **kwargs)
        except (LaterError, LakeUnavailable, ValueError) as error:
            raise click.ClickException(one_line(str(error))) from error

    return wrapper


@contextmanager
def prefix_errors_with(options: str) -> Iterator[None]:
    """Prefix errors inside the block with the options that caused them, for example `--host, --port`."""
    try:
        yield
    except BrokenPipeError:  # the reader of the output is gone, which no option can fix
        raise
    except (ValueError, OSError) as error:
        is_port_used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        message = "the port is in use: choose another one, or stop what listens there" if is_port_used else error
        raise click.UsageError(f"{options}: {message}") from error

"""The project that a command works on: a component of the user's definitions, or the one that the environment sets."""

import importlib
import sys
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.defs.component import LaterReportingComponent
from later_reporting_dagster.defs.definition_settings import METADATA_PREFIX, DefinitionSettings
from later_reporting_dagster.defs.resource import LaterReportingResource

ENVIRONMENT_MODULE = "later_reporting_dagster.definitions"
# The full retry policy would keep a user waiting for minutes.
RETRY_ONCE = RetryPolicy(max_attempts=2)


@dataclass(frozen=True)
class Project:
    """A component, as part of the definitions that it was loaded with; `later` has the values of variables."""

    definitions: dg.Definitions
    settings: DefinitionSettings
    later: LaterReportingResource


def load_project(module: str | None, *, name: str | None) -> Project:
    """Load the definitions of a module, and return one of its components, or the only one.

    Without a module, it is the one that `[tool.dg]` names in the pyproject.toml or dg.toml of the current folder, or if
    there is none, the component that the environment sets.

    Raises:
        ValueError: the module cannot be loaded, or has no such component, or a setting is invalid.
    """
    # Beta features are used on purpose, by this project and by Dagster itself.
    warnings.simplefilter("ignore", dg.BetaWarning)
    module = module or _module_of_current_folder() or ENVIRONMENT_MODULE
    definitions = _load_definitions(module)
    found = {
        key.removeprefix(METADATA_PREFIX): DefinitionSettings.model_validate(value.data)
        for key, value in (definitions.metadata or {}).items()
        if key.startswith(METADATA_PREFIX) and isinstance(value, dg.JsonMetadataValue)
    }
    if not found:
        raise ValueError(
            f"{module} has no LaterReportingComponent: name another module with -m, or use -m {ENVIRONMENT_MODULE} for"
            " the settings of the environment"
        )
    if name is None and len(found) == 1:
        (name,) = found
    if name not in found:
        problem = f"no component {name!r}" if name else "several components"
        raise ValueError(f"{module} has {problem}: choose one with --name, of {', '.join(found)}")
    settings = found[name]
    return Project(definitions, settings, later=(definitions.resources or {})[settings.resource_key].resolved())


def _load_definitions(module: str) -> dg.Definitions:
    if module == ENVIRONMENT_MODULE:
        # Not imported: that may have happened with other variables.
        try:
            return LaterReportingComponent.from_environment().build_definitions()
        except dg.DagsterInvalidDefinitionError as error:
            raise ValueError(str(error)) from error
    # As `dagster dev` and `dg dev` do.
    sys.path[:0] = [folder for folder in (str(Path.cwd()), str(Path.cwd() / "src")) if folder not in sys.path]
    try:
        loaded = [*_definitions_of(vars(importlib.import_module(module)).values())]
    except Exception as error:
        raise ValueError(f"cannot load {module}: {str(error) or type(error).__name__}") from error
    if len(loaded) != 1:
        raise ValueError(f"{module} must have one Definitions object, but has {len(loaded)}")
    return loaded[0]


def _definitions_of(values: Iterable[object]) -> Iterator[dg.Definitions]:
    """Yield the `Definitions` among the values of a module, and those returned by functions with `@definitions`."""
    decorated = type(dg.definitions(lambda: dg.Definitions()))
    for value in {id(value): value for value in values}.values():
        if isinstance(value, dg.Definitions):
            yield value
        elif isinstance(value, decorated):
            yield value()


def _module_of_current_folder() -> str | None:
    """Return the module of the definitions of the `dg` project in the current folder; None if it is not a project."""
    for file_name, table in (("dg.toml", ()), ("pyproject.toml", ("tool", "dg"))):
        try:
            settings = tomllib.loads(Path(file_name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for name in (*table, "project"):
            settings = settings.get(name, {})
        if root_module := settings.get("root_module"):
            return str(settings.get("code_location_target_module") or f"{root_module}.definitions")
    return None

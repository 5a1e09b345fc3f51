"""The project that a command works on: a component of the user's definitions, or the one that the environment sets."""

import importlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import dagster as dg

from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.defs.component import LaterReportingComponent
from later_reporting_dagster.defs.component_base import METADATA_PREFIX, ComponentBase
from later_reporting_dagster.defs.dagster_private import code_location_of, code_locations_of_project, definitions_in
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.report.report_data import REPORT_PATH

if TYPE_CHECKING:
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin as CodeLocation

ENVIRONMENT_MODULE = "later_reporting_dagster.definitions"
# The full retry policy would keep a user waiting for minutes.
RETRY_ONCE = RetryPolicy(max_attempts=2, max_refused_seconds=60.0)


@dataclass(frozen=True)
class Project:
    """A component, as part of the definitions that it was loaded with; `later` has the values of variables."""

    location: "CodeLocation"
    definitions: dg.Definitions
    settings: ComponentBase
    later: LaterReportingResource

    def report_location(self) -> str:
        """Return where the report is."""
        return self.later.lake().storage.location(REPORT_PATH)


def load_project(module: str | None, *, name: str | None) -> Project:
    """Load the definitions of a module, and return one of its components, or the only one.

    Without a module, it is the one that the pyproject.toml of the current folder names for `dagster dev`, or if there
    is none, the component that the environment sets.

    Raises:
        ClickException: the module cannot be loaded, or has no such component, or a setting is invalid.
    """
    # Beta features are used on purpose, by this project and by Dagster itself.
    warnings.simplefilter("ignore", dg.BetaWarning)
    location = None if module else _location_of_current_folder()
    module = module or (location and location.loadable_target_origin.module_name) or ENVIRONMENT_MODULE
    definitions = _load_definitions(module)
    found = {
        key.removeprefix(METADATA_PREFIX): ComponentBase.model_validate(value.data)
        for key, value in (definitions.metadata or {}).items()
        if key.startswith(METADATA_PREFIX) and isinstance(value, dg.JsonMetadataValue)
    }
    if not found:
        raise click.ClickException(
            f"{module} has no LaterReportingComponent: name another module with -m, or use -m {ENVIRONMENT_MODULE} for"
            " the settings of the environment"
        )
    if name is None and len(found) == 1:
        (name,) = found
    if name not in found:
        problem = f"no component {name!r}" if name else "several components"
        raise click.ClickException(f"{module} has {problem}: choose one with --name, of {', '.join(found)}")
    settings = found[name]
    later = (definitions.resources or {})[settings.resource_key].resolved()
    if location is None or module == ENVIRONMENT_MODULE:  # which the README runs by its name, also in a clone
        location = code_location_of(module)
    return Project(location, definitions, settings, later=later)


def _load_definitions(module: str) -> dg.Definitions:
    if module == ENVIRONMENT_MODULE:
        # Not imported: that may have happened with other variables.
        try:
            return LaterReportingComponent.from_environment().build_definitions()
        except dg.DagsterInvalidDefinitionError as error:
            raise click.ClickException(str(error)) from error
    # As `dagster dev` and `dg dev` do.
    sys.path[:0] = [folder for folder in (str(Path.cwd()), str(Path.cwd() / "src")) if folder not in sys.path]
    try:
        found = definitions_in(importlib.import_module(module))
        definitions = found() if callable(found) else found  # a function with the decorator `@definitions`
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(f"cannot load {module}: {str(error) or type(error).__name__}") from error
    if isinstance(definitions, dg.Definitions):
        return definitions
    raise click.ClickException(f"{module} has no Definitions object")


def _location_of_current_folder() -> "CodeLocation | None":
    try:
        origins = code_locations_of_project()
    except OSError:
        return None
    except ValueError as error:  # the settings of the environment may be those of another lake
        raise click.ClickException(f"cannot read pyproject.toml: {error}") from error
    location = next(iter(origins), None)
    if location is not None:
        advice = f"if you trust it, use -m {location.loadable_target_origin.module_name}"
        check_owner(Path.cwd(), Path("pyproject.toml"), Path("src"), advice=advice)
    return location


def check_owner(*paths: Path, advice: str) -> None:
    """Refuse files and folders whose content runs as code, if one belongs to another user who is not root."""
    for path in paths:
        if path.exists() and not {path.stat().st_uid, path.lstat().st_uid} <= {0, os.geteuid()}:
            raise click.ClickException(f"{path} belongs to another user, whose code would run as yours: {advice}")

"""What is not public in Dagster and has no public counterpart."""

from functools import partial

import dagster as dg

# With this metadata, Dagster logs nothing for a result, but executes the checks and the downstream steps of its asset.
# Needed until a run of several partitions can yield a result for each, with a data version of its own:
# https://github.com/dagster-io/dagster/issues/21072 and https://github.com/dagster-io/dagster/issues/34013.
# tests/defs/test_same_run.py fails without its effect.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as NOTHING_TO_LOG

# The timeline of the UI leaves out runs without an origin: the origin of their job, in a code location.
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin as CodeLocation
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

# How `dagster dev` finds the definitions of a folder. We know of no issue that asks for a public function.
# tests/e2e/test_own_project.py fails without them.
from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module
from dagster._core.workspace.load_target import get_origins_from_toml

__all__ = [
    "NOTHING_TO_LOG",
    "CodeLocation",
    "code_location_of",
    "get_origins_from_toml",
    "loadable_targets_from_loaded_module",
    "set_origin_of_runs",
]


def code_location_of(module: str) -> CodeLocation:
    """Return the code location of `dagster dev -m`."""
    return CodeLocation(LoadableTargetOrigin(module_name=module), module)


def set_origin_of_runs(instance: dg.DagsterInstance, job: dg.JobDefinition, location: CodeLocation) -> None:
    """Give the runs that this process executes from now on the origin of runs of the job that a daemon launches."""
    repository = RemoteRepositoryOrigin(location, "__repository__")  # Dagster's name for that of a `Definitions`
    create = partial(instance.create_run_for_job, remote_job_origin=RemoteJobOrigin(repository, job.name))
    instance.create_run_for_job = create  # type: ignore[method-assign]

"""What is not public in Dagster and has no public counterpart."""

# With this metadata, Dagster logs nothing for a result, but executes the checks and the downstream steps of its asset.
# Needed until a run of several partitions can yield a result for each, with a data version of its own:
# https://github.com/dagster-io/dagster/issues/21072 and https://github.com/dagster-io/dagster/issues/34013.
# tests/defs/test_same_run.py fails without its effect.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as NOTHING_TO_LOG

# How `dagster dev` finds the definitions of a folder. We know of no issue that asks for a public function.
# tests/e2e/test_own_project.py fails without them.
from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module
from dagster._core.workspace.load_target import get_origins_from_toml

__all__ = ["NOTHING_TO_LOG", "get_origins_from_toml", "loadable_targets_from_loaded_module"]

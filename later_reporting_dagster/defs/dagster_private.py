"""What is not public in Dagster and has no public counterpart. A test shows what each is for."""

# With this metadata, Dagster logs nothing for a result, but executes the checks and the downstream steps of its asset.
# A public result of a partitioned asset without materializations of its own would replace it:
# https://github.com/dagster-io/dagster/issues/20094
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION as NOTHING_TO_LOG

__all__ = ["NOTHING_TO_LOG"]

"""The `later-reporting` command."""

from later_reporting_dagster.cli.main import main

__all__ = ["main"]

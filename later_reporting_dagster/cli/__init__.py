"""The `later-reporting` command line."""

from later_reporting_dagster.cli.main import main

__all__ = ["main"]

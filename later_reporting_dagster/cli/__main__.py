"""Run the command line as `python -m later_reporting_dagster.cli`."""

from later_reporting_dagster.cli import main

main()

"""`python -m later_reporting_dagster.cli`: the command without its script."""

from later_reporting_dagster.cli import main

main()

"""Dagster's daemon, which looks every second for what there is to do, in place of every 5 or 30 seconds."""

from dagster._daemon import asset_daemon, controller, sensor
from dagster._daemon.cli import main

sensor.MIN_INTERVAL_LOOP_TIME = 1
asset_daemon.MIN_INTERVAL_LOOP_SECONDS = 1
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1

if __name__ == "__main__":
    main()

#!/bin/sh
# Fetches the last 30 days again, and checks the lake, once a day: docs/deploy.md has the line for crontab.
# It prints only if something is wrong, and cron mails what a job prints. The argument is a file of NAME=value lines.
set -eu
PATH="$(dirname "$0")/../.venv/bin:$PATH"
set -a
. "$(realpath "$1")"
set +a
log="$DAGSTER_HOME/cron.log"
this_run="$DAGSTER_HOME/cron-newest.log"

exec 9>"$DAGSTER_HOME/cron.lock"
if ! flock --nonblock 9; then
    echo "The run of an earlier day is still in progress. If it hangs, end it: $log says how far it is."
    exit 1
fi

failed=0
{
    date
    later-reporting backfill || failed=1
    later-reporting doctor --strict || failed=1
} >"$this_run" 2>&1
cat "$this_run" >>"$log"
if [ "$failed" = 1 ]; then
    cat "$this_run"
    exit 1
fi

#!/bin/sh
# Fetches the last 30 days again, and checks the lake, once a day: docs/deploy.md has the line for crontab.
# It prints only if something is wrong, and cron mails what a job prints. The first argument is a file of NAME=value
# lines, the second, if given, a command to run after the fetch, such as one that sends the page.
set -eu
PATH="$(dirname "$0")/../.venv/bin:$PATH"
# Values are taken as they are: a shell would replace what follows a $ in a secret.
while IFS= read -r line || [ -n "$line" ]; do
    line="${line#export }"
    value="${line#*=}"
    case "$value" in \"*\" | \'*\') value="${value#?}" value="${value%?}" ;; esac
    case "$line" in
    [A-Z]*=*) export "${line%%=*}=$value" ;;
    esac
done <"$1"
log="$DAGSTER_HOME/cron.log"
this_run="$DAGSTER_HOME/cron-newest.log"

exec 9>"$DAGSTER_HOME/cron.lock"
if ! flock --nonblock 9; then
    echo "The run of an earlier day is still in progress. If it hangs, end it: $this_run says how far it is."
    exit 1
fi

failed=0
{
    date
    later-reporting backfill || failed=1
    later-reporting doctor --strict || failed=1
    [ -z "${2:-}" ] || sh -c "$2" || failed=1
} >"$this_run" 2>&1
cat "$this_run" >>"$log"
if [ "$failed" = 1 ]; then
    cat "$this_run"
    exit 1
fi

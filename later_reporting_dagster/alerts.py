"""Mail about each run that fails, and about each check that fails in a run.

The code location `later_reporting_dagster.definitions` has these sensors if `ALERTS_SMTP` is set:

    export ALERTS_SMTP=mail.example.com:25 ALERTS_FROM=dagster@example.com ALERTS_TO=data@example.com
    export ALERTS_UI=https://dagster.example.com  # optional: mails then link to the run

Dagster's own `make_email_on_run_failure_sensor` knows no checks, and only servers with TLS and a password. Use its
`smtplib.SMTP_SSL` and `login` here if yours has them.
"""

import os
import smtplib
from email.message import EmailMessage

import dagster as dg

from later_reporting_dagster.defs.dagster_private import check_results_of_run, failed_steps_of_run
from later_reporting_dagster.defs.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG


def mail_about(context: dg.RunStatusSensorContext) -> None:
    """Send a mail if the run failed, or a check in it."""
    run = context.dagster_run
    lines = [
        f"{check.severity.value}  {check.asset_key.to_user_string()}  {check.check_name}: {check.description}"
        for check in check_results_of_run(context.instance, run.run_id)
        if not check.passed
    ]
    if run.status is dg.DagsterRunStatus.FAILURE:
        steps = failed_steps_of_run(context.instance, run.run_id)
        lines[:0] = [
            f"The run failed: {context.dagster_event.message}",
            *(f"{each.step}: {each.description or each.message.strip()}" for each in steps),
        ]
    if not lines:
        return
    message = EmailMessage()
    message["Subject"] = f"Dagster: failures in run {run.run_id[:8]}"
    message["From"], message["To"] = os.environ["ALERTS_FROM"], os.environ["ALERTS_TO"]
    message.set_content("\n".join([_name_of(run), *lines]))
    with smtplib.SMTP(os.environ["ALERTS_SMTP"]) as server:
        server.send_message(message)


def _name_of(run: dg.DagsterRun) -> str:
    """Return the job of a run, the days that it was asked for, and where it is in the UI."""
    tags, ui = run.tags, os.environ.get("ALERTS_UI", "").rstrip("/")
    first, last = (tags.get(each, tags.get(PARTITION_TAG)) for each in (RANGE_START_TAG, RANGE_END_TAG))
    days = "" if first is None else f" for {first}" if first == last else f" for {first} to {last}"
    return f"{run.job_name}{days}, {ui}/runs/{run.run_id}" if ui else f"{run.job_name}{days}, run {run.run_id}"


def alert_sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    """Return a sensor of all runs that end with a status, of all code locations."""

    @dg.run_status_sensor(
        run_status=status,
        name=f"mail_about_{status.value.lower()}",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.RunStatusSensorContext) -> None:
        mail_about(context)

    return sensor


defs = dg.Definitions(sensors=[alert_sensor(dg.DagsterRunStatus.SUCCESS), alert_sensor(dg.DagsterRunStatus.FAILURE)])

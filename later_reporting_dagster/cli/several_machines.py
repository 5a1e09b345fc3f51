"""Finds out whether runs can start on several machines, from the Dagster instance and the definitions."""

import dagster as dg

LAUNCHER_ON_ONE_MACHINE = "DefaultRunLauncher"
EXECUTORS_ON_ONE_MACHINE = {"in_process", "multiprocess", "multi_or_in_process_executor"}


def multi_machine_execution(instance: dg.DagsterInstance, definitions: dg.Definitions) -> str | None:
    """Return the run launcher, or else an executor, that can run steps on several machines; None if there is none."""
    # Not `instance.run_launcher`, which would connect to Kubernetes or Docker.
    launcher = instance.get_ref().run_launcher_data
    if launcher and launcher.class_name != LAUNCHER_ON_ONE_MACHINE:
        return f"the run launcher {launcher.class_name}"
    jobs = definitions.get_repository_def().get_all_jobs()
    executors = {job.executor_def.name for job in jobs} - EXECUTORS_ON_ONE_MACHINE
    return f"the executor {min(executors)}" if executors else None

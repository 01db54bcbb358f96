"""SLURM jobs: their identity, requeueing, and the file that links a run folder to a job."""

import os
import re
import subprocess
import sys
from pathlib import Path

from smmix_pl.runs.run_files import write_atomic

JOB_FILE = ".slurm_job"
"""File in a run folder with the id of its job."""


def slurm_job() -> str | None:
    """Return the id by which SLURM requeues this job: a job number, or ARRAY_TASK in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    return job if re.fullmatch(r"\d+(_\d+)?", job) else None


def requeued_job() -> str | None:
    """Return the id of this job if SLURM has requeued it, else None."""
    return slurm_job() if os.environ.get("SLURM_RESTART_COUNT") else None


def requeue() -> None:
    """Ask SLURM to run this job again. Call it on one rank only.

    A failure is printed, not raised: the run has been saved, and its exit status must not change.
    """
    job = slurm_job()
    if job is None:
        return
    try:
        status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
        result = "requeued" if not status else f"not requeued (scontrol exited with {status})"
    except OSError as error:  # a container without SLURM's programs
        result = f"not requeued, because scontrol cannot be run ({error.strerror})"
    print(f"SLURM job {job}: {result}.", file=sys.stderr)


def keep_job(folder: Path) -> None:
    """Store this job's id in a run folder, so that the requeued job finds its run."""
    job = slurm_job()
    if job is not None and folder.is_dir():
        write_atomic(folder / JOB_FILE, job.encode())


def job_of(folder: Path) -> str | None:
    """Return the id of the SLURM job that started a run, if it is known."""
    file = folder / JOB_FILE
    return file.read_text(errors="replace").strip() if file.is_file() else None

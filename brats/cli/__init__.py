"""The command line of the jobs."""

from brats.cli.job import run_job

__all__ = ["run_job"]

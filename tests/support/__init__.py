"""What several test modules share: tiny cases, clusters, S3 servers, and processes to kill."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the checkout."""

BUSY_MACHINE = {
    # Ray's own 15 lets everything else go first: what runs beside a test would make it take several times as long.
    "RAY_worker_niceness": "0",
    # By itself a thread that has done its part spins until the others have done theirs, which in a tiny network on
    # a core that is taken is nearly all it does: ten times the CPU time was measured.
    "OMP_WAIT_POLICY": "passive",
}
"""Environment of every process of a test, for a machine on which others work too."""

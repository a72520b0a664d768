"""What several test modules share: tiny cases, clusters, S3 servers, and processes to kill."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the checkout."""

"""Turn BraTS case folders into a prepared dataset (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(
        f"prepare.py: {error.name} is not installed; run `make install`, then `source .venv/bin/activate`"
    ) from None
from brats.config import PrepareConfig


def main(config: PrepareConfig) -> None:
    from brats import storage
    from brats.cluster.connect import connected
    from brats.cluster.preflight import check_cluster
    from brats.cluster.quiet import native_log_hidden
    from brats.pipeline.prepare import prepare

    storage.check_roundtrip(storage.absolute(config.out))
    with native_log_hidden(), connected(wait_minutes=config.wait_minutes):
        check_cluster({"--data": config.data}, config.out, wait_minutes=config.wait_minutes)
        print(prepare(config).summary())


if __name__ == "__main__":
    run_job(main, PrepareConfig)

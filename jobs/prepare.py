"""Turn BraTS case folders into a prepared dataset (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import PrepareConfig


def main(config: PrepareConfig) -> None:
    from brats.cluster.session import ready
    from brats.pipeline.prepare import prepare

    with ready({"--data": config.data}, config.out, config.wait_minutes):
        print(prepare(config).summary())


if __name__ == "__main__":
    run_job(main, PrepareConfig)

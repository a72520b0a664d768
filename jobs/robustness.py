"""Measure how much Dice degraded images cost a trained model (see --help)."""

try:
    from brats.cli import run_job
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is missing; run `make install`, then `source .venv/bin/activate`") from None
from brats.config import RobustnessConfig


def main(config: RobustnessConfig) -> None:
    from brats.cluster.connect import NETWORK_MODULES
    from brats.cluster.session import ready
    from brats.pipeline.robustness import robustness

    with ready({"--data": config.data, "--model": config.model}, config.out, config.wait_minutes, NETWORK_MODULES):
        print(robustness(config).summary())


if __name__ == "__main__":
    run_job(main, RobustnessConfig)

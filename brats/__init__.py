"""Brain-tumour segmentation on BraTS MRI as a distributed batch job."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brats.config import EvaluateConfig, PredictConfig, PrepareConfig, TrainConfig
    from brats.pipeline.functions import evaluate, predict, prepare, train

__version__ = "0.1.0"
__all__ = [
    "EvaluateConfig",
    "PredictConfig",
    "PrepareConfig",
    "TrainConfig",
    "evaluate",
    "predict",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    """The jobs and their configurations, imported when they are first used: this package loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.endswith("Config"):
        from brats import config

        return getattr(config, name)
    from brats.pipeline import functions

    return getattr(functions, name)

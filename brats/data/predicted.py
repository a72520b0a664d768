"""A prediction on disk: the folder of `predict` with its masks, and what its `config.json` says of it."""

from dataclasses import dataclass

from brats import storage
from brats.data.cases import DEFAULT_HDF5, Hdf5Options
from brats.data.challenges import AUTO
from brats.data.run_split import split_path, test_dir
from brats.errors import ConfigError
from brats.saved_config import config_path

ALL_CASES = "all"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A folder that `predict` wrote, or is not done with.

    out:    the folder
    data:   where its cases lay, prepared or not; None where the configuration does not say
    split:  which of them it predicts
    coding: `--coding` of the prediction
    hdf5:   what it took HDF5 slices for
    run:    the run whose model it is, as far as that can be told; a folder without a split for a model on its own
    """

    out: str
    data: str | None
    split: str
    coding: str
    hdf5: Hdf5Options
    run: str


def find_prediction(path: str) -> Prediction | None:
    """The prediction in a folder, or the predicted test split of a run; None for a folder of anything else.

    Raises ConfigError for a run whose test split was not predicted, StorageError for a damaged `config.json`.
    """
    job = _read_job(path)
    if job == "predict":
        return _read_prediction(path)
    if job != "train":
        return None
    if _read_job(test_dir(path)) == "predict":
        return _read_prediction(test_dir(path))
    raise ConfigError(
        f"--predictions: the run {path} has no predicted test split in {test_dir(path)}; run train.py without "
        f"--no-predict, or name a folder that predict.py wrote; of a cross-validation, {path}/fold_0 and on"
    )


def _read_job(folder: str) -> str | None:
    try:
        return str(storage.read_json(config_path(folder)).get("job"))
    except FileNotFoundError:
        return None


def _read_prediction(out: str) -> Prediction:
    saved = storage.read_json(config_path(out))
    result, execution = saved.get("result"), saved.get("execution")
    if not (isinstance(result, dict) and isinstance(execution, dict)):
        raise ConfigError(f"--predictions: {config_path(out)} is damaged, not the configuration of a job")
    return Prediction(
        out=out,
        data=execution.get("data"),
        split=result.get("split", ALL_CASES),
        coding=result.get("coding", AUTO),
        hdf5=Hdf5Options(
            channels=tuple(result.get("hdf5_channels", DEFAULT_HDF5.channels)),
            spacing_hwz_mm=tuple(result.get("hdf5_spacing_mm", DEFAULT_HDF5.spacing_hwz_mm)),
        ),
        run=_find_run(out, execution.get("model", "")),
    )


def _find_run(out: str, model: str) -> str:
    """The run around a predicted test split, which may have been moved as a whole; else that of the model."""
    around = out.rpartition("/")[0]
    is_test = test_dir(around) == out and storage.exists(split_path(around))
    return around if is_test else model.rpartition("/")[0] or model

"""Where results come from: command, hash, methods and works to cite."""

import hashlib
from dataclasses import replace

from brats.config import CLASSIC_UNET, PredictConfig, TrainConfig
from brats.report.findings import Findings
from brats.report.provenance import cited, command, data_hash, methods, provenance_section, versions
from brats.saved_config import SavedConfig
from tests.support.reports import history_frame

ROWS = [
    {"case_id": "b", "patient_id": "q", "split": "test", "source_hash": "02"},
    {"case_id": "a", "patient_id": "p", "split": "train", "source_hash": "01"},
]


def trained(**options: object) -> Findings:
    saved = SavedConfig.of("train", TrainConfig(out="/runs/a b", **options))  # type: ignore[arg-type]
    config = {**saved.execution, **saved.result}
    return Findings(folder="/runs/a b", job="train", config=config, split=ROWS, histories={"": history_frame()})


def test_the_command_has_the_options_that_differ_from_the_defaults() -> None:
    found = trained(data="/data", epochs=3, modalities=("t1", "t2"), predict=False, nifti=True)
    assert command(found) == (
        "python jobs/train.py --out '/runs/a b' --data /data --modalities t1 t2 --epochs 3 --no-predict --nifti"
    )


def test_the_command_leaves_out_what_its_preset_sets() -> None:
    found = trained(preset="demo", minutes=4.0, batch_size=8, ema=0.0, learning_rate=1.4e-3, warmup_steps=40)
    assert command(found) == (
        "python jobs/train.py --out '/runs/a b' --preset demo --decoder-channels 256 128 64 32 16 "
        "--augmentation full"
    )


def test_the_command_of_a_prediction_names_its_model() -> None:
    saved = SavedConfig.of("predict", PredictConfig(model="/m", data="/d", out="/o", flips=True))
    found = Findings(folder="/o", job="predict", config={**saved.execution, **saved.result})
    assert command(found) == "python jobs/predict.py --out /o --model /m --data /d --flips"


def test_without_a_configuration_there_is_no_command() -> None:
    assert command(Findings(folder="/o")) == ""


def test_the_hash_of_the_data_is_over_the_sorted_cases() -> None:
    expected = hashlib.sha256(b"a\ttrain\t01\nb\ttest\t02").hexdigest()
    assert data_hash(trained()) == expected
    assert data_hash(replace(trained(), split=ROWS[::-1])) == expected
    assert data_hash(replace(trained(), split=[{**ROWS[0], "source_hash": "03"}, ROWS[1]])) != expected


def test_methods_state_network_cohort_and_decoding() -> None:
    card = {"decoding": {"thresholds": [0.5, 0.4, 0.6], "n_tuned_on": 4}}
    words = methods(trained(), card)
    assert "the encoder tu-tf_efficientnet_lite0 (segmentation-models-pytorch), pretrained" in words
    assert "(train 1, test 1)" in words
    assert "peak learning rate of 0.001, 50 warm-up steps" in words
    assert "thresholds 0.5, 0.4, 0.6 (chosen on the validation cases)" in words
    assert "whole 3-D volume" not in words  # nothing is scored


def test_methods_of_a_cross_validation_name_its_folds() -> None:
    assert "2 patients were cross-validated in 5 folds" in methods(trained(cross_validation=5), {})


def test_the_classic_u_net_cites_no_encoder() -> None:
    assert "the U-Net of Ronneberger et al. (2015)" in methods(trained(encoder=CLASSIC_UNET), {})
    assert not {"iakubovskii2019", "tan2019"} & set(cited(trained(encoder=CLASSIC_UNET)))
    assert {"iakubovskii2019", "tan2019"} <= set(cited(trained()))


def test_versions_are_those_of_the_training_and_those_of_the_page() -> None:
    found = versions({"versions": {"torch": "1.2.3"}})
    assert found["trained with torch"] == "1.2.3"
    assert {"page made with torch", "page made on"} <= found.keys()


def test_the_section_escapes_paths() -> None:
    html = provenance_section(replace(trained(), data="<b>", config={**trained().config, "data": "<b>"}), {})
    assert "&lt;b&gt;" in html
    assert "<b>" not in html

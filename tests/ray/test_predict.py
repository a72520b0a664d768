"""Predicting on a real embedded Ray with an untrained network: what is written, resumed, rejected and refused."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from brats import storage
from brats.cluster.capacity import Machine
from brats.cluster.placement import Placement
from brats.config import EvaluateConfig, PredictConfig, PrepareConfig
from brats.data.batches import InputSpec
from brats.data.dataset import read_case_table
from brats.data.items import Item, PreparedCase
from brats.data.masks import MASK
from brats.data.run_split import SPLIT
from brats.errors import BratsError, BundleError, ConfigError, StorageError
from brats.model.bundle import ModelCard, save_bundle
from brats.model.unet import build_unet
from brats.pipeline.predict import predict, warn_of_training_cases
from brats.pipeline.predictor import predictor_cpus
from brats.pipeline.prepare import prepare
from brats.pipeline.scoring.against import against
from brats.pipeline.scoring.check import check_evaluation
from brats.pipeline.scoring.evaluate import evaluate
from brats.score.results import Results
from tests.support.predictions import ADDED, forget
from tests.support.synthetic import file_path, uncompress, write_case

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def make_bundle(folder: Path, *, modalities: tuple[str, ...] = ("flair", "t1ce"), seed: int = 1) -> Path:
    """A small random network whose masks hold every label, so that nothing is trivially empty."""
    torch.manual_seed(seed)
    network = build_unet(encoder="tu-test_resnet", n_channels=len(modalities), decoder_channels=(8,) * 5)
    torch.nn.init.zeros_(network.get_parameter("segmentation_head.0.bias"))
    card = ModelCard(
        encoder="tu-test_resnet",
        decoder_channels=(8,) * 5,
        inputs=InputSpec(modalities=modalities),
        epoch=1,
        val_dice=0.5,
        trained_on={"case_0": {"patient_id": "case_0", "voxel_hash": "v2:" + "0" * 32}},
    )
    save_bundle(str(folder), network.state_dict(), card)
    return folder


def run(model: Path, data: Path, out: Path, **options: object) -> Results:
    """Predict with one copy of the model unless told otherwise: each takes seconds to start.

    In fp32, in which the masks do not depend on the size of the batches.
    """
    fixed = {"model": str(model), "data": str(data), "out": str(out), "precision": "fp32"}
    return predict(PredictConfig(**{"workers": 1, **fixed, **options}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled cases and one without segmentation."""
    root = tmp_path_factory.mktemp("cases")
    for number in range(4):
        write_case(str(root), f"case_{number}", seed=number)
    write_case(str(root), "unlabelled", seed=9, labelled=False)
    return root


@pytest.fixture(scope="module")
def predicted(bundle: Path, cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predicted")
    run(bundle, cases, out, nifti=True, probabilities=True, workers=2, batch_size=16)
    return out


@pytest.fixture(scope="module")
def with_one_worker(bundle: Path, cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without NIfTI."""
    out = tmp_path_factory.mktemp("with_one_worker")
    run(bundle, cases, out, workers=1, batch_size=5)
    return out


def assert_same_masks(ours: Path, theirs: Path) -> None:
    names = sorted(path.name for path in (theirs / "masks").iterdir())
    assert sorted(path.name for path in (ours / "masks").iterdir()) == names
    for name in names:
        first, second = (storage.read_table(str(out / "masks" / name), MASK) for out in (ours, theirs))
        assert first.equals(second), name


def tables(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(out / "metrics" / f"{name}.parquet") for name in ("cases", "slices", "summary")}


def test_mask_slice_k_is_slice_k_of_the_nifti_and_of_the_source_grid(predicted: Path, cases: Path) -> None:
    for case_id in ("case_1", "unlabelled"):
        image = nib.load(predicted / "nifti" / f"{case_id}.nii.gz")
        source = nib.load(file_path(str(cases / case_id), case_id, "flair"))
        assert image.shape == source.shape
        np.testing.assert_array_equal(image.affine, source.affine)
        voxels = np.asarray(image.dataobj)
        rows = pd.read_parquet(predicted / "masks" / f"{case_id}.parquet")
        assert len(rows) == source.shape[2]
        assert voxels.any()
        for row in rows.itertuples():
            mask = np.frombuffer(row.mask, np.uint8).reshape(row.height, row.width)
            codes = np.array([0, 1, 2, 4], np.uint8)[mask]
            np.testing.assert_array_equal(codes, voxels[:, :, row.slice_index])


def test_probabilities_lie_on_the_source_grid_and_give_the_mask_and_the_entropy(predicted: Path) -> None:
    """With the thresholds of .5 and no rules of this model."""
    slices = tables(predicted)["slices"].set_index(["case_id", "slice_index", "region"])
    for case_id in ("case_1", "unlabelled"):
        rows = pd.read_parquet(predicted / "probabilities" / f"{case_id}.parquet")
        masks = pd.read_parquet(predicted / "masks" / f"{case_id}.parquet")
        assert len(rows) == len(masks)
        n_sure = 0
        for row, mask in zip(rows.itertuples(), masks["mask"], strict=True):
            levels = [np.frombuffer(values, np.uint8).astype(int) for values in (row.wt, row.tc, row.et)]
            expected = np.select([level > 128 for level in reversed(levels)], [3, 1, 2])
            sure = np.all([abs(level - 127.5) > 1 for level in levels], axis=0)
            np.testing.assert_array_equal(np.frombuffer(mask, np.uint8)[sure], expected[sure])
            n_sure += int(sure.sum())
            if (case_id, row.slice_index, "TC") in slices.index:
                share = levels[1] / 255
                share = share[(share > 0) & (share < 1)]
                bits = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum()
                assert slices.loc[(case_id, row.slice_index, "TC")].entropy_bits == pytest.approx(bits)
        assert n_sure > 1000


def test_every_case_has_its_uncertainty_and_those_with_a_reference_their_figures(predicted: Path) -> None:
    metrics = predicted / "metrics"
    found = pd.read_parquet(metrics / "uncertainty.parquet").set_index(["case_id", "region"])
    cases = tables(predicted)["cases"].set_index(["case_id", "region"])
    assert {*found.index} == {*cases.index, *(("unlabelled", region) for region in ("WT", "TC", "ET"))}
    assert found.entropy_bits.notna().all()
    np.testing.assert_allclose(found.entropy_bits[cases.index], cases.entropy_bits)
    assert {*found.xs("WT", level="region")["rank"]} == {1, 2, 3, 4, 5}
    assert found.loc["unlabelled"].score.isna().all()
    curves = pd.read_parquet(metrics / "uncertainty_curves.parquet").set_index(["case_id", "region", "threshold"])
    for case_id, region in cases.index:
        last = curves.loc[(case_id, region, 100.0)]
        assert last.dice == pytest.approx(cases.loc[(case_id, region)].dice)  # nothing is set aside
        assert (last.ftp, last.ftn) == (0, 0)


def test_scores_are_those_of_the_written_masks(predicted: Path, cases: Path) -> None:
    scores = tables(predicted)["cases"].set_index(["case_id", "region"])
    for number in range(4):
        case_id = f"case_{number}"
        reference = np.asarray(nib.load(file_path(str(cases / case_id), case_id, "seg")).dataobj)
        mask = np.asarray(nib.load(predicted / "nifti" / f"{case_id}.nii.gz").dataobj)
        for region, codes in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items():
            a, b = np.isin(reference, codes), np.isin(mask, codes)
            row = scores.loc[(case_id, region)]
            assert row.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
            assert row.n_reference_voxels == a.sum()
            assert row.specificity == pytest.approx((~a & ~b).sum() / (~a).sum())


def test_slice_scores_follow_the_slices_of_the_source_file(predicted: Path, cases: Path) -> None:
    slices = tables(predicted)["slices"]
    whole = slices[(slices.case_id == "case_2") & (slices.region == "WT")].set_index("slice_index")
    reference = np.asarray(nib.load(file_path(str(cases / "case_2"), "case_2", "seg")).dataobj)
    for index, row in whole.iterrows():
        assert row.n_reference_voxels == (reference[:, :, index] > 0).sum()


def test_case_without_segmentation_has_a_mask_and_no_scores(predicted: Path) -> None:
    assert (predicted / "masks" / "unlabelled.parquet").exists()
    for table in tables(predicted).values():
        assert "case_id" not in table or "unlabelled" not in set(table.case_id)


def test_interrupted_run_does_the_missing_case_and_ends_with_the_same_tables(
    predicted: Path, bundle: Path, cases: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(predicted, out)
    for name in ("parts/case_2.json", "masks/case_2.parquet"):
        os.remove(out / name)
    shutil.rmtree(out / "metrics")
    kept = {path: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    run(bundle, cases, out, nifti=True, workers=2, batch_size=16)  # the last digits of entropies follow both
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for name, table in tables(predicted).items():
        pd.testing.assert_frame_equal(tables(out)[name], table)
    whole, again = (storage.read_table(str(x / "masks" / "case_2.parquet"), MASK) for x in (predicted, out))
    assert again.equals(whole)


def test_replaced_scan_is_predicted_again_and_touched_ones_are_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(4):
        uncompress(write_case(str(data), f"case_{number}", seed=number))
    run(bundle, data, out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (out / "masks").iterdir()}
    scores = tables(out)["cases"].set_index(["case_id", "region"])
    uncompress(write_case(str(data), "case_1", seed=11))  # of the same size
    for touched in (data / "case_2").iterdir():
        touched.touch()
    capsys.readouterr()
    run(bundle, data, out)
    said = capsys.readouterr().out
    assert "reading the files of 2 cases" in said
    assert "made from other files than these, predicted again: case_1\n" in said
    assert "3 done before" in said
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (out / "masks").iterdir()}
    assert {path.stem for path in after if after[path] != before[path]} == {"case_1"}
    again = tables(out)["cases"].set_index(["case_id", "region"])
    assert {case_id for case_id, _ in again.index[(again.n_predicted_voxels != scores.n_predicted_voxels)]} == {
        "case_1"
    }
    shutil.rmtree(data / "case_0")
    run(bundle, data, out)
    said = capsys.readouterr().out
    assert "reading" not in said
    assert f"not in {data}, left out of the tables, though their masks stay in {out}: case_0\n" in said
    assert set(tables(out)["cases"].case_id) == {"case_1", "case_2", "case_3"}


def test_no_mask_stays_of_a_scan_that_was_replaced_by_a_damaged_one(
    bundle: Path, cases: Path, predicted: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(cases, data)
    shutil.copytree(predicted, out)
    path = data / "case_1" / "case_1_flair.nii.gz"
    path.write_bytes(bytes(path.stat().st_size))
    assert [reject.case_id for reject in run(bundle, data, out, nifti=True).rejects] == ["case_1"]
    assert {path.stem for path in (out / "masks").iterdir()} == {"case_0", "case_2", "case_3", "unlabelled"}
    assert len(list((out / "nifti").glob("*.nii.gz"))) == 4


def test_one_worker_and_other_batch_sizes_give_the_same_masks(with_one_worker: Path, predicted: Path) -> None:
    assert_same_masks(with_one_worker, predicted)


def test_predicting_cases_of_the_training_is_said_aloud(
    bundle: Path, predicted: Path, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(bundle, cases, predicted, nifti=True)
    said = capsys.readouterr().out
    assert "WARNING: the model was trained or chosen on the patients of 1 of these cases (case_0)" in said
    assert "voxel hashes" not in said


@pytest.mark.parametrize(("voxel_hash", "seen"), [("v2:0123", True), ("0123", False)])
def test_training_case_under_another_name_is_known_by_its_hash_unless_the_hash_is_of_an_earlier_version(
    capsys: pytest.CaptureFixture[str], voxel_hash: str, seen: bool
) -> None:
    source = PreparedCase(path="", voxel_hash=voxel_hash)
    item = Item(case_id="other", patient_id="other", split=None, source=source, sources=(), coding="")
    warn_of_training_cases([item], {"case": {"patient_id": "patient", "voxel_hash": voxel_hash}})
    said = capsys.readouterr().out
    assert ("the patients of 1 of these cases (other)" in said) == seen
    assert ("voxel hashes of an earlier version" in said) == (not seen)
    warn_of_training_cases([item], {"other": {"patient_id": "patient", "voxel_hash": "0"}})
    assert "the patients of 1 of these cases (other)" in capsys.readouterr().out


def test_bad_case_is_rejected_and_the_good_ones_are_scored(bundle: Path, cases: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(cases, data)
    os.remove(file_path(str(data / "case_1"), "case_1", "t1ce"))
    path = Path(file_path(str(data / "case_2"), "case_2", "flair"))
    path.write_bytes(path.read_bytes()[:500])
    scores = run(bundle, data, tmp_path / "out")
    rejects = pd.read_parquet(tmp_path / "out" / "rejects.parquet").set_index("case_id").reason
    assert list(rejects.index) == ["case_1", "case_2"]
    assert "t1ce" in rejects["case_1"]
    assert set(tables(tmp_path / "out")["cases"].case_id) == {"case_0", "case_3"}
    assert "rejected case_1" in scores.summary()
    with pytest.raises(BratsError, match="--strict"):
        run(bundle, data, tmp_path / "out", strict=True)


def test_model_refuses_a_dataset_without_its_modality_by_name(bundle: Path, cases: Path, tmp_path: Path) -> None:
    prepare(PrepareConfig(data=str(cases), out=str(tmp_path / "t1"), modalities=("t1", "flair")))
    with pytest.raises(BratsError, match="no t1ce; the case has t1, flair"):
        run(bundle, tmp_path / "t1", tmp_path / "out")


def test_other_weights_in_the_same_folder_are_refused(predicted: Path, cases: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=2)
    with pytest.raises(ConfigError, match=r"holds a different run \(weights "):
        run(other, cases, predicted)


def test_bundle_with_a_missing_tensor_is_refused_by_its_name(bundle: Path, cases: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["segmentation_head.0.weight"]
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(BundleError, match=r"the tensor segmentation_head.0.weight is missing"):
        run(broken, cases, tmp_path / "out")
    assert not (tmp_path / "out" / "masks").exists()


def test_split_needs_the_run_that_made_the_model(bundle: Path, cases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--split: test is known only for a run"):
        run(bundle, cases, tmp_path / "out", split="test")


def test_split_of_the_run_chooses_the_cases(bundle: Path, cases: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "run" / "model")
    split = pa.table({"case_id": ["case_0", "case_1", "case_3"], "split": ["train", "test", "test"]})
    storage.write_table(str(tmp_path / "run" / "split.parquet"), SPLIT, split)
    run(tmp_path / "run", cases, tmp_path / "out", split="test")
    scores = tables(tmp_path / "out")["cases"]
    assert set(scores.case_id) == {"case_1", "case_3"}
    assert set(scores.split) == {"test"}


def test_predictors_of_lost_machines_fit_on_the_smallest_beside_the_tasks_that_feed_them() -> None:
    machines = [Machine(cpus=0), Machine(cpus=2), Machine(cpus=8)]
    placement = Placement(workers=5, use_gpu=False, cpus=1, threads=1)
    assert 5 * predictor_cpus(placement, machines) == 1
    alone = Placement(workers=1, use_gpu=False, cpus=1, threads=1)
    assert predictor_cpus(alone, machines) == 1
    assert predictor_cpus(Placement(workers=5, use_gpu=True, cpus=1, threads=0), machines) == 1


@pytest.mark.real
def test_real_reference_scored_against_itself_is_perfect(real_data_dir: str) -> None:
    from brats.data.cases import find_cases
    from brats.data.items import Item
    from brats.data.preprocess import read_case
    from brats.pipeline.predict import score_case

    found = find_cases(real_data_dir)
    assert len(found.cases) == 12
    for files in found.cases:
        case = read_case(files, ("flair",))
        assert case.labels is not None
        item = Item(case_id=files.case_id, patient_id="p", split=None, source=files, sources=(), coding="brats2018")
        for row in score_case(item, case, case.labels).cases:
            assert (row["dice"], row["iou"], row["hd95_mm"]) == (1, 1, 0), (files.case_id, row)
            assert row["accuracy"] == 1


@pytest.mark.real
def test_exported_real_reference_overlays_its_source(real_data_dir: str, tmp_path: Path) -> None:
    from brats.data.cases import find_cases
    from brats.data.items import Item
    from brats.data.preprocess import read_case
    from brats.pipeline.predict import write_case as write_prediction

    for files in find_cases(real_data_dir).cases:
        case = read_case(files, ("flair", "t1"))
        assert case.labels is not None
        assert files.segmentation is not None
        item = Item(case_id=files.case_id, patient_id="p", split=None, source=files, sources=(), coding="brats2018")
        write_prediction(str(tmp_path), item, case, case.labels, nifti=True)
        source = nib.load(files.segmentation.path)
        written = nib.load(tmp_path / "nifti" / f"{files.case_id}.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(source.dataobj))
        np.testing.assert_array_equal(written.affine, source.affine)
        for name in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
            np.testing.assert_array_equal(written.header[name], nib.load(files.images["flair"].path).header[name])


def test_prepared_cases_keep_their_patient_in_the_scores_and_other_visits_of_a_training_patient_are_said_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    card = storage.read_json(str(bundle / "model.json"))
    card["trained_on"] = {"BraTS-GLI-00001-000": {"patient_id": "BraTS-GLI-00001", "voxel_hash": "0"}}
    storage.write_json(str(bundle / "model.json"), card)
    for visit in ("001", "002"):
        write_case(str(tmp_path / "data"), f"BraTS-GLI-00001-{visit}", seed=int(visit), edition=2023)
    prepare(PrepareConfig(data=str(tmp_path / "data"), out=str(tmp_path / "prepared")))
    run(bundle, tmp_path / "prepared", tmp_path / "out")
    assert set(tables(tmp_path / "out")["cases"].patient_id) == {"BraTS-GLI-00001"}
    assert len(read_case_table(str(tmp_path / "prepared"))) == 2
    assert "on the patients of 2 of these cases (BraTS-GLI-00001-001, ...)" in capsys.readouterr().out


def test_files_asked_for_later_are_written_for_the_cases_that_are_done(
    bundle: Path, cases: Path, with_one_worker: Path, tmp_path: Path
) -> None:
    assert not (with_one_worker / "nifti").exists()
    assert not (with_one_worker / "probabilities").exists()
    shutil.copytree(with_one_worker, tmp_path / "out")
    run(bundle, cases, tmp_path / "out", nifti=True, probabilities=True)
    assert len(list((tmp_path / "out" / "nifti").glob("*.nii.gz"))) == 5
    assert len(list((tmp_path / "out" / "probabilities").iterdir())) == 5


def test_other_rules_or_flips_in_the_same_folder_are_refused(
    predicted: Path, bundle: Path, cases: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    shutil.copytree(bundle, tuned)
    card = storage.read_json(str(tuned / "model.json"))
    card["decoding"] |= {"smallest_et_mm3": 73.0, "n_tuned_on": 12}
    storage.write_json(str(tuned / "model.json"), card)
    with pytest.raises(ConfigError, match=r"decoding None there, 'thresholds .* ET below 73 mm3"):
        run(tuned, cases, predicted)
    with pytest.raises(ConfigError, match="flips False there, True here"):
        run(bundle, cases, predicted, flips=True)


@pytest.fixture(scope="module")
def of_another_case(bundle: Path, predicted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with free text in its headers, predicted into a folder that has the results of others."""
    root = tmp_path_factory.mktemp("of_another_case")
    folder = write_case(str(root / "data"), "other", seed=5)
    image = nib.load(file_path(folder, "other", "flair"))
    image.header["descrip"] = b"Jane Doe, born 1970"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), image.get_filename())
    shutil.copytree(predicted, root / "out")
    run(bundle, root / "data", root / "out", nifti=True)
    return root / "out"


def test_tables_are_of_the_cases_of_this_call(of_another_case: Path) -> None:
    assert set(tables(of_another_case)["cases"].case_id) == {"other"}


def test_no_free_text_of_the_source_reaches_the_nifti(of_another_case: Path) -> None:
    written = nib.load(of_another_case / "nifti" / "other.nii.gz").header
    assert written["descrip"].item() == b""
    everything = b"".join(path.read_bytes() for path in of_another_case.rglob("*") if path.is_file())
    assert b"Jane" not in everything


def test_cases_that_all_lack_the_model_s_modality_are_refused_by_its_name(bundle: Path, tmp_path: Path) -> None:
    write_case(str(tmp_path / "cases"), "case_0", modalities=("t1", "t2"))
    with pytest.raises(BratsError, match=r"no usable case.*flair"):
        run(bundle, tmp_path / "cases", tmp_path / "out")


def test_rerun_of_a_prepared_dataset_does_what_was_unreadable_before_and_what_was_prepared_anew(
    bundle: Path, cases: Path, predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, prepared, out = tmp_path / "data", tmp_path / "prepared", tmp_path / "out"
    shutil.copytree(cases, data)
    uncompress(str(data / "case_2"))
    prepare(PrepareConfig(data=str(data), out=str(prepared)))
    unread = prepared / "slices" / "case_1.parquet"
    content = unread.read_bytes()
    unread.unlink()
    (reject,) = run(bundle, prepared, out).rejects
    assert (reject.case_id, reject.path, reject.stage, reject.transient) == ("case_1", str(unread), "read", True)
    assert len(list((out / "parts").iterdir())) == 5
    unread.write_bytes(content)
    capsys.readouterr()
    assert run(bundle, prepared, out).rejects == []
    assert "5 cases" in (said := capsys.readouterr().out)
    assert "4 done before" in said
    assert_same_masks(out, predicted)  # of the raw cases

    prepare(PrepareConfig(data=str(data), out=str(prepared)))
    run(bundle, prepared, out)
    assert f"5 cases of {prepared}; 5 done before" in capsys.readouterr().out
    uncompress(write_case(str(data), "case_2", seed=11))
    prepare(PrepareConfig(data=str(data), out=str(prepared)))
    run(bundle, prepared, out)
    assert "made from other files than these, predicted again: case_2\n" in capsys.readouterr().out


def test_part_that_cannot_be_written_fails_the_job_after_the_other_cases(
    bundle: Path, cases: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "out" / "masks" / "case_2.parquet"
    blocked.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"case_2\.parquet"):
        run(bundle, cases, tmp_path / "out")
    written = {path.stem for path in (tmp_path / "out" / "parts").iterdir()}
    assert written == {"case_0", "case_1", "case_3", "unlabelled"}


def test_tables_of_an_earlier_version_are_completed_from_the_masks_and_compared_with_another_prediction(
    predicted: Path, with_one_worker: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(predicted, out)
    forget(out)
    assert tables(out)["cases"][list(ADDED)].isna().all(axis=None)
    results = evaluate(check_evaluation(EvaluateConfig(predictions=str(out))))
    assert (results.n_cases, results.rejects) == (5, [])
    for path in (predicted / "metrics").iterdir():
        found = pd.read_parquet(out / "metrics" / path.name)
        pd.testing.assert_frame_equal(found, pd.read_parquet(path), check_exact=True)
    assert_same_masks(out, predicted)
    compared = against(str(out), str(with_one_worker))
    assert {(row["n_cases"], row["losses"], row["better"]) for row in compared.table.to_pylist()} == {
        (4, 0, "equal")
    }
    assert "order    the same by every convention: the two are equal" in compared.summary()

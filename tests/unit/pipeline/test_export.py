"""Exports: masks as a submission, with each case that is missing named, and the files of a model."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats.config import ExportConfig
from brats.data.items import find_items, read_source
from brats.data.layouts import BRATS_SHAPE
from brats.data.masks import write_probabilities
from brats.data.rejects import Reject
from brats.errors import BratsError, BundleError, ConfigError
from brats.model.bundle import bundle_dir, read_card
from brats.model.ensemble import save_ensemble
from brats.pipeline import export as exports
from brats.pipeline.export import export, write_card
from brats.pipeline.predict import write_case as write_prediction
from brats.score.parts import Part, write_part
from tests.support.bundles import save_undecided_bundle
from tests.support.synthetic import save, write_case

READY, GRID, GONE, BAD = (f"BraTS-GLI-0000{number}-000" for number in range(4))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """A case that can be submitted, one on another grid, one without NIfTI mask and a rejected one."""
    out = tmp_path / "test"
    (out / "nifti").mkdir(parents=True)
    for case_id, shape in ((READY, BRATS_SHAPE), (GRID, (4, 5, 6))):
        save(np.ones(shape, np.uint8), str(out / "nifti" / f"{case_id}.nii.gz"))
    for case_id in (READY, GRID, GONE):
        write_part(str(out), Part(case_id=case_id, coding="brats2023"))
    write_part(str(out), Part(case_id=BAD, reject=Reject(case_id=BAD, path="t1.nii", stage="read", reason="torn")))
    return out


def submit(predictions: Path, **options: Any) -> tuple[Path, list[str]]:
    """The archive, and the lines about it."""
    archive = predictions.parent / "out.zip"
    return archive, export(ExportConfig(predictions=str(predictions), out=str(archive), **options))


def test_masks_are_submitted_and_every_other_case_is_named_with_its_reason(predictions: Path) -> None:
    archive, lines = submit(predictions)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{READY}.nii.gz"]
    assert lines[0] == f"{archive}  1 masks"
    assert [line.split(":")[0] for line in lines[1:]] == [f"missing  {case_id}" for case_id in (GRID, GONE, BAD)]
    assert "grid 4 x 5 x 6" in lines[1]
    assert "--nifti" in lines[2]
    assert lines[3].endswith("t1.nii: torn")


def test_cases_of_the_challenge_that_were_not_predicted_are_named(predictions: Path, tmp_path: Path) -> None:
    for case_id in (READY, "BraTS-GLI-00009-000"):
        write_case(str(tmp_path / "cases"), case_id, modalities=("t1",), shape=(8, 8, 8), edition=2023)
    _, lines = submit(predictions, data=str(tmp_path / "cases"))
    assert [line for line in lines if "is not among the predictions" in line] == [
        "missing  BraTS-GLI-00009-000: it is not among the predictions; predict all cases of --data into one folder"
    ]


def test_strict_fails_after_the_archive_is_written(predictions: Path) -> None:
    with pytest.raises(BratsError, match=r"^3 cases are missing from .*out\.zip \(--strict\); the first: "):
        submit(predictions, strict=True)
    assert (predictions.parent / "out.zip").exists()


def test_what_cannot_be_submitted_at_all_is_one_line(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--predictions: .* has no predicted cases; give an --out of predict\.py$"
    ):
        submit(tmp_path)
    (predictions / "nifti" / f"{READY}.nii.gz").unlink()
    with pytest.raises(BratsError, match=rf"^{predictions}: no mask can be submitted; the first of 4: {READY}: "):
        submit(predictions)
    (predictions / "nifti" / f"{GRID}.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"has no NIfTI masks; run predict\.py again with --nifti"):
        submit(predictions)


def test_one_patient_of_two_challenges_is_refused(predictions: Path) -> None:
    other = READY.replace("GLI", "SSA")
    save(np.ones(BRATS_SHAPE, np.uint8), str(predictions / "nifti" / f"{other}.nii.gz"))
    write_part(str(predictions), Part(case_id=other, coding="brats2023"))
    with pytest.raises(ConfigError, match=f"{READY}, {other} have equal patients and visits"):
        submit(predictions)


def write_levels(predictions: Path, case_id: str, shape: tuple[int, ...] = BRATS_SHAPE) -> None:
    levels = np.zeros(shape, np.uint8)
    levels[1, 2, 3] = 255
    write_probabilities(str(predictions), case_id, {"WT": levels, "ET": levels // 2})


def test_probabilities_lie_in_the_archive_below_the_masks_that_are_submitted(predictions: Path) -> None:
    for case_id, shape in ((READY, BRATS_SHAPE), (GRID, (4, 5, 6))):
        write_levels(predictions, case_id, shape)
    archive, lines = submit(predictions, probabilities=True)
    names = [f"probabilities/{READY}_{region}.nii.gz" for region in ("wt", "et")]
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{READY}.nii.gz", *names]
        content = file.read(names[0])
    assert len(lines) == 4  # three cases have no mask
    folder = predictions.parent / "maps"
    export(ExportConfig(predictions=str(predictions), out=str(folder), probabilities=True))
    assert (folder / f"{READY}_wt.nii.gz").read_bytes() == content


def test_probabilities_lie_on_the_mask_of_their_case(tmp_path: Path) -> None:
    write_case(str(tmp_path / "cases"), "patient_7", modalities=("t1",))
    (item,) = find_items(str(tmp_path / "cases"), "", ("t1",), "all").items
    case = read_source(item.source, ("t1",))
    assert case.labels is not None
    out, folder = str(tmp_path / "out"), tmp_path / "maps"
    write_prediction(out, item, case, case.labels, nifti=True)
    levels = np.where(case.labels > 0, 250, 5).astype(np.uint8)
    write_probabilities(out, case.case_id, {"WT": case.on_source_grid(levels)})
    export(ExportConfig(predictions=out, out=str(folder), probabilities=True))
    mask, found = (
        nib.load(tmp_path / "out" / "nifti" / "patient_7.nii.gz"),
        nib.load(folder / "patient_7_wt.nii.gz"),
    )
    np.testing.assert_array_equal(np.asarray(found.dataobj) > 0.5, np.asarray(mask.dataobj) > 0)
    np.testing.assert_array_equal(found.affine, mask.affine)


def test_a_folder_has_the_probabilities_of_any_case_and_the_others_are_named(predictions: Path) -> None:
    for case_id, shape in ((READY, BRATS_SHAPE), (GRID, (4, 5, 6))):
        write_levels(predictions, case_id, shape)
    folder = predictions.parent / "maps"
    lines = export(ExportConfig(predictions=str(predictions), out=str(folder), probabilities=True))
    assert lines[0] == f"{folder}  4 files of 2 cases"
    assert lines[1].startswith(f"missing  {GONE}: it has no probabilities; run predict.py again with --prob")
    assert lines[2:] == [f"missing  {BAD}: t1.nii: torn"]
    assert len(list(folder.iterdir())) == 4


def test_a_mask_without_probabilities_is_submitted_and_named(predictions: Path) -> None:
    write_levels(predictions, GRID, (4, 5, 6))
    archive, lines = submit(predictions, probabilities=True)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{READY}.nii.gz"]
    assert lines[-1].startswith(f"missing  {READY}: it has no probabilities; ")


def test_predictions_without_probabilities_are_one_line_that_names_the_option(predictions: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"^--predictions: .* has no probabilities; run predict\.py again with --probabilities and the same "
        r"--out, which adds them$",
    ):
        submit(predictions, probabilities=True)
    assert not (predictions.parent / "out.zip").exists()
    write_levels(predictions, GONE)
    folder = predictions.parent / "maps"
    with pytest.raises(BratsError, match=f"no probabilities to write; the first of 4: {READY}: it has no prob"):
        export(ExportConfig(predictions=str(predictions), out=str(folder), probabilities=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "o"}, "give either --model or --predictions"),
        ({"model": "m", "predictions": "p", "out": "o"}, "give either --model or --predictions"),
        ({"model": "m", "data": "d", "out": "o"}, "^--data: names the cases of a submission"),
        (
            {"predictions": "p", "out": "folder"},
            r"^--out: .*folder is to be the archive .* end with \.zip, or add ",
        ),
        ({"model": "m", "probabilities": True, "out": "o"}, "^--probabilities: .* give it with --predictions$"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**options)  # type: ignore[arg-type]


def test_the_card_alone_needs_no_graph(tmp_path: Path) -> None:
    bundle, out = save_undecided_bundle(tmp_path / "bundle"), tmp_path / "out"
    config = ExportConfig(model=str(bundle), out=str(out), formats=("card",))
    assert export(config) == [f"{out}/README.md"]
    assert (out / "README.md").read_text().startswith("# Model card\n")
    with pytest.raises(BundleError, match="no model here"):
        export(dataclasses.replace(config, model=str(tmp_path / "nothing")))


def test_each_network_of_an_ensemble_has_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = {name: str(save_undecided_bundle(tmp_path / name)) for name in ("a", "b")}
    save_ensemble(bundle_dir(str(tmp_path / "run")), bundles)
    given: list[tuple[str, str]] = []

    def export_graph(_: ExportConfig, bundle: str, out: str) -> list[str]:
        given.append((bundle, out))
        return []

    monkeypatch.setattr(exports, "_export_graph", export_graph)
    export(ExportConfig(model=str(tmp_path / "run"), out=str(tmp_path / "out"), formats=("torch",)))
    assert given == [
        (f"{tmp_path}/run/model/member_{number}", f"{tmp_path}/out/member_{number}") for number in (0, 1)
    ]


def test_the_card_of_a_run_is_written_once_and_changes_nothing_of_its_bundle(tmp_path: Path) -> None:
    folder = bundle_dir(str(tmp_path))
    save_undecided_bundle(Path(folder))
    before = read_card(folder)
    write_card(str(tmp_path))
    path = Path(folder) / "README.md"
    written = path.stat().st_mtime_ns
    write_card(str(tmp_path))
    assert path.stat().st_mtime_ns == written
    assert read_card(folder) == before
    path.write_text("of an earlier best epoch")
    write_card(str(tmp_path))
    assert path.read_text().startswith("# Model card\n")

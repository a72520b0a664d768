"""Preparing a dataset on a real embedded Ray, good cases and bad ones together."""

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats.config import PrepareConfig
from brats.data.codings import CODINGS
from brats.data.dataset import read_case_table, slices_path
from brats.data.slices import SliceFile
from brats.errors import BratsError, ConfigError, StorageError
from brats.pipeline.prepare import Prepared, mark_unfinished, prepare
from tests.support.synthetic import AFFINE, file_path, save, uncompress, write_case, write_cases

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def modified_times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def run(data: Path, out: Path, **options: object) -> Prepared:
    return prepare(PrepareConfig(data=str(data), out=str(out), **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine labelled patients, one of them twice under another name, and one case without segmentation."""
    root = tmp_path_factory.mktemp("cases")
    for number in range(9):
        write_case(str(root), f"BraTS20_Training_{number:03d}", seed=number, with_et=number % 3 > 0)
    write_case(str(root), "Brats18_Other_Name_1", seed=3, with_et=False)
    write_case(str(root), "BraTS20_Validation_001", seed=99, labelled=False)
    return root


@pytest.fixture(scope="module")
def prepared(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    out = tmp_path_factory.mktemp("prepared")
    return out, run(cases, out)


def test_table_has_every_case_with_its_split(prepared: tuple[Path, Prepared]) -> None:
    table = pd.read_parquet(prepared[0] / "cases.parquet")
    assert len(table) == 11
    labelled = table[table.case_id != "BraTS20_Validation_001"]
    assert set(labelled.split) == {"train", "val", "test"}
    assert table.set_index("case_id").loc["BraTS20_Validation_001", ["split", "volume_ml_wt"]].isna().all()
    assert (
        labelled.volume_ml_wt == labelled[["n_voxels_ncr", "n_voxels_ed", "n_voxels_et"]].sum(axis=1) / 1000
    ).all()


def test_one_patient_under_two_names_is_in_one_split_and_said(prepared: tuple[Path, Prepared]) -> None:
    table = pd.read_parquet(prepared[0] / "cases.parquet").set_index("case_id")
    pair = table.loc[["Brats18_Other_Name_1", "BraTS20_Training_003"]]
    assert pair.patient_id.nunique() == 1
    assert pair.split.nunique() == 1
    assert "same patient: BraTS20_Training_003, Brats18_Other_Name_1" in prepared[1].summary()


def test_second_run_writes_nothing(cases: Path, prepared: tuple[Path, Prepared]) -> None:
    before = modified_times(prepared[0])
    run(cases, prepared[0])
    after = modified_times(prepared[0])
    config = str(prepared[0] / "config.json")
    assert {path for path in after if after[path] != before.get(path)} <= {config}


def test_interrupted_run_finishes_what_is_missing(
    cases: Path, prepared: tuple[Path, Prepared], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(prepared[0], out)
    os.remove(out / "cases.parquet")
    os.remove(out / "slices" / "BraTS20_Training_004.parquet")
    kept = modified_times(out / "slices")
    run(cases, out)
    assert pd.read_parquet(out / "cases.parquet").equals(pd.read_parquet(prepared[0] / "cases.parquet"))
    assert {path: time for path, time in modified_times(out / "slices").items() if path in kept} == kept


def test_cases_added_later_move_no_patient(cases: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(cases, data)
    before = {row["case_id"]: row["split"] for row in run(data, out).cases}
    for number in range(20, 26):
        write_case(str(data), f"BraTS20_Training_{number:03d}", seed=number)
    after = {row["case_id"]: row["split"] for row in run(data, out).cases}
    assert {case_id: after[case_id] for case_id in before} == before
    assert len(after) == len(before) + 6


def test_a_case_whose_files_changed_is_prepared_again_in_its_old_split(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(8):
        write_case(str(data), f"case_{number}", seed=number)
    before = {row["case_id"]: row["split"] for row in run(data, out).cases}
    folder = write_case(str(data), "case_1", seed=77, radius=3)
    after = {row["case_id"]: row for row in run(data, out).cases}
    source = np.asarray(nib.load(file_path(folder, "case_1", "seg")).dataobj)
    assert after["case_1"]["n_voxels_et"] == (source == 4).sum()
    assert {case_id: row["split"] for case_id, row in after.items()} == before


def test_corrected_file_of_the_same_size_is_prepared_again_and_touched_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(4):
        uncompress(write_case(str(data), f"case_{number}", seed=number))
    before = {row["case_id"]: row for row in run(data, out).cases}
    written = modified_times(out / "slices")
    path = data / "case_1" / "case_1_seg.nii"
    size = path.stat().st_size
    labels = np.asarray(nib.load(path).dataobj)
    save(np.array([0, 2, 1, 0, 4], np.uint8)[labels], str(path))  # NCR and ED were swapped
    assert path.stat().st_size == size
    for touched in (data / "case_2").iterdir():
        touched.touch()
    capsys.readouterr()
    after = {row["case_id"]: row for row in run(data, out).cases}
    assert "reading the files of 2 cases" in (said := capsys.readouterr().out)
    assert "4 cases below" in said
    assert "3 done before, 1 changed since" in said
    assert after["case_1"]["n_voxels_ed"] == before["case_1"]["n_voxels_ncr"] > 0
    assert {row["case_id"]: row["split"] for row in after.values()} == {
        row["case_id"]: row["split"] for row in before.values()
    }
    changed = {Path(name).stem for name, time in modified_times(out / "slices").items() if time != written[name]}
    assert changed == {"case_1"}
    run(data, out)
    assert "4 done before\n" in (said := capsys.readouterr().out)
    assert "reading the files of" not in said


def test_dataset_that_was_moved_is_known_by_its_content_and_a_namesake_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        uncompress(write_case(str(tmp_path / "data"), f"case_{number}", seed=number))
        uncompress(write_case(str(tmp_path / "namesakes"), f"case_{number}", seed=number + 10))
    run(tmp_path / "data", tmp_path / "out")
    written = modified_times(tmp_path / "out" / "slices")
    (tmp_path / "data").rename(tmp_path / "moved")
    capsys.readouterr()
    run(tmp_path / "moved", tmp_path / "out")
    assert "3 done before\n" in capsys.readouterr().out
    assert modified_times(tmp_path / "out" / "slices") == written
    run(tmp_path / "namesakes", tmp_path / "out")
    assert "0 done before, 3 changed since" in capsys.readouterr().out


def test_case_no_longer_there_leaves_the_dataset_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_cases(data, 4)
    before = {row["case_id"]: row["split"] for row in run(data, out).cases}
    shutil.rmtree(data / "case_02")
    after = {row["case_id"]: row["split"] for row in run(data, out).cases}
    assert f"no longer in {data}, removed from {out}: case_02\n" in capsys.readouterr().out
    assert after == {case_id: split for case_id, split in before.items() if case_id != "case_02"}
    assert {row["case_id"] for row in read_case_table(str(out))} == after.keys()
    assert {path.stem for path in (out / "slices").iterdir()} == after.keys()
    written = modified_times(out)
    write_cases(tmp_path / "mistyped", 1)
    with pytest.raises(
        ConfigError, match=r"lacks 2 of the 3 cases that .*out was made from \(case_01, case_03\); "
    ):
        run(tmp_path / "mistyped", out)
    assert {path for path, time in modified_times(out).items() if written[path] != time} <= {
        str(out / "config.json")
    }


def test_interruption_while_a_changed_case_is_prepared_again_is_not_taken_for_its_end(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_cases(data, 3)
    before = read_case_table(run(data, out).out)
    shutil.copytree(data / "case_01", tmp_path / "kept")
    write_case(str(data), "case_01", seed=77)
    table = (out / "cases.parquet").read_bytes()
    mark_unfinished(str(out), ["case_01"])
    unfinished = (out / "cases.parquet").read_bytes()
    (out / "cases.parquet").write_bytes(table)
    run(data, out)
    (out / "cases.parquet").write_bytes(unfinished)  # as if the job had ended just before the table
    shutil.rmtree(data / "case_01")
    shutil.copytree(tmp_path / "kept", data / "case_01")  # and the change were undone
    run(data, out)
    shared = [name for name in before[0] if name != "sources"]
    after = read_case_table(str(out))
    assert [{name: row[name] for name in shared} for row in after] == [
        {name: row[name] for name in shared} for row in before
    ]
    assert SliceFile(slices_path(str(out), "case_01")).description["tissues"]["ed"] == after[1]["n_voxels_ed"]


def test_patients_named_later_are_taken_in(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(3):
        write_case(str(data), f"BraTS20_Training_{number:03d}", seed=number)
    run(data, out)
    (data / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\n")
    grades = {row["case_id"]: row["grade"] for row in run(data, out).cases}
    assert grades["BraTS20_Training_001"] == "HGG"


def test_a_mended_case_is_taken_in_and_a_broken_one_put_out(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for number in range(3):
        write_case(str(data), f"case_{number}", seed=number)
    _truncated(write_case(str(data), "bad"))
    assert [reject.case_id for reject in run(data, out).rejects] == ["bad"]
    assert [reject.case_id for reject in run(data, out).rejects] == ["bad"]
    write_case(str(data), "bad")
    assert not run(data, out).rejects
    assert "bad" in {row["case_id"] for row in read_case_table(str(out))}
    _truncated(str(data / "bad"))
    assert [reject.case_id for reject in run(data, out).rejects] == ["bad"]
    assert "bad" not in {row["case_id"] for row in read_case_table(str(out))}


def test_paediatric_cases_are_prepared_once_their_coding_is_given(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_case(str(data), "BraTS-GLI-00005-000", edition=2023)
    folder = write_case(str(data), "BraTS-PED-00001-000", edition=2023)
    path = file_path(folder, "BraTS-PED-00001-000", "seg", 2023)
    labels = np.asarray(nib.load(path).dataobj)
    save(CODINGS["brats2024-ped"].encode(labels), path)
    (reject,) = run(data, out).rejects
    assert "--coding brats2024-ped (1 ET, 2 NET, 3 CC, 4 ED)" in reject.reason
    given = run(data, out, coding="brats2024-ped")
    assert given.rejects == []
    assert "coding brats2023 of 1 case, brats2024-ped of 1 case" in given.summary()
    row = {row["case_id"]: row for row in read_case_table(str(out))}["BraTS-PED-00001-000"]
    assert [row[f"n_voxels_{tissue}"] for tissue in ("ncr", "ed", "et")] == [(labels == k).sum() for k in (1, 2, 3)]
    assert row["coding"] == "brats2024-ped"
    with pytest.raises(ConfigError, match=r"^--coding: .* was prepared with --coding brats2024-ped"):
        run(data, out)


def test_files_of_no_case_are_named_and_parted_cases_are_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for case_id in ("case_0", "case_1"):
        folder = Path(write_case(str(data / "images"), case_id))
        (data / "labels").mkdir(exist_ok=True)
        (folder / f"{case_id}_seg.nii.gz").rename(data / "labels" / f"{case_id}_seg.nii.gz")
    shutil.copy(data / "labels" / "case_0_seg.nii.gz", data / "images" / "case_0_brain_segm.nii.gz")
    prepared = run(data, tmp_path / "out")
    assert [row["volume_ml_wt"] > 0 for row in prepared.cases] == [True, True]
    assert "prepare  1 NIfTI file belongs to no case: images/case_0_brain_segm.nii.gz\n" in capsys.readouterr().out


def test_other_configuration_in_the_same_folder_is_refused(cases: Path, prepared: tuple[Path, Prepared]) -> None:
    with pytest.raises(ConfigError, match=r"holds a different run \(seed 0 there, 1 here\)"):
        run(cases, prepared[0], seed=1)


def _missing_modality(folder: str) -> str:
    os.remove(file_path(folder, "bad", "t1ce"))
    return "t1ce"


def _truncated(folder: str) -> str:
    path = file_path(folder, "bad", "t2")
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])
    return "truncated"


def _not_nifti(folder: str) -> str:
    Path(file_path(folder, "bad", "flair")).write_bytes(b"these are notes, not an image" * 20)
    return "not a NIfTI file"


def _empty_file(folder: str) -> str:
    Path(file_path(folder, "bad", "flair")).write_bytes(b"")
    return "empty"


def _other_shape(folder: str) -> str:
    save(np.ones((40, 36, 15), np.int16), file_path(folder, "bad", "t1"))
    return "shape (40, 36, 15)"


def _other_affine(folder: str) -> str:
    image = nib.load(file_path(folder, "bad", "t1"))
    moved = AFFINE.copy()
    moved[2, 3] = 5
    save(np.asarray(image.dataobj), file_path(folder, "bad", "t1"), moved)
    return "affine"


def _nan_voxels(folder: str) -> str:
    image = np.asarray(nib.load(file_path(folder, "bad", "t2")).dataobj).astype(np.float32)
    image[20, 18, 8] = np.nan
    save(image, file_path(folder, "bad", "t2"))
    return "1 NaN"


def _all_zero(folder: str) -> str:
    save(np.zeros((40, 36, 16), np.int16), file_path(folder, "bad", "t2"))
    return "every voxel is 0"


def _unknown_label(folder: str) -> str:
    labels = np.asarray(nib.load(file_path(folder, "bad", "seg")).dataobj).copy()
    labels[:2, 0, 0] = 7
    save(labels, file_path(folder, "bad", "seg"))
    return "unknown label 7 in 2 voxels"


def _four_axes(folder: str) -> str:
    save(np.ones((40, 36, 16, 2), np.int16), file_path(folder, "bad", "t1"))
    return "4-D"


def _terabytes_claimed(folder: str) -> str:
    path = file_path(folder, "bad", "t1")
    content = bytearray(gzip.decompress(Path(path).read_bytes()))
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    Path(path).write_bytes(gzip.compress(bytes(content)))
    return "30000 x 30000 x 30000"


def _two_files(folder: str) -> str:
    path = file_path(folder, "bad", "t1")
    Path(path.removesuffix(".gz")).write_bytes(gzip.decompress(Path(path).read_bytes()))
    return "2 files for t1"


def _folder_for_a_file(folder: str) -> str:
    path = file_path(folder, "bad", "t1")
    os.remove(path)
    os.makedirs(path)
    return "t1"


FAULTS: list[Callable[[str], str]] = [
    _missing_modality,
    _truncated,
    _not_nifti,
    _empty_file,
    _other_shape,
    _other_affine,
    _nan_voxels,
    _all_zero,
    _unknown_label,
    _four_axes,
    _terabytes_claimed,
    _two_files,
    _folder_for_a_file,
]


def test_every_bad_case_is_rejected_by_name_and_the_good_ones_finish(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    reasons = {}
    for fault in FAULTS:
        reasons[fault.__name__] = fault(write_case(str(data / fault.__name__), "bad", seed=1))
        # Each bad case under an id of its own.
        for path in sorted((data / fault.__name__).rglob("bad*"), reverse=True):
            path.rename(path.with_name(path.name.replace("bad", fault.__name__.strip("_"))))
    for number in range(4):
        write_case(str(data), f"good_{number}", seed=number)
    prepared = run(data, out)
    assert [row["case_id"] for row in prepared.cases] == [f"good_{number}" for number in range(4)]
    rejects = pd.read_parquet(out / "rejects.parquet").set_index("case_id")
    assert set(rejects.index) == {fault.__name__.strip("_") for fault in FAULTS}
    for fault in FAULTS:
        row = rejects.loc[fault.__name__.strip("_")]
        assert reasons[fault.__name__].lower() in f"{row.path} {row.reason}".lower(), (fault.__name__, row.reason)
        assert "\n" not in row.reason
        assert f"rejected {row.name}" in prepared.summary()
    assert sorted(os.listdir(out / "slices")) == [f"good_{number}.parquet" for number in range(4)]


def test_implausible_case_is_prepared_with_its_warning_in_table_and_summary(tmp_path: Path) -> None:
    """Beside one whose background is noise, which is not in its crop."""
    data, out, random = tmp_path / "data", tmp_path / "out", np.random.default_rng(0)
    for name, lowest, highest in (("clean", 0.0, 0.0), ("noisy", -1e-6, 1e-6), ("filled", 5, 60)):
        path = file_path(write_case(str(data), name, modalities=("flair",)), name, "flair")
        voxels = np.asarray(nib.Nifti1Image.from_filename(path).dataobj, np.float32)
        air = random.uniform(lowest, highest, voxels.shape)
        save(np.where(voxels == 0, air, voxels).astype(np.float32), path)
    prepared = run(data, out, modalities=("flair",))
    table = pd.read_parquet(out / "cases.parquet").set_index("case_id")
    warning = "filled_flair.nii.gz: 100% of the volume is brain, more than 70%; is what surrounds it removed?"
    assert {name: list(warnings) for name, warnings in table.warnings.items()} == {
        **{"clean": [], "noisy": []},
        "filled": [warning],
    }
    assert [line for line in prepared.summary().splitlines() if line.startswith("  warning")] == [
        f"  warning filled: {warning}"
    ]
    assert table.patient_id["clean"] == table.patient_id["noisy"]  # of one hash
    columns = ["first_slice", "n_slices", "height", "width", "voxel_hash"]
    assert table.loc["clean", columns].equals(table.loc["noisy", columns])


def test_strict_fails_after_the_good_cases_are_done(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    _missing_modality(write_case(str(data), "bad"))
    write_case(str(data), "good")
    with pytest.raises(BratsError, match=r"1 rejected case \(--strict\).*bad.*t1ce"):
        run(data, out, strict=True)
    assert [row["case_id"] for row in read_case_table(str(out))] == ["good"]


def test_no_usable_case_is_a_failure_that_names_the_first_reason(tmp_path: Path) -> None:
    _missing_modality(write_case(str(tmp_path / "data"), "bad"))
    with pytest.raises(BratsError, match=r"no usable case.*bad.*t1ce"):
        run(tmp_path / "data", tmp_path / "out")


def test_only_wanted_modalities_are_stored(cases: Path, tmp_path: Path) -> None:
    run(cases, tmp_path / "out", modalities=("t1",))
    file = SliceFile(slices_path(str(tmp_path / "out"), "BraTS20_Training_000"))
    assert list(file.read_case().images) == ["t1"]


def test_disk_that_is_too_small_is_refused_before_any_work(cases: Path, small_disk: Path) -> None:
    with pytest.raises(StorageError, match="free on its disk"):
        run(cases, small_disk / "out")
    assert not (small_disk / "out" / "slices").exists()


def test_disk_full_is_one_line_and_leaves_no_half_file(
    cases: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brats.pipeline.prepare.check_disk", lambda *_: None)  # others fill it later
    with pytest.raises(StorageError, match="no space left on the disk"):
        run(cases, small_disk / "out")
    whole = [SliceFile(str(path)).case_id for path in (small_disk / "out" / "slices").glob("*.parquet")]
    assert 0 < len(whole) < 11
    assert not list(small_disk.rglob(".partial-*"))


@pytest.mark.real
def test_real_duplicate_becomes_one_patient(real_data_dir: str, tmp_path: Path) -> None:
    source = Path(real_data_dir) / "BraTS2021_01426"
    data = tmp_path / "data"
    shutil.copytree(source, data / "BraTS2021_01426")
    older = data / "Brats17_2013_27_1"
    older.mkdir()
    for path in source.iterdir():
        shutil.copy(path, older / path.name.replace("BraTS2021_01426", "Brats17_2013_27_1"))
    prepared = run(data, tmp_path / "out")
    assert len({row["patient_id"] for row in prepared.cases}) == 1
    assert len({row["split"] for row in prepared.cases}) == 1

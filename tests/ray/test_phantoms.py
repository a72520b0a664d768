"""The phantom dataset on a real embedded Ray: whole cases are kept, the others made."""

from pathlib import Path

import pytest

from brats.data.cases import find_cases
from brats.data.phantom.case import case_id
from brats.pipeline import phantoms
from brats.pipeline.phantoms import FILES_PER_PHANTOM, make_phantoms

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("embedded_ray")]


def test_missing_phantoms_are_made_once_and_whole_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phantoms, "N_PHANTOMS", 2)
    root = str(tmp_path / "phantoms")
    whole, broken = (tmp_path / "phantoms" / case_id(index) for index in (1, 2))
    for folder, n_files in ((whole, FILES_PER_PHANTOM), (broken, FILES_PER_PHANTOM - 1)):
        folder.mkdir(parents=True)
        for number in range(n_files):
            (folder / f"{number}.nii.gz").write_bytes(b"kept")
    assert make_phantoms(root) == root
    assert f"no --data given: making 1 phantom cases in {root}" in capsys.readouterr().out
    assert {path.read_bytes() for path in whole.iterdir()} == {b"kept"}
    assert (tmp_path / "phantoms" / "name_mapping.csv").is_file()
    made = {files.case_id: files for files in find_cases(root).cases}[broken.name]
    assert made.segmentation is not None
    assert all(Path(file.path).stat().st_size > 10_000 for file in made.images.values())
    make_phantoms(root)
    assert capsys.readouterr().out == ""

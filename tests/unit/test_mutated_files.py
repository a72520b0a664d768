"""Damaged and foreign files of every kind that is read give a valid result or one line, and nothing else."""

import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import given
from torch import nn

from brats import storage
from brats.data.cases import FoundCases, find_cases
from brats.data.dataset import PREPARED_CASES, case_row, read_case_table
from brats.data.grid import Grid
from brats.data.hdf5 import read_hdf5_slice
from brats.data.mha import encode_mha, read_mha
from brats.data.nifti import Header, encode_nifti
from brats.data.slices import PREPARED_CASE, SliceFile, encode_case
from brats.errors import BratsError
from brats.model.bundle import CARD, WEIGHTS, ModelCard, load_bundle, read_card
from brats.saved_config import SavedConfig
from brats.score.parts import Part, part_path, read_parts, write_part
from brats.score.tables import CASE_METRICS, NOTEBOOK, SLICES, score_rows
from brats.score.uncertainty_tables import CURVES, UNCERTAINTY, uncertainty_rows, with_ranks
from brats.storage import FileInfo
from tests.support.bundles import MODEL_CARD
from tests.support.forms import DECATHLON
from tests.support.fuzzing import Choices, choices, mutations
from tests.support.hdf5_files import mutated_hdf5
from tests.support.mha_files import mutated_mha
from tests.support.mutated_documents import mutated_bytes, mutated_json, mutated_table, mutated_weights, outcome
from tests.support.nifti_files import difference, mutated_file
from tests.support.prepared import CONFIG, tiny_case
from tests.support.uncertainty import constant_uncertainty

Check = Callable[[Choices], str]
"""Reads one mutated file; says what went wrong, "" where all is well."""

ADDRESS_BYTES = 2**32
"""Beyond what the process has. Allocators reserve some of it ahead of use."""
MEMORY_BYTES = 2**29
"""Beyond the most that the process had: more than any of these small files justifies."""


@pytest.fixture(autouse=True)
def limited_memory() -> Iterator[None]:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before, most = resource.getrlimit(resource.RLIMIT_AS), _most_memory()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert _most_memory() < most + MEMORY_BYTES


def _most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def nifti_file(folder: Path) -> Check:
    return lambda choose: difference(mutated_file(choose), folder)


def mha_file(_: Path) -> Check:
    def check(choose: Choices) -> str:
        content = mutated_mha(choose)
        return outcome(lambda: _use_mha(*read_mha(FileInfo("x.mha", len(content)), content)), BratsError)

    return check


def _use_mha(raw: npt.NDArray[Any], header: Header) -> None:
    assert raw.size == header.n_voxels
    assert raw.dtype.isnative
    assert Grid.from_json(json.loads(json.dumps(Grid.of(header.shape, header.affine, header.geometry).to_json())))
    content = encode_mha(np.zeros(header.shape, np.uint8), header.geometry)
    _, own = read_mha(FileInfo("mask.mha", len(content)), content)
    assert (own.affine, own.geometry) == (header.affine, header.geometry)
    encode_nifti(np.zeros(header.shape, np.uint8), header.geometry)


def hdf5_file(_: Path) -> Check:
    def check(choose: Choices) -> str:
        content = mutated_hdf5(choose)
        return outcome(lambda: _use_slice(*read_hdf5_slice(FileInfo("x.h5", len(content)), content)), BratsError)

    return check


def _use_slice(image: npt.NDArray[Any], mask: npt.NDArray[np.uint8]) -> None:
    assert image.dtype.kind == "f"
    assert mask.dtype == np.uint8
    assert image.shape == (*mask.shape[:2], 4)
    assert mask.shape[2] == 3


def name_mapping(folder: Path) -> Check:
    header = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2020_subject_ID"
    rows = [f"{grade},NA,Brats18_{i},NA,BraTS20_Training_00{i}" for i, grade in enumerate(("HGG", "LGG", "HGG"))]
    for i in range(3):
        (folder / f"BraTS20_Training_00{i}_flair.nii").write_bytes(b"x")

    def check(choose: Choices) -> str:
        write(folder / "name_mapping.csv", mutated_table([header, *rows], choose))
        return outcome(lambda: find_cases(str(folder), ("flair",)), BratsError)

    return check


def decathlon(folder: Path) -> Check:
    files = {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}
    for path in files.values():
        (folder / path).parent.mkdir()
        (folder / path).write_bytes(b"x")

    def check(choose: Choices) -> str:
        document = {**DECATHLON, "training": [files], "test": ["./imagesTs/BRATS_002.nii.gz"]}
        write(folder / "dataset.json", mutated_json(document, choose))
        return outcome(lambda: _one_line_each(find_cases(str(folder))), BratsError)

    return check


def _one_line_each(found: FoundCases) -> None:
    assert {case.case_id for case in found.cases} <= {"BRATS_001"}
    lines = [*found.notes(), *map(str, found.rejects)]
    assert all(line.isprintable() for line in lines), lines


def model_card(folder: Path) -> Check:
    document = asdict(MODEL_CARD)

    def check(choose: Choices) -> str:
        write(folder / CARD, mutated_json(document, choose))
        return outcome(lambda: _valid_card(read_card(str(folder))), BratsError)

    return check


def _valid_card(card: ModelCard) -> None:
    assert all(0 < threshold < 1 for threshold in card.decoding.thresholds)
    assert f"{card.decoding}"
    assert all(isinstance(name, str) for name in card.inputs.modalities)
    assert card.inputs.padded_size([(3, 5)]) >= (3, 5)
    assert all(0 < channels <= 2**14 for channels in card.decoder_channels)
    assert all(case["patient_id"] + case["voxel_hash"] is not None for case in card.trained_on.values())
    assert f"{card.epoch:d} {card.val_dice:.2f} {card.encoder.lower()}"
    json.dumps(asdict(card))


def weights(folder: Path) -> Check:
    network = nn.Linear(2, 3)
    content = safetensors.torch.save(network.state_dict())
    write(folder / CARD, json.dumps(asdict(MODEL_CARD)).encode())
    unbuilt = mock.patch("brats.model.bundle.build_unet", return_value=network)

    def check(choose: Choices) -> str:
        write(folder / WEIGHTS, mutated_weights(content, choose))
        with unbuilt:
            return outcome(lambda: load_bundle(str(folder))[0](torch.zeros(1, 2)), BratsError)

    return check


def prepared_case(folder: Path) -> Check:
    """Bytes of the Parquet file changed."""
    content = bytes(encode_case(tiny_case())[0])

    def check(choose: Choices) -> str:
        write(folder / "case.parquet", mutated_bytes(content, choose))
        return outcome(lambda: _use_slices(str(folder / "case.parquet")), BratsError)

    return check


def prepared_description(folder: Path) -> Check:
    """The description in the footer changed."""
    content, description = encode_case(tiny_case())
    table = pq.read_table(pa.BufferReader(content))

    def check(choose: Choices) -> str:
        document = {"kind": PREPARED_CASE.name, "version": PREPARED_CASE.version, "case": description}
        changed = table.replace_schema_metadata({"brats": mutated_json(document, choose)})
        pq.write_table(changed, folder / "case.parquet", row_group_size=1)
        return outcome(lambda: _use_slices(str(folder / "case.parquet")), BratsError)

    return check


def _use_slices(path: str) -> None:
    file = SliceFile(path)
    file.read_slice(0, file.description["modalities"])
    case = file.read_case()
    for image in case.images.values():
        assert case.on_source_grid(image).shape == case.grid.shape
    PREPARED_CASES.table([case_row(file.description)])


def prepared_cases(folder: Path) -> Check:
    """Bytes of the table of prepared cases changed."""
    _, description = encode_case(tiny_case())
    storage.write_table(f"{folder}/cases.parquet", PREPARED_CASES, PREPARED_CASES.table([case_row(description)]))
    content = (folder / "cases.parquet").read_bytes()

    def check(choose: Choices) -> str:
        write(folder / "cases.parquet", mutated_bytes(content, choose))
        return outcome(lambda: read_case_table(str(folder)), BratsError)

    return check


def saved_config(folder: Path) -> Check:
    saved = SavedConfig.of("train", CONFIG)
    document = {"job": saved.job, "result": saved.result, "execution": saved.execution}

    def check(choose: Choices) -> str:
        write(folder / "config.json", mutated_json(document, choose))
        return outcome(lambda: saved.check(str(folder)), BratsError)

    return check


def part_file(folder: Path) -> Check:
    labels = tiny_case().labels
    assert labels is not None
    rows: dict[str, Any] = score_rows(
        case_id="case",
        patient_id="p",
        split="test",
        reference=labels[4:6],
        predicted=labels[5:7],
        spacing_shw_mm=(1, 1, 1),
        n_outside=0,
        first_slice=0,
        rules="gli",
    )
    rows |= uncertainty_rows("case", "p", {"WT": constant_uncertainty()})
    write_part(str(folder), Part(case_id="case", **rows))
    path = Path(part_path(str(folder), "case"))
    document = json.loads(path.read_bytes())

    def check(choose: Choices) -> str:
        write(path, mutated_json(document, choose))
        return outcome(lambda: _use_parts(read_parts(str(folder))), BratsError)

    return check


def _use_parts(parts: dict[str, Part]) -> None:
    for case_id, part in parts.items():
        assert case_id == part.case_id
        assert isinstance(part.is_complete, bool)
        for kind, rows in ((CASE_METRICS, part.cases), (SLICES, part.slices), (NOTEBOOK, part.notebook)):
            kind.table(rows)
        with_ranks(UNCERTAINTY.table(part.uncertainty))
        CURVES.table(part.uncertainty_curves)
        json.dumps(asdict(part))


def write(path: Path, content: bytes) -> None:
    """Write a file over what it holds, which is faster than emptying it first."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(content)
        file.truncate()


# How many mutations of each kind the fast and the slow test try.
KINDS: dict[str, tuple[Callable[[Path], Check], int, int]] = {
    "nifti": (nifti_file, 100, 3_000),
    "mha": (mha_file, 50, 3_000),
    "hdf5": (hdf5_file, 50, 3_000),
    "name mapping": (name_mapping, 20, 2_000),
    "dataset.json": (decathlon, 20, 2_000),
    "model card": (model_card, 30, 2_000),
    "weights": (weights, 20, 1_500),
    "prepared case": (prepared_case, 20, 1_500),
    "description of a prepared case": (prepared_description, 20, 1_000),
    "table of prepared cases": (prepared_cases, 10, 500),
    "config": (saved_config, 10, 1_000),
    "part": (part_file, 20, 2_000),
}


def run(check: Check, n: int) -> None:
    """Try so many mutations."""

    @mutations(n)
    @given(choices())
    def no_other_outcome(choose: Choices) -> None:
        assert check(choose) == ""

    no_other_outcome()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_gives_a_valid_result_or_one_line(kind: str, tmp_path: Path) -> None:
    prepare, n, _ = KINDS[kind]
    run(prepare(tmp_path), n)


@pytest.mark.slow
@pytest.mark.no_cover  # measured, they take 1.7 times as long
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_mutated_files_give_a_valid_result_or_one_line(kind: str, tmp_path: Path) -> None:
    prepare, _, n = KINDS[kind]
    run(prepare(tmp_path), n)

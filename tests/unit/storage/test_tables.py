"""Tables with their metadata: read back, open to pandas, and refused when of another program, kind or version."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brats import storage
from brats.errors import StorageError
from brats.storage import TableKind

KIND = TableKind(
    name="scores",
    schema=pa.schema([("case_id", pa.string()), ("n", pa.int16())]),
    conventions={"n": "a count"},
)
TABLE = KIND.table([{"case_id": "a", "n": 1}, {"n": 2}])


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.parquet")


def test_table_is_read_back(path: str) -> None:
    storage.write_table(path, KIND, TABLE)
    assert storage.read_table(path, KIND).equals(TABLE)


def test_column_that_a_row_lacks_is_null() -> None:
    assert TABLE.to_pylist() == [{"case_id": "a", "n": 1}, {"case_id": None, "n": 2}]


def test_metadata_names_kind_version_conventions_and_what_is_added(path: str) -> None:
    storage.write_table(path, KIND, TABLE, config={"seed": 0})
    metadata = storage.read_metadata(storage.read_table(path, KIND).schema, path, KIND)
    assert metadata == {"kind": "scores", "version": 1, "conventions": {"n": "a count"}, "config": {"seed": 0}}


def test_plain_pandas_reads_a_table(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    storage.write_table(path, KIND, TABLE)
    frame = pd.read_parquet(path)
    assert frame["case_id"].fillna("-").tolist() == ["a", "-"]
    assert frame["n"].tolist() == [1, 2]


def test_table_of_another_program_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StorageError, match=r"x\.parquet: not written by brats-ray"):
        storage.read_table(path, KIND)


def test_table_of_another_kind_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    storage.write_table(path, KIND, TABLE)
    with pytest.raises(StorageError, match=r"x\.parquet: a table of the kind 'scores', where 'other' is expected"):
        storage.read_table(path, dataclasses.replace(KIND, name="other"))


def test_table_of_another_version_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    storage.write_table(path, dataclasses.replace(KIND, version=2), TABLE)
    with pytest.raises(StorageError, match=r"x\.parquet: 'scores' of version 2, this program reads 1; make it"):
        storage.read_table(path, KIND)


def test_table_from_before_kinds_had_versions_is_read_as_their_first(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    old = TABLE.replace_schema_metadata({"brats": json.dumps({"schema_version": 1, "conventions": {}})})
    pq.write_table(old, path)
    assert storage.read_table(path, KIND).equals(TABLE)
    with pytest.raises(StorageError, match="version 1, this program reads 2"):
        storage.read_table(path, dataclasses.replace(KIND, version=2))


def test_truncated_table_names_its_file_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    storage.write_table(str(path), KIND, KIND.table([{"n": n} for n in range(1000)]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"x\.parquet: not a whole Parquet file [^\n]*; remove it") as caught:
        storage.read_table(str(path), KIND)
    assert "\n" not in str(caught.value)


def test_damaged_table_names_its_file_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    storage.write_table(str(path), KIND, KIND.table([{"n": n} for n in range(1000)]))
    content = bytearray(path.read_bytes())
    footer_size = int.from_bytes(content[-8:-4], "little")
    footer = len(content) - 8 - footer_size
    content[footer : footer + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"x\.parquet: ") as caught:
        storage.read_table(str(path), KIND)
    assert "\n" not in str(caught.value)


def test_a_column_of_another_type_is_damage(path: str) -> None:
    storage.write_table(path, KIND, TABLE.set_column(1, "n", pa.array(["1", "2"])))
    with pytest.raises(StorageError, match=r"x\.parquet: damaged, its column 'n' is not of int16; make it again"):
        storage.read_table(path, KIND)


def test_a_table_of_before_there_was_a_column_is_read(path: str) -> None:
    storage.write_table(path, KIND, TABLE.drop_columns(["n"]))
    assert storage.read_table(path, KIND).column_names == ["case_id"]

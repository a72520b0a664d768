"""Files and tables, on disk and in S3; all reading and writing of bytes goes through here."""

from brats.storage.files import (
    FileInfo,
    check_endpoint,
    check_roundtrip,
    exists,
    is_remote,
    join,
    list_files,
    open_ranged,
    read_bytes,
    read_json,
    remove,
    remove_unfinished,
    storage_errors,
    write_bytes,
    write_json,
)
from brats.storage.places import absolute
from brats.storage.tables import TableKind, read_metadata, read_table, with_metadata, write_table

__all__ = [
    "FileInfo",
    "TableKind",
    "absolute",
    "check_endpoint",
    "check_roundtrip",
    "exists",
    "is_remote",
    "join",
    "list_files",
    "open_ranged",
    "read_bytes",
    "read_json",
    "read_metadata",
    "read_table",
    "remove",
    "remove_unfinished",
    "storage_errors",
    "with_metadata",
    "write_bytes",
    "write_json",
    "write_table",
]

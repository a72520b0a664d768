"""MetaImage files as BRATS 2012 and 2013 have them, with any of their lines changed."""

import numpy as np
import numpy.typing as npt

from tests.support.fuzzing import Choices
from tests.support.mutated_documents import mutated_bytes

TYPES = {
    "i1": "MET_CHAR", "u1": "MET_UCHAR", "i2": "MET_SHORT", "u2": "MET_USHORT", "i4": "MET_INT", "u4": "MET_UINT",
    "i8": "MET_LONG_LONG", "u8": "MET_ULONG_LONG", "f4": "MET_FLOAT", "f8": "MET_DOUBLE",
}  # fmt: skip


def mha(voxels: npt.NDArray[np.generic], **lines: str | None) -> bytes:
    """A file of these voxels (X, Y, Z). A line may be set to another value, or left out: None."""
    little = voxels.astype(voxels.dtype.newbyteorder(">" if lines.get("BinaryDataByteOrderMSB") == "True" else "<"))
    header: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": "1 1 1",
        "DimSize": " ".join(str(size) for size in voxels.shape),
        "ElementType": TYPES[voxels.dtype.str[1:]],
        **lines,
        "ElementDataFile": lines.get("ElementDataFile", "LOCAL"),
    }
    text = "".join(f"{key} = {value}\n" for key, value in header.items() if value is not None)
    return text.encode() + little.tobytes(order="F")


_VALUES = (
    None, "", "0", "-1", "3", "1 1 1", "0 0 0", "-1 2 3", "1e999 1 1", "nan 1 1", "99999999999999999999 2 3",
    "30000 30000 30000", "1 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0", "0 1 0 -1 0 0 0 0 1", "1e30 0 0 0 1 0 0 0 1",
    "True", "False", "MET_FLOAT", "MET_DOUBLE", "MET_UCHAR", "MET_OTHER", "LOCAL", "LIST", "x.raw", "2 3 4",
    "4 3 2", "1_0 2 3", "\u0664 3 2",
)  # fmt: skip


def mutated_mha(choose: Choices) -> bytes:
    """A file with up to two of its lines changed or left out, and sometimes its bytes."""
    voxels = np.arange(24, dtype=("<i2", "u1", "<f4")[choose(3)]).reshape(2, 3, 4)
    names = [line.split(b" = ")[0].decode() for line in mha(voxels).split(b"\n")[:13]]
    changes = {names[choose(len(names))]: _VALUES[choose(len(_VALUES))] for _ in range(choose(3))}
    content = mha(voxels, **changes)
    return mutated_bytes(content, choose) if choose(2) else content

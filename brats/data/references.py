"""The reference of a case on the grid of its images, which is that of a predicted mask in Parquet.

Axes: `X Y Z` voxel axes of the source file, in any order and direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from brats.data.cases import CaseFiles
from brats.data.grid import Grid, check_same_grid, from_ras, turn_alike
from brats.data.items import PreparedCase
from brats.data.read_files import read_files, read_reference
from brats.data.slices import SliceFile
from brats.errors import CaseError, StorageError
from brats.labels import Labels


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The labels of a case, (X, Y, Z) on its full source grid.

    layout:   the naming of the files of its case: a key of `layouts.LAYOUTS`
    warnings: of the segmentation, such as rounded values
    """

    labels: Labels
    grid: Grid
    layout: str
    warnings: Sequence[str] = ()


def read_on_image_grid(source: CaseFiles | PreparedCase, modality: str = "") -> Reference | None:
    """Read a reference, and one image at most; None for a case without a segmentation.

    modality: whose image has the grid; without it that of another image is taken, or of the segmentation

    Raises CaseError for a segmentation that cannot be read; a transient one for an unreadable prepared file.
    """
    return _read_prepared(source.path) if isinstance(source, PreparedCase) else _read_files(source, modality)


def _read_prepared(path: str) -> Reference | None:
    try:
        case = SliceFile(path).read_case(())
    except (FileNotFoundError, StorageError) as error:
        raise CaseError(path, str(error), transient=True) from error
    if case.labels is None:
        return None
    return Reference(labels=case.on_source_grid(case.labels), grid=case.grid, layout=case.layout)


def _read_files(files: CaseFiles, modality: str) -> Reference | None:
    if files.segmentation is None:
        return None
    name = modality if modality in files.images else next(iter(files.images), None)
    read = read_files(files, [name]) if name else None
    found = (read and read.segmentation) or read_reference(files)
    labels, grid = found.labels, found.grid
    if name and read:
        image_grid = read.images[name].volume.grid
        labels, grid = turn_alike(labels, grid, image_grid)
        check_same_grid(files.images[name], image_grid, files.segmentation, grid)
        grid = image_grid
    return Reference(
        labels=from_ras(labels, grid),
        grid=grid,
        layout=files.layout,
        warnings=[*found.warnings(files.segmentation)],
    )

"""Figures as files, in PNG and PDF: their size in print, and the same bytes for the same figure."""

import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from brats import storage
from brats.config import FIGURE_FORMATS, FigureFormat

Plot = Callable[[], Figure]
"""Draws a figure when it is called."""

WIDTH_IN = 7.2  # 183 mm: both columns of a page of Nature; those of other journals take 174 to 190
N_PIXELS = 1600  # from left to right, in PNG
DPI: Mapping[FigureFormat, float] = {"png": N_PIXELS / WIDTH_IN, "pdf": 300}  # in PDF of images alone
# In points. Type of 7 is what journals ask for; lines are thinner than matplotlib's to the same degree. Type 42 is
# TrueType, which journals accept and programs edit; matplotlib's own choice, type 3, is neither.
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.titlepad": 4.5,
    "axes.labelpad": 3,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.3,
    "lines.markeredgewidth": 0.7,
    "patch.linewidth": 0.7,
    "grid.linewidth": 0.6,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "xtick.major.pad": 2.5,
    "xtick.minor.size": 1.5,
    "xtick.minor.width": 0.4,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
    "ytick.major.pad": 2.5,
    "ytick.minor.size": 1.5,
    "ytick.minor.width": 0.4,
    "pdf.fonttype": 42,
}
METADATA: Mapping[FigureFormat, Mapping[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}


def blank_figure(height_in: float, background: str = "white") -> Figure:
    """A figure of the width that all have. In a `Plot` its lines and type have the sizes of STYLE."""
    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI["png"], layout="constrained", facecolor=background)


def render(plot: Plot, formats: Collection[FigureFormat]) -> dict[FigureFormat, bytes]:
    """The files of a figure, by format. The same figure gives the same bytes, with the same matplotlib.

    It is drawn anew for each: laid out a second time, it would differ by a hair.
    """
    with rc_context(STYLE):
        return {name: _saved(plot(), name) for name in FIGURE_FORMATS if name in formats}


def _saved(figure: Figure, file_format: FigureFormat) -> bytes:
    content = io.BytesIO()
    metadata = dict(METADATA[file_format])
    figure.savefig(content, format=file_format, dpi=DPI[file_format], metadata=metadata)
    return content.getvalue()


def figure_path(figures: str, name: str, file_format: FigureFormat) -> str:
    """Where a figure lies in the folder `figures`."""
    return storage.join(figures, f"{name}.{file_format}")

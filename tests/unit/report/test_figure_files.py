"""Files of figures: their size in print, their fonts, and the same bytes for the same figure."""

import hashlib
import re
import subprocess
import sys
import zlib

import matplotlib
from matplotlib.figure import Figure

from brats.report.figure_files import STYLE, blank_figure, figure_path, render

SAME_FIGURE = (
    "import hashlib, sys; from tests.unit.report.test_figure_files import digests; "
    "print(digests(), 'matplotlib.pyplot' in sys.modules)"
)


def small_figure() -> Figure:
    figure = blank_figure(2.5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="WT")
    axes.set(title="Loss", xlabel="epoch", ylabel="ml")
    axes.legend()
    return figure


def digests() -> str:
    return " ".join(
        hashlib.sha256(content).hexdigest() for content in render(small_figure, ["png", "pdf"]).values()
    )


def unpacked(pdf: bytes) -> bytes:
    """The objects of a PDF and the content of its compressed streams."""
    streams = re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", pdf, flags=re.DOTALL)
    return pdf + b"\n".join(zlib.decompress(stream) for stream in streams)


def test_only_the_formats_asked_for_are_made() -> None:
    assert {name: content[:4] for name, content in render(small_figure, ["pdf", "png"]).items()} == {
        "png": b"\x89PNG",
        "pdf": b"%PDF",
    }
    assert list(render(small_figure, ["pdf"])) == ["pdf"]


def test_a_format_has_the_same_bytes_beside_another_one() -> None:
    assert render(small_figure, ["png", "pdf"])["pdf"] == render(small_figure, ["pdf"])["pdf"]


def test_a_png_is_1600_pixels_wide() -> None:
    content = render(small_figure, ["png"])["png"]
    assert int.from_bytes(content[16:20], "big") == 1600


def test_a_pdf_is_183_mm_wide_and_embeds_truetype_fonts() -> None:
    content = unpacked(render(small_figure, ["pdf"])["pdf"])
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
    assert [float(points) for points in box] == [7.2 * 72, 2.5 * 72]  # 182.9 mm
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_type_is_of_7_points_in_a_figure_and_as_before_after_it() -> None:
    sizes = []

    def plot() -> Figure:
        figure = small_figure()
        sizes.append(figure.axes[0].xaxis.label.get_fontsize())
        return figure

    before = {name: matplotlib.rcParams[name] for name in STYLE}
    render(plot, ["png"])
    assert sizes == [7.0]
    assert {name: matplotlib.rcParams[name] for name in STYLE} == before != STYLE


def test_another_process_writes_the_same_bytes_without_pyplot() -> None:
    done = subprocess.run([sys.executable, "-c", SAME_FIGURE], capture_output=True, text=True, check=True)
    assert done.stdout == f"{digests()} False\n"


def test_a_file_has_the_name_of_its_figure_and_format() -> None:
    assert figure_path("s3://bucket/run/figures", "volumes", "pdf") == "s3://bucket/run/figures/volumes.pdf"

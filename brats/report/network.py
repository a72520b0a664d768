"""Drawings of how data flow: the network with the shapes of its layers, and a run with its counts."""

from collections.abc import Sequence
from math import log2

from brats.model.layers import Architecture, Layer
from brats.report.html import text

INK, ARROW = "#222222", "#666666"
COLOURS = {"input": "#EEEEEE", "encoder": "#9BD0F2", "decoder": "#F6EDA0", "output": "#F0A880"}
COLUMN, BASE, UNIT = 78, 230, 26  # pixels: between layers, where they stand, height of a doubling of the slice
ROOM = 62  # pixels below, for names and shapes


def draw_network(found: Architecture) -> str:
    """The stages of a network from left to right: higher for larger slices, wider for more channels."""
    width = COLUMN * len(found.layers) + 20
    smallest = min(layer.shape[1] for layer in found.layers)
    boxes = [_box(layer, 20 + COLUMN * number, smallest) for number, layer in enumerate(found.layers)]
    skips = [_skip(found.layers, number, smallest) for number in range(len(found.layers))]
    name = f"network of {found.n_parameters:,} weights, {len(found.layers)} stages"
    return (
        f'<div class="wide"><svg class="network" viewBox="0 0 {width} {BASE + ROOM}" width="{width}" role="img" '
        f'aria-label="{name}">{"".join(skips)}{"".join(boxes)}</svg></div>'
    )


def _height(layer: Layer, smallest: int) -> float:
    return UNIT * (1 + log2(max(layer.shape[1] / smallest, 1)))


def _box(layer: Layer, x: float, smallest: int) -> str:
    """A stage: a box with its name and its shape beneath."""
    height, width = _height(layer, smallest), min(8 + 5 * log2(max(layer.shape[0], 1)), COLUMN - 14)
    channels, rows, columns = layer.shape
    lines = (layer.name, f"{channels} ch", f"{rows} x {columns}")
    labels = "".join(
        f'<text x="{x + 30}" y="{BASE + 18 + 15 * number}" text-anchor="middle">{text(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{x + 30 - width / 2:.1f}" y="{BASE - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{COLOURS[layer.part]}" stroke="{INK}"/>{labels}'
    )


def _skip(layers: Sequence[Layer], number: int, smallest: int) -> str:
    """The way of a stage of the encoder over to the first one of the decoder of its size; "" without one."""
    layer = layers[number]
    if layer.part != "encoder":
        return ""
    same = [at for at, other in enumerate(layers) if other.part == "decoder" and other.shape[1:] == layer.shape[1:]]
    if not same:
        return ""
    start, stop = (50 + COLUMN * at for at in (number, same[0]))
    y = BASE - _height(layer, smallest)
    top = max(y - 10 - 4 * (same[0] - number), 8)
    way = f"M{start} {y:.1f}V{top:.1f}H{stop}V{y:.1f}"
    return f'<path d="{way}" fill="none" stroke="{ARROW}" stroke-dasharray="4 3"/>'


def draw_flow(steps: Sequence[tuple[str, str]]) -> str:
    """The stages of a run, each with its name and its counts, from left to right."""
    boxes = (f"<li><b>{text(name)}</b><span>{text(counts)}</span></li>" for name, counts in steps)
    return f'<ol class="flow">{"".join(boxes)}</ol>'

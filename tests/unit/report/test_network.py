"""Drawings of a network and of a run."""

import re
from xml.etree import ElementTree

from brats.model.layers import Architecture, Layer
from brats.report.network import draw_flow, draw_network

LAYERS = (
    Layer(part="input", name="slice", shape=(4, 64, 32)),
    Layer(part="encoder", name="level 1", shape=(16, 64, 32)),
    Layer(part="encoder", name="level 2", shape=(32, 32, 16)),
    Layer(part="decoder", name="level <1>", shape=(16, 64, 32)),
    Layer(part="output", name="logits", shape=(3, 64, 32)),
)


def test_each_layer_has_a_box_with_its_channels_and_size() -> None:
    html = draw_network(Architecture(layers=LAYERS, n_parameters=1234))
    root = ElementTree.fromstring(html)
    texts = [element.text for element in root.iter() if element.text]
    assert texts[:6] == ["slice", "4 ch", "64 x 32", "level 1", "16 ch", "64 x 32"]
    assert "level <1>" in texts
    assert html.count("<rect") == len(LAYERS)
    assert "network of 1,234 weights" in html


def test_larger_slices_have_higher_boxes() -> None:
    html = draw_network(Architecture(layers=LAYERS, n_parameters=1))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', html)]
    assert heights == [52, 52, 26, 52, 52]


def test_a_skip_leads_from_the_encoder_to_the_decoder_of_its_size() -> None:
    html = draw_network(Architecture(layers=LAYERS, n_parameters=1))
    assert re.findall(r'd="M(\d+) [\d.]+V[\d.]+H(\d+)V', html) == [("128", "284")]


def test_the_flow_names_stages_with_their_counts() -> None:
    assert draw_flow([("split", "3 < 4")]) == '<ol class="flow"><li><b>split</b><span>3 &lt; 4</span></li></ol>'

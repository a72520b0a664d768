"""Pictures of cases and of slices as the network sees them."""

import numpy as np

from brats.report.gallery import Example, Samples, examples_section, samples_section

EXAMPLE = Example(role="best", case_id="a<", title="a<, Dice 0.900, best", slice_index=7, panel="data:panel")


def test_worst_median_and_best_stand_in_this_order_with_their_slice() -> None:
    examples = dict.fromkeys(("best", "worst"), EXAMPLE)
    html = examples_section(examples)
    assert html.index("Worst: a&lt;") < html.index("Best: a&lt;")
    assert "slice z = 7 alone, with its reference" in html
    assert html.count('src="data:panel"') == 2
    assert "<details>" not in html
    assert "missed (false negative)" in html


def test_a_figure_of_all_modalities_is_folded_below() -> None:
    figure = Example(role="best", case_id="a", title="a", slice_index=7, panel="data:panel", figure="data:figure")
    assert (
        '<details><summary>The slice with most tumour, outlined</summary><figure class=""><img src="data:figure"'
        in (examples_section({"best": figure}))
    )


def test_without_examples_the_section_is_left_out() -> None:
    assert examples_section({}) == ""


def test_samples_are_one_picture_before_and_one_for_each_draw() -> None:
    slices = np.ones((2, 6, 5), np.float32)
    samples = Samples(
        case_id="a<", modalities=("flair", "t1"), augmentation="flips", normalised=slices, augmented=slices[None]
    )
    html = samples_section(samples)
    assert html.count("data:image/png;base64,") == 2
    assert "Preprocessed: FLAIR, T1" in html
    assert "a&lt;" in html
    assert samples_section(None) == ""

"""The page in a real browser: it opens from disk, sorts, filters, scrubs and shows the right voxels, and asks for
nothing but itself and, where it is served, the cases beside it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from brats import storage
from brats.config import ReportConfig
from brats.data.dataset import slices_path
from brats.data.slices import SliceFile
from brats.pipeline.report import page_of, report
from brats.report.volumes import ALL_TISSUES, Layers, grey_bytes, peaks, read_layers
from tests.support.browser import chromium, console, requests, served
from tests.support.reports import write_run

pytestmark = pytest.mark.medium

WORST = "case_3"
PATIENCE_S = 20


class Opened:
    """The page of a run of four cases, open in the browser, the worst of them in its viewer."""

    def __init__(self, browser: Chrome, run: str, page: str) -> None:
        self.browser, self.run, self.page = browser, run, page

    def at(self, identity: str) -> Any:
        return self.browser.find_element(By.ID, identity)

    def wait_for_case(self, case_id: str) -> None:
        selector = f'#case-table tr.shown[data-case="{case_id}"]'
        WebDriverWait(self.browser, PATIENCE_S).until(
            lambda _: self.browser.find_elements(By.CSS_SELECTOR, selector)
        )
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
        )

    def beside(self) -> tuple[str, Path]:
        """The case that the page does not carry: its id, and its file."""
        (file,) = (Path(self.page).parent / "cases").iterdir()
        return file.name.removesuffix(".view.gz"), file

    def choose(self, case_id: str) -> None:
        Select(self.at("case")).select_by_value(case_id)

    def rows(self) -> list[str]:
        rows = self.browser.find_elements(By.CSS_SELECTOR, "#case-table tbody tr")
        return [str(row.get_attribute("data-case")) for row in rows if row.is_displayed()]

    def cursor(self) -> tuple[int, int, int]:
        z, h, w = self.browser.execute_script("return state.cursor;")
        return z, h, w

    def readout(self) -> str:
        return str(self.at("readout").text)

    def layers(self, case_id: str) -> Layers:
        case = SliceFile(slices_path(f"{self.run}/prepared", case_id)).read_case()
        return read_layers(case, f"{self.run}/test")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("browser")
    with chromium(folder / "profile") as browser, pytest.MonkeyPatch.context() as patch:
        patch.setattr("brats.pipeline.report.draw_figures", lambda *_: iter(()))  # seconds of matplotlib
        run = write_run(folder / "run", (0, 1, 2, 3), probabilities=True)
        config = ReportConfig(run=run)
        report(config)
        page = page_of(config)
        browser.get(f"file://{page}")
        yield Opened(browser, run, page)


@pytest.fixture(autouse=True)
def at_the_worst_case(opened: Opened) -> None:
    """Each test begins with the page as it was loaded."""
    opened.browser.get(f"file://{opened.page}")
    opened.wait_for_case(WORST)


def test_the_page_opens_without_a_message_and_asks_for_nothing_but_itself(opened: Opened) -> None:
    requests(opened.browser)
    opened.browser.refresh()
    opened.wait_for_case(WORST)
    assert requests(opened.browser) == [f"file://{opened.page}"]
    assert console(opened.browser) == []


def test_columns_sort_in_either_direction(opened: Opened) -> None:
    assert opened.rows() == ["case_3", "case_2", "case_1", "case_0"]
    head = opened.browser.find_elements(By.CSS_SELECTOR, "#case-table th button")
    head[0].click()
    assert opened.rows() == ["case_0", "case_1", "case_2", "case_3"]
    head[0].click()
    assert opened.rows() == ["case_3", "case_2", "case_1", "case_0"]


def test_filters_leave_the_rows_that_fit(opened: Opened) -> None:
    opened.at("filter-text").send_keys("patient of case_2")
    assert opened.rows() == ["case_2"]
    assert opened.at("n-shown").text == "1 of 4 cases"
    opened.at("filter-text").clear()
    opened.at("filter-text").send_keys(Keys.SPACE)
    opened.at("filter-dice").send_keys("0.99")
    assert opened.rows() == ["case_3", "case_2", "case_1"]


def test_another_metric_takes_the_last_columns_with_its_convention(opened: Opened) -> None:
    Select(opened.at("metric")).select_by_value("n_reference_voxels")
    head = opened.browser.find_elements(By.CSS_SELECTOR, "#case-table th.metric")
    assert head[0].text.startswith("n_reference_voxels WT")
    cells = opened.browser.find_elements(By.CSS_SELECTOR, "#case-table tbody tr:first-child td.metric")
    reference = opened.layers(WORST).reference
    assert reference is not None
    assert cells[0].text == str(np.count_nonzero(reference))
    Select(opened.at("metric")).select_by_value("dice")
    assert "2 TP / (2 TP + FP + FN)" in opened.browser.find_element(By.CSS_SELECTOR, ".convention").text


def test_the_viewer_starts_where_the_error_is_largest_and_shows_the_voxel_there(opened: Opened) -> None:
    layers = opened.layers(WORST)
    place = peaks(layers)[ALL_TISSUES]
    assert opened.cursor() == place
    check_voxel(opened, layers, place)


def check_voxel(opened: Opened, layers: Layers, place: tuple[int, int, int]) -> None:
    """What the viewer reads out is what the files hold at this voxel of the crop."""
    name, image = next(iter(layers.case.images.items()))
    levels, _, _ = grey_bytes(image, layers.case.intensities[name])
    assert layers.reference is not None
    readout = opened.at("readout")
    assert int(readout.get_attribute("data-level")) == levels[place]
    assert int(readout.get_attribute("data-labels")) == layers.reference[place] + 16 * layers.prediction[place]
    z, h, w = place
    start = layers.case.box.start
    assert opened.readout().startswith(f"voxel x {start[0] + h}, y {start[1] + w}, z {start[2] + z}")


def test_a_click_shows_the_voxel_that_lies_there_in_radiological_orientation(opened: Opened) -> None:
    layers, canvas = opened.layers(WORST), opened.at("axial")
    n_h, n_w = layers.prediction.shape[1:]
    size = canvas.size
    right, down = 12, 9  # voxels of the picture from its upper left corner
    x, y = ((right + 0.5) / n_h - 0.5) * size["width"], ((down + 0.5) / n_w - 0.5) * size["height"]
    ActionChains(opened.browser).move_to_element_with_offset(canvas, round(x), round(y)).click().perform()
    opened.settle()
    z = peaks(layers)[ALL_TISSUES][0]
    assert opened.cursor() == (z, n_h - 1 - right, n_w - 1 - down)
    check_voxel(opened, layers, opened.cursor())


def test_the_grey_level_of_the_picture_is_that_of_the_voxel(opened: Opened) -> None:
    layers = opened.layers(WORST)
    for name in ("reference", "error"):
        opened.at(f"layer-{name}").click()
    opened.settle()
    z, h, w = 2, 10, 30
    name, image = next(iter(layers.case.images.items()))
    levels, _, _ = grey_bytes(image, layers.case.intensities[name])
    pixel = opened.browser.execute_script(
        "state.cursor = [2, 10, 30]; const [grey] = paint(PLANES[0]);"
        "const at = 4 * ((grey.height - 1 - 30) * grey.width + grey.width - 1 - 10);"
        "return [...grey.data.slice(at, at + 4)];"
    )
    assert pixel == [levels[z, h, w]] * 3 + [255]


def test_keys_wheel_and_sliders_change_the_slice(opened: Opened) -> None:
    z, h, w = opened.cursor()
    canvas = opened.at("axial")
    opened.browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_UP)
    assert opened.cursor() == (z + 1, h, w)
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert opened.cursor() == (z - 1, h, w)
    canvas.send_keys(Keys.HOME)
    assert opened.cursor() == (z, h, w)
    opened.browser.execute_script(
        "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: 100, cancelable: true}))", canvas
    )
    assert opened.cursor() == (z - 1, h, w)
    opened.at("slice-coronal").send_keys(Keys.ARROW_RIGHT)
    assert opened.cursor() == (z - 1, h, w + 1)


def test_regions_modalities_and_layers_can_be_chosen(opened: Opened) -> None:
    layers = opened.layers(WORST)
    Select(opened.at("region")).select_by_value("ET")
    Select(opened.at("modality")).select_by_visible_text("T1CE")
    for name in ("prediction", "uncertainty"):
        opened.at(f"layer-{name}").click()
    opened.settle()
    assert opened.cursor() == peaks(layers)["ET"]
    assert "T1CE" in opened.readout()
    assert "p(ET) " in opened.readout()
    assert console(opened.browser) == []


def test_a_row_opens_its_case(opened: Opened) -> None:
    opened.browser.find_element(By.CSS_SELECTOR, '[data-case="case_0"] .open').click()
    opened.wait_for_case("case_0")
    assert Select(opened.at("case")).first_selected_option.text == "case_0, Dice 1.000, best"


def test_a_case_beside_the_page_is_offered_for_a_drop_and_shown_once_given(opened: Opened) -> None:
    case_id, file = opened.beside()
    choose_and_wait_for_the_offer(opened, case_id)
    assert opened.at("offer-file").text == f"cases/{file.name}"
    opened.at("file").send_keys(str(file))
    opened.wait_for_case(case_id)
    check_voxel(opened, opened.layers(case_id), opened.cursor())
    assert not opened.at("offer").is_displayed()


def choose_and_wait_for_the_offer(opened: Opened, case_id: str) -> None:
    opened.choose(case_id)
    WebDriverWait(opened.browser, PATIENCE_S).until(lambda _: opened.at("offer").is_displayed())


def test_a_file_dropped_on_the_viewer_is_shown(opened: Opened) -> None:
    case_id, file = opened.beside()
    choose_and_wait_for_the_offer(opened, case_id)
    opened.browser.execute_script(
        "const bytes = Uint8Array.from(atob(arguments[0]), (character) => character.charCodeAt(0));"
        "const dataTransfer = new DataTransfer(); dataTransfer.items.add(new File([bytes], arguments[1]));"
        "byId('viewer').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));",
        base64.b64encode(file.read_bytes()).decode(),
        file.name,
    )
    opened.wait_for_case(case_id)
    check_voxel(opened, opened.layers(case_id), opened.cursor())
    assert not opened.at("offer").is_displayed()


def test_a_served_page_reads_the_case_beside_it_and_shows_its_voxels(opened: Opened) -> None:
    case_id, file = opened.beside()
    with served(Path(opened.page).parent) as address:
        opened.browser.get(f"{address}/index.html")
        opened.wait_for_case(WORST)
        requests(opened.browser)
        opened.choose(case_id)
        opened.wait_for_case(case_id)
        assert requests(opened.browser) == [f"{address}/cases/{file.name}"]
        layers = opened.layers(case_id)
        assert opened.cursor() == peaks(layers)[ALL_TISSUES]
        check_voxel(opened, layers, opened.cursor())
        opened.browser.execute_script("state.cursor = [1, 10, 30]; redraw();")
        opened.settle()
        check_voxel(opened, layers, (1, 10, 30))
        assert not opened.at("offer").is_displayed()
        assert console(opened.browser) == []


def test_a_case_that_is_not_on_the_server_is_named_in_a_line(opened: Opened) -> None:
    case_id, _ = opened.beside()
    with served(Path(opened.page).parent) as address:
        opened.browser.get(f"{address}/index.html")
        opened.wait_for_case(WORST)
        opened.browser.execute_script(
            "CASES.find((one) => one.id === arguments[0]).file = 'cases/gone.view.gz';", case_id
        )
        opened.choose(case_id)
        expected = f"{case_id}: cases/gone.view.gz: the server answers 404"
        WebDriverWait(opened.browser, PATIENCE_S).until(lambda _: opened.at("viewer-message").text == expected)
    console(opened.browser)  # in which Chromium notes the 404


def test_a_damaged_file_is_refused_in_a_line_and_the_case_shown_stays(opened: Opened, tmp_path: Path) -> None:
    _, file = opened.beside()
    damaged = tmp_path / "damaged.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    opened.browser.execute_script("document.getElementById('offer').hidden = false")
    opened.at("file").send_keys(str(damaged))
    WebDriverWait(opened.browser, PATIENCE_S).until(
        lambda _: opened.at("viewer-message").text.startswith("damaged.gz: ")
    )
    check_voxel(opened, opened.layers(WORST), opened.cursor())
    assert console(opened.browser) == []


def test_a_slice_change_paints_its_plane_alone_and_a_change_of_layers_all_three(opened: Opened) -> None:
    opened.browser.execute_script(
        "window.painted = []; paint = ((old) => (plane) => {painted.push(plane.name); return old(plane); })(paint);"
    )
    opened.browser.execute_script("moveTo(0, state.cursor[0] + 1)")
    opened.settle()
    assert opened.browser.execute_script("return painted.splice(0)") == ["axial"]
    opened.at("layer-prediction").click()
    opened.settle()
    assert opened.browser.execute_script("return painted.splice(0)") == ["axial", "coronal", "sagittal"]


def test_a_picture_that_is_kept_is_the_one_that_would_be_drawn_anew(opened: Opened) -> None:
    opened.browser.execute_script("moveTo(0, 2); moveTo(1, 12);")
    opened.settle()
    opened.browser.execute_script("moveTo(1, 14);")
    opened.settle()
    assert drawn(opened) == drawn_anew(opened)


def test_nothing_of_the_case_before_is_kept(opened: Opened) -> None:
    opened.browser.find_element(By.CSS_SELECTOR, '[data-case="case_0"] .open').click()
    opened.wait_for_case("case_0")
    opened.browser.execute_script("state.cursor = [2, 12, 30]; redraw();")
    opened.settle()
    before = drawn(opened)
    opened.browser.execute_script("display(loaded.get('case_3')); state.cursor = [2, 12, 30]; redraw();")
    opened.settle()
    assert drawn(opened) != before
    assert drawn(opened) == drawn_anew(opened)


def drawn(opened: Opened) -> list[str]:
    """The pictures of the three planes, as data: URLs."""
    found: list[str] = opened.browser.execute_script("return PLANES.map((plane) => byId(plane.name).toDataURL());")
    return found


def drawn_anew(opened: Opened) -> list[str]:
    opened.browser.execute_script("pictures.clear(); redraw();")
    opened.settle()
    return drawn(opened)


def test_a_foreign_file_is_refused_in_a_line(opened: Opened, tmp_path: Path) -> None:
    foreign = tmp_path / "other.gz"
    storage.write_bytes(str(foreign), b"\x05\x00\x00\x00hello")
    opened.browser.execute_script("document.getElementById('offer').hidden = false")
    opened.at("file").send_keys(str(foreign))
    WebDriverWait(opened.browser, PATIENCE_S).until(lambda _: opened.at("viewer-message").text)
    assert opened.at("viewer-message").text == "other.gz: not a case of this report"

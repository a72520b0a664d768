// What a person does with the viewer: choices, the mouse, keys, a finger, and files dropped on it.
"use strict";

const LAYERS = ["reference", "prediction", "error", "uncertainty"];
let waiting = false, fitted = false;

function redraw() { // once per picture of the screen, however many events came
  if (waiting || !state.volume) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const start = performance.now();
    if (!fitted) fit();
    fitted = true;
    PLANES.forEach(drawPlane);
    readout();
    for (const plane of PLANES) byId(`slice-${plane.name}`).value = state.cursor[plane.normal];
    byId("viewer").dataset.drawMs = (performance.now() - start).toFixed(1);
  });
}

function moveTo(axis, place) {
  state.cursor[axis] = Math.min(Math.max(Math.round(place), 0), state.volume.shape[axis] - 1);
  redraw();
}

function toError() {
  state.cursor = [...state.volume.peaks[state.region]];
  redraw();
}

function message(words) { byId("viewer-message").textContent = words; }

function choices(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, words]) => new Option(words, value, false, value === chosen)));
}

async function showCase(id) {
  const entry = CASES.find((one) => one.id === id);
  byId("case").value = id;
  byId("offer").hidden = true;
  message(`loading ${id} ...`);
  try {
    const volume = await load(entry);
    if (byId("case").value === id) display(volume); // another one may have been chosen meanwhile
  } catch (error) {
    message(error instanceof Beside ? `${id} is not in this file.` : `${id}: ${error.message}`);
    byId("offer").hidden = !(error instanceof Beside);
    byId("offer-file").textContent = entry.file || "";
  }
}

function display(volume) {
  const first = !state.volume;
  state.volume = volume;
  pictures.clear();
  fitted = false;
  state.modality = Math.min(state.modality, volume.images.length - 1);
  choices(byId("modality"), volume.images.map((image, at) => [String(at), image.name.toUpperCase()]), String(state.modality));
  for (const plane of PLANES) byId(`slice-${plane.name}`).max = volume.shape[plane.normal] - 1;
  byId("layer-reference").disabled = byId("layer-error").disabled = !volume.reference;
  byId("layer-uncertainty").disabled = !Object.keys(volume.probabilities).length;
  if (first && !volume.reference) byId("layer-prediction").checked = state.layers.prediction = true;
  for (const row of document.querySelectorAll("#case-table tbody tr")) {
    row.classList.toggle("shown", row.dataset.case === volume.case_id);
  }
  message(volume.reference ? "" : `${volume.case_id} has no reference: there is no error to show.`);
  toError();
}

function onCanvas(plane) {
  const canvas = byId(plane.name);
  let last = null; // where a drag of the window was
  const point = (event) => {
    const box = canvas.getBoundingClientRect(), { shape } = state.volume;
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    moveTo(plane.column, shape[plane.column] * (1 - across) - 0.5);
    moveTo(plane.row, shape[plane.row] * (1 - down) - 0.5);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!state.volume) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    last = event.button === 2 || event.shiftKey ? [event.clientX, event.clientY] : null;
    if (!last) point(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.volume || !event.buttons) return;
    if (!last) return point(event);
    const [width, level] = [event.clientX - last[0], event.clientY - last[1]];
    setWindow(state.low - width / 2 + level / 2, state.high + width / 2 + level / 2);
    last = [event.clientX, event.clientY];
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => setWindow(0, 255));
  canvas.addEventListener("wheel", (event) => {
    if (!state.volume || event.ctrlKey) return;
    event.preventDefault();
    moveTo(plane.normal, state.cursor[plane.normal] - Math.sign(event.deltaY));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    if (!state.volume || !(event.key in steps || event.key === "Home")) return;
    event.preventDefault();
    if (event.key === "Home") toError();
    else moveTo(plane.normal, state.cursor[plane.normal] + steps[event.key]);
  });
  byId(`slice-${plane.name}`).addEventListener("input", (event) => moveTo(plane.normal, Number(event.target.value)));
}

function setWindow(low, high) {
  state.low = Math.round(Math.min(Math.max(low, 0), 254));
  state.high = Math.round(Math.min(Math.max(high, state.low + 1), 255));
  byId("low").value = state.low;
  byId("high").value = state.high;
  redraw();
}

async function takeFiles(files) {
  for (const file of files) {
    try {
      const volume = await read(new Uint8Array(await file.arrayBuffer()));
      if (!CASES.some((entry) => entry.id === volume.case_id)) throw new Error("not a case of this report");
      byId("case").value = volume.case_id;
      byId("offer").hidden = true;
      display(volume);
    } catch (error) {
      message(`${file.name}: ${error instanceof SyntaxError || error instanceof RangeError ? "not a case of this report" : error.message}`);
    }
  }
}

function viewer() {
  if (!byId("viewer")) return;
  choices(byId("case"), CASES.map((entry) => [entry.id, entry.title]), CASES[0].id);
  choices(byId("region"), [[ALL, "all tissues"], ...REGIONS.map((one) => [one.name, `${one.name} ${one.full_name}`])], ALL);
  for (const name of LAYERS) {
    const box = byId(`layer-${name}`);
    state.layers[name] = box.checked;
    box.addEventListener("change", () => { state.layers[name] = box.checked; redraw(); });
  }
  PLANES.forEach(onCanvas);
  byId("case").addEventListener("change", (event) => showCase(event.target.value));
  byId("modality").addEventListener("change", (event) => { state.modality = Number(event.target.value); redraw(); });
  byId("region").addEventListener("change", (event) => { state.region = event.target.value; if (state.volume) toError(); });
  byId("opacity").addEventListener("input", (event) => { state.opacity = event.target.value / 100; redraw(); });
  byId("low").addEventListener("input", (event) => setWindow(Number(event.target.value), state.high));
  byId("high").addEventListener("input", (event) => setWindow(state.low, Number(event.target.value)));
  byId("to-error").addEventListener("click", () => { if (state.volume) toError(); });
  byId("file").addEventListener("change", (event) => takeFiles(event.target.files));
  const box = byId("viewer");
  box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => { event.preventDefault(); box.classList.remove("over"); takeFiles(event.dataTransfer.files); });
  for (const button of document.querySelectorAll(".open")) {
    button.addEventListener("click", () => { showCase(button.dataset.case); box.parentElement.scrollIntoView(); });
  }
  new ResizeObserver(() => { fitted = false; redraw(); }).observe(box);
  showCase(CASES[0].id);
}

viewer();

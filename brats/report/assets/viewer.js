// The viewer: three planes of a case with its layers. Axes of a volume: z, h (x), w (y), in RAS+.
"use strict";

const byId = (id) => document.getElementById(id);
// Rows and columns run against their axes: the front and the head up, the patient's right on the left.
const PLANES = [
  { name: "axial", normal: 0, column: 1, row: 2, letter: "z", ends: ["R", "L", "A", "P"] },
  { name: "coronal", normal: 2, column: 1, row: 0, letter: "y", ends: ["R", "L", "S", "I"] },
  { name: "sagittal", normal: 1, column: 2, row: 0, letter: "x", ends: ["A", "P", "S", "I"] },
];
const REGIONS = DATA.viewer.regions, ALL = "all", ERRORS = DATA.viewer.errors;
const state = { volume: null, cursor: [0, 0, 0], modality: 0, region: ALL, low: 0, high: 255, opacity: 0.6, layers: {} };

const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const TISSUES = Object.fromEntries(REGIONS.map((region) => [region.label, rgb(region.colour)]));
const [MISSED, FALSE, CONFUSED] = [ERRORS.missed, ERRORS.false, ERRORS.confused].map(rgb);
const ENTROPY = Float32Array.from({ length: 256 }, (_, level) => {
  const p = level / 255;
  return p === 0 || p === 1 ? 0 : -(p * Math.log2(p) + (1 - p) * Math.log2(1 - p));
});

function members(name) { // which labels are in a region
  const region = REGIONS.find((one) => one.name === name);
  return Uint8Array.from({ length: 16 }, (_, label) => Number(region ? region.labels.includes(label) : label > 0));
}

function heat(share) { // black, red, yellow: rises in brightness, for every kind of colour vision
  return [255 * Math.min(1, 2 * share), 255 * Math.max(0, 2 * share - 1) + 60 * share, 40 * (1 - share)];
}

function fill(index, inside, volume) { // colour and strength on a voxel; null for none
  const reference = volume.labels[index] & 15, prediction = volume.labels[index] >> 4, layers = state.layers;
  if (layers.error && volume.reference) {
    if (inside[reference] && !inside[prediction]) return [MISSED, 1];
    if (!inside[reference] && inside[prediction]) return [FALSE, 1];
    if (state.region === ALL && reference !== prediction) return [CONFUSED, 1];
  }
  const probabilities = volume.probabilities[state.region === ALL ? "WT" : state.region];
  if (layers.uncertainty && probabilities) {
    const bits = ENTROPY[probabilities[index]];
    if (bits > 0.02) return [heat(bits), 0.35 + 0.65 * bits];
  }
  if (!layers.prediction || !inside[prediction]) return null;
  return [state.region === ALL ? TISSUES[prediction] : rgb(REGIONS.find((one) => one.name === state.region).colour), 1];
}

function paint(plane) { // the slice as two pictures of one pixel per voxel: grey levels, and fills
  const { volume, cursor } = state, { shape, strides } = volume;
  const width = shape[plane.column], height = shape[plane.row], inside = members(state.region);
  const levels = volume.images[state.modality].levels, scale = 255 / Math.max(1, state.high - state.low);
  const grey = new ImageData(width, height), fills = new ImageData(width, height);
  const fixed = cursor[plane.normal] * strides[plane.normal], alpha = 255 * state.opacity;
  for (let row = 0, at = 0; row < height; row++) {
    const start = fixed + (height - 1 - row) * strides[plane.row];
    for (let column = 0; column < width; column++, at += 4) {
      const index = start + (width - 1 - column) * strides[plane.column], level = levels[index];
      const value = level ? (level - state.low) * scale : 0;
      grey.data[at] = grey.data[at + 1] = grey.data[at + 2] = value; // clamped by the array
      grey.data[at + 3] = 255;
      const found = volume.labels[index] || state.layers.uncertainty ? fill(index, inside, volume) : null;
      if (found) fills.data.set([...found[0], alpha * found[1]], at);
    }
  }
  return [grey, fills];
}

function outline(context, plane, inside, toX, toY) { // along the edges of the voxels of the reference
  const { shape, strides, labels } = state.volume;
  const width = shape[plane.column], height = shape[plane.row];
  const fixed = state.cursor[plane.normal] * strides[plane.normal];
  const is = (row, column) => row >= 0 && column >= 0 && row < height && column < width
    && inside[labels[fixed + (height - 1 - row) * strides[plane.row] + (width - 1 - column) * strides[plane.column]] & 15];
  context.beginPath();
  for (let row = 0; row <= height; row++) {
    for (let column = 0; column <= width; column++) {
      const here = is(row, column);
      if (here != is(row - 1, column)) { context.moveTo(toX(column), toY(row)); context.lineTo(toX(column + 1), toY(row)); }
      if (here != is(row, column - 1)) { context.moveTo(toX(column), toY(row)); context.lineTo(toX(column), toY(row + 1)); }
    }
  }
  context.stroke();
}

function drawPlane(plane) {
  const canvas = byId(plane.name), context = canvas.getContext("2d"), { volume, cursor } = state;
  const { shape, spacing_mm: spacing } = volume;
  const width = shape[plane.column], height = shape[plane.row];
  const ratio = (width * spacing[plane.column]) / (height * spacing[plane.row]), density = window.devicePixelRatio || 1;
  canvas.style.aspectRatio = String(ratio);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * density));
  canvas.height = Math.max(1, Math.round(canvas.width / ratio));
  const toX = (column) => (column / width) * canvas.width, toY = (row) => (row / height) * canvas.height;
  for (const [number, picture] of paint(plane).entries()) {
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(picture, 0, 0);
    context.imageSmoothingEnabled = number === 0; // voxels of masks keep their edges
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
  if (state.layers.reference && volume.reference) {
    const regions = REGIONS.filter((region) => state.region === ALL || region.name === state.region);
    for (const region of regions) {
      context.strokeStyle = region.colour;
      context.lineWidth = 1.5 * density;
      outline(context, plane, members(region.name), toX, toY);
    }
  }
  cross(context, canvas, density, toX(width - cursor[plane.column] - 0.5), toY(height - cursor[plane.row] - 0.5));
  letters(context, canvas, density, plane);
}

function cross(context, canvas, density, x, y) {
  const gap = 9 * density;
  context.strokeStyle = "rgba(255,255,255,.65)";
  context.lineWidth = density;
  context.beginPath();
  for (const [start, stop] of [[0, x - gap], [x + gap, canvas.width]]) { context.moveTo(start, y); context.lineTo(stop, y); }
  for (const [start, stop] of [[0, y - gap], [y + gap, canvas.height]]) { context.moveTo(x, start); context.lineTo(x, stop); }
  context.stroke();
}

function letters(context, canvas, density, plane) {
  const { width, height } = canvas, edge = 10 * density, [left, right, top, bottom] = plane.ends;
  const slice = state.volume.start[plane.normal] + state.cursor[plane.normal];
  context.font = `${12 * density}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.lineWidth = 3 * density;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  const write = (words, x, y, align) => {
    context.textAlign = align;
    context.strokeText(words, x, y);
    context.fillText(words, x, y);
  };
  write(left, edge, height / 2, "center");
  write(right, width - edge, height / 2, "center");
  write(top, width / 2, edge, "center");
  write(bottom, width / 2, height - edge, "center");
  write(`${width < 260 * density ? "" : `${plane.name}, `}${plane.letter} = ${slice}`, edge / 2, edge, "left"); // short where it is narrow
}

function readout() {
  const { volume, cursor, modality } = state, [z, h, w] = cursor;
  const index = cursor.reduce((sum, at, axis) => sum + at * volume.strides[axis], 0);
  const image = volume.images[modality], level = image.levels[index];
  const value = image.low + ((level - 1) / 254) * (image.high - image.low);
  const tissue = (label) => DATA.viewer.tissues[label] || "background";
  const parts = [
    `voxel x ${volume.start[1] + h}, y ${volume.start[2] + w}, z ${volume.start[0] + z}`,
    `${image.name.toUpperCase()} ${level ? `≈ ${Number(value.toPrecision(3))}` : "background"}`,
    volume.reference ? `reference ${tissue(volume.labels[index] & 15)}` : "no reference",
    `prediction ${tissue(volume.labels[index] >> 4)}`,
    ...Object.entries(volume.probabilities).map(([name, levels]) => `p(${name}) ${(levels[index] / 255).toFixed(2)}`),
  ];
  Object.assign(byId("readout").dataset, { level, labels: volume.labels[index] });
  byId("readout").value = parts.join(" · ");
}

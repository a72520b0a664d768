// The viewer: what of the three planes has changed is drawn again, with the crosshair and the letters on top.
"use strict";

function fit() { // the canvases to their places on the page and to the proportions of their slices
  const { shape, spacing_mm: spacing } = state.volume;
  const ratios = PLANES.map(({ column, row }) => (shape[column] * spacing[column]) / (shape[row] * spacing[row]));
  for (const [number, plane] of PLANES.entries()) byId(plane.name).style.aspectRatio = String(ratios[number]);
  const widths = PLANES.map((plane) => byId(plane.name).clientWidth); // one layout for all three
  for (const [number, plane] of PLANES.entries()) {
    const canvas = byId(plane.name), width = Math.max(1, Math.round(widths[number] * density()));
    const height = Math.max(1, Math.round(width / ratios[number]));
    if (canvas.width === width && canvas.height === height) continue; // setting them empties the canvas
    Object.assign(canvas, { width, height });
    pictures.delete(plane);
  }
}

const density = () => window.devicePixelRatio || 1;
const pictures = new Map(); // of the planes, without the cross and the letters: kept as long as they stay the same

function picture(plane, { width, height }) {
  const { cursor, modality, region, low, high, opacity, layers } = state;
  const key = [cursor[plane.normal], modality, region, low, high, opacity, ...Object.values(layers)].join();
  const kept = pictures.get(plane) || { canvas: new OffscreenCanvas(width, height) };
  if (kept.key !== key) drawSlice(plane, kept.canvas);
  pictures.set(plane, { ...kept, key });
  return kept.canvas;
}

function drawSlice(plane, canvas) { // grey levels, fills and the outlines of the reference
  const context = canvas.getContext("2d"), { shape } = state.volume;
  const width = shape[plane.column], height = shape[plane.row], small = new OffscreenCanvas(width, height);
  const toX = (column) => (column / width) * canvas.width, toY = (row) => (row / height) * canvas.height;
  for (const [number, image] of paint(plane).entries()) {
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = number === 0; // voxels of masks keep their edges
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
  if (!state.layers.reference || !state.volume.reference) return;
  const reference = referenceOf(plane);
  for (const region of REGIONS.filter((one) => state.region === ALL || one.name === state.region)) {
    context.strokeStyle = region.colour;
    context.lineWidth = 1.5 * density();
    outline(context, reference, width, members(region.name), toX, toY);
  }
}

function drawPlane(plane) {
  const canvas = byId(plane.name), context = canvas.getContext("2d", { alpha: false }), { shape } = state.volume;
  const along = (axis) => 1 - (state.cursor[axis] + 0.5) / shape[axis]; // as a share of the picture
  context.drawImage(picture(plane, canvas), 0, 0);
  cross(context, canvas, density(), along(plane.column) * canvas.width, along(plane.row) * canvas.height);
  letters(context, canvas, density(), plane);
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

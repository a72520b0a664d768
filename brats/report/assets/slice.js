// A slice of a case as pixels: grey levels, fills and outlines. Axes of a volume: z, h (x), w (y), in RAS+.
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

const bytes = new Uint8ClampedArray(4), word = new Uint32Array(bytes.buffer); // a pixel as canvases have it

function pixel([red, green, blue], alpha) {
  bytes.set([red, green, blue, alpha]); // clamped and rounded
  return word[0];
}

function shades() { // the pixel of each grey level; background stays black
  const scale = 255 / Math.max(1, state.high - state.low);
  return Uint32Array.from({ length: 256 }, (_, level) => {
    const value = level ? (level - state.low) * scale : 0;
    return pixel([value, value, value], 255);
  });
}

function fills(volume) { // the pixels of fills, 0 for none: of errors and tissues by labels, of doubt by probability
  const { region, layers } = state, inside = members(region), alpha = 255 * state.opacity;
  const colour = region === ALL ? null : rgb(REGIONS.find((one) => one.name === region).colour);
  const errors = new Uint32Array(256), tissues = new Uint32Array(256), doubts = new Uint32Array(256);
  for (let labels = 0; labels < 256; labels++) {
    const reference = labels & 15, prediction = labels >> 4, bits = ENTROPY[labels];
    if (layers.error && volume.reference) {
      if (inside[reference] && !inside[prediction]) errors[labels] = pixel(MISSED, alpha);
      else if (!inside[reference] && inside[prediction]) errors[labels] = pixel(FALSE, alpha);
      else if (region === ALL && reference !== prediction) errors[labels] = pixel(CONFUSED, alpha);
    }
    if (layers.prediction && inside[prediction] && prediction in TISSUES) {
      tissues[labels] = pixel(colour || TISSUES[prediction], alpha);
    }
    if (bits > 0.02) doubts[labels] = pixel(heat(bits), alpha * (0.35 + 0.65 * bits));
  }
  return { errors, tissues, doubts };
}

function paint(plane) { // the slice as two pictures of one pixel per voxel: grey levels, and fills
  const { volume, cursor } = state, { shape, strides, labels } = volume;
  const width = shape[plane.column], height = shape[plane.row], back = strides[plane.column];
  const levels = volume.images[state.modality].levels, greys = shades(), { errors, tissues, doubts } = fills(volume);
  const probabilities = state.layers.uncertainty && volume.probabilities[state.region === ALL ? "WT" : state.region];
  const grey = new ImageData(width, height), filled = new ImageData(width, height);
  const greyPixels = new Uint32Array(grey.data.buffer), fillPixels = new Uint32Array(filled.data.buffer);
  const fixed = cursor[plane.normal] * strides[plane.normal];
  for (let row = 0, at = 0; row < height; row++) {
    let index = fixed + (height - 1 - row) * strides[plane.row] + (width - 1) * back;
    for (let column = 0; column < width; column++, at++, index -= back) {
      greyPixels[at] = greys[levels[index]];
      fillPixels[at] = errors[labels[index]] || (probabilities && doubts[probabilities[index]]) || tissues[labels[index]];
    }
  }
  return [grey, filled];
}

function referenceOf(plane) { // the labels of the slice, with a border of background around them
  const { labels, shape, strides } = state.volume, width = shape[plane.column], height = shape[plane.row];
  const found = new Uint8Array((width + 2) * (height + 2)), fixed = state.cursor[plane.normal] * strides[plane.normal];
  for (let row = 0; row < height; row++) {
    const start = fixed + (height - 1 - row) * strides[plane.row], at = (row + 1) * (width + 2) + 1;
    for (let column = 0; column < width; column++) {
      found[at + column] = labels[start + (width - 1 - column) * strides[plane.column]] & 15;
    }
  }
  return found;
}

function outline(context, reference, width, inside, toX, toY) { // along the edges of voxels
  context.beginPath();
  for (let at = width + 2; at < reference.length; at++) {
    const here = inside[reference[at]], above = inside[reference[at - width - 2]], before = inside[reference[at - 1]];
    if (here === above && here === before) continue;
    const column = (at % (width + 2)) - 1, row = Math.floor(at / (width + 2)) - 1;
    if (here !== above) { context.moveTo(toX(column), toY(row)); context.lineTo(toX(column + 1), toY(row)); }
    if (here !== before) { context.moveTo(toX(column), toY(row)); context.lineTo(toX(column), toY(row + 1)); }
  }
  context.stroke();
}

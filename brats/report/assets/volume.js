// Cases of the viewer: read from the page, from a file beside it or from a dropped one, and inflated.
"use strict";

const KEPT = 4; // inflated cases, some 20 MB each
const CASES = DATA.viewer.cases;
const loaded = new Map();

class Beside extends Error {} // a case whose file the page may not read by itself

async function inflate(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes; // a server has inflated it already
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old to inflate the images");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function parse(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const n = header.shape.reduce((product, size) => product * size, 1);
  let at = 4 + length;
  const next = () => bytes.subarray(at, (at += n));
  const images = header.images.map((image) => ({ ...image, levels: next() }));
  const labels = next(), probabilities = {};
  for (const region of header.probabilities) probabilities[region] = next();
  if (at !== bytes.length) throw new Error("its length does not fit its header");
  return { ...header, images, labels, probabilities, strides: [header.shape[1] * header.shape[2], header.shape[2], 1] };
}

async function read(bytes) {
  const volume = parse(await inflate(bytes));
  loaded.delete(volume.case_id);
  loaded.set(volume.case_id, volume);
  while (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
  return volume;
}

function fromBase64(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

async function load(entry) {
  if (loaded.has(entry.id)) return loaded.get(entry.id);
  if (entry.inline) return read(fromBase64(document.getElementById(entry.inline).textContent));
  if (!location.protocol.startsWith("http")) throw new Beside(entry.file);
  const response = await fetch(entry.file);
  if (!response.ok) throw new Error(`${entry.file}: the server answers ${response.status}`);
  return read(new Uint8Array(await response.arrayBuffer()));
}

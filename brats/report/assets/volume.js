// Cases of the viewer: read from the page, from a file beside it or from a dropped one, and inflated.
"use strict";

const KEPT = 4; // inflated cases, some 20 MB each
const CASES = DATA.viewer.cases;
const loaded = new Map();

class Beside extends Error {} // a case whose file the page may not read by itself

async function inflate(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes; // a server has inflated it already
  if (!("DecompressionStream" in window)) throw new Error("this browser is too old to inflate the images");
  const { readable, writable } = new DecompressionStream("gzip"), writer = writable.getWriter();
  for (const written of [writer.write(bytes), writer.close()]) written.catch(() => {}); // the reader throws it, too
  const length = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4).getUint32(0, true);
  const inflated = new Uint8Array(length), reader = readable.getReader();
  for (let at = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return inflated;
    inflated.set(value, at);
    at += value.length;
  }
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
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text); // browsers since 2025
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) bytes[index] = binary.charCodeAt(index);
  return bytes;
}

async function carried(identity) { // the bytes of a case in the page, the end of which may still be on its way
  if (document.readyState === "loading" && identity !== CASES[0].inline) {
    await new Promise((parsed) => document.addEventListener("DOMContentLoaded", parsed, { once: true }));
  }
  return fromBase64(document.getElementById(identity).textContent);
}

async function load(entry) {
  if (loaded.has(entry.id)) return loaded.get(entry.id);
  if (entry.inline) return read(await carried(entry.inline));
  if (!location.protocol.startsWith("http")) throw new Beside(entry.file);
  const response = await fetch(entry.file);
  if (!response.ok) throw new Error(`${entry.file}: the server answers ${response.status}`);
  return read(new Uint8Array(await response.arrayBuffer()));
}

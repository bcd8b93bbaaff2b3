// Scores images away from the page's thread: decodes a file, makes its views, runs the model.
//
// Messages in: { id, task: "open" | "score", ... }. Messages out: { id, value }, { id, error } or { id, progress }.

import { makeViews } from "./views.js";

const FORMATS = "JPEG, PNG, WebP, GIF, BMP and AVIF";
const MOST_THREADS = 4; // more gain little at this size of model

let settings;
let ort;
let session;

self.onmessage = async ({ data: { id, task, ...options } }) => {
  try {
    const [value, transfer] =
      task === "open" ? await open(options, (progress) => self.postMessage({ id, progress })) : await score(options);
    self.postMessage({ id, value }, transfer);
  } catch (error) {
    self.postMessage({ id, error: error.message || String(error) });
  }
};

/**
 * Load the model and the first runtime that gives the expected score.
 *
 * @param {{site: object, runtime: string | null}} options Contents of `site.json`, and a runtime to insist on.
 * @param {(share: number) => void} report Called with the share of bytes that have arrived.
 */
async function open({ site, runtime }, report) {
  settings = site;
  const kinds = runtime ? [runtime] : (await hasGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  const model = await fetchBytes(site.model, (share) => report(share / 2));
  let reason;
  for (const kind of kinds) {
    try {
      await start(kind, model, (share) => report(0.5 + share / 2));
      return [{ runtime: kind, threads: kind === "wasm" ? ort.env.wasm.numThreads : 1 }, []];
    } catch (error) {
      reason = error;
    }
  }
  throw reason;
}

async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

async function start(kind, model, report) {
  const files = settings.runtime[kind];
  if (!files) throw new Error(`This site has no runtime “${kind}”.`);
  const binary = await fetchBytes(files.binary, report);
  ort = await import(new URL(files.module, import.meta.url).href);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  session = await ort.InferenceSession.create(model, { executionProviders: [kind], logSeverityLevel: 3 });
  const { quality } = await run(checkViews(settings.view_size));
  const difference = Math.abs(quality - settings.check.quality);
  if (!(difference <= settings.check.tolerance)) {
    throw new Error(`The runtime “${kind}” gives another score for the check than expected (by ${difference}).`);
  }
}

/** Make the views whose score `site.json` states: a pattern that needs no file. */
function checkViews(size) {
  const views = { pairs: 1, global: new Uint8Array(3 * size * size), local: new Uint8Array(3 * size * size) };
  for (let channel = 0, at = 0; channel < 3; channel++) {
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++, at++) {
        views.global[at] = (x * 3 + y * (channel + 1)) % 256;
        views.local[at] = (((x >> 3) * 37 + (y >> 3) * 59) * (channel + 1)) % 256;
      }
    }
  }
  return views;
}

/** Fetch a file, which may be packed by gzip, as bytes. */
async function fetchBytes({ file, bytes }, report) {
  const response = await fetch(new URL(file, import.meta.url));
  if (!response.ok) throw new Error(`${file} could not be loaded (${response.status}).`);
  let arrived = 0;
  const counted = response.body.pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        arrived += chunk.length;
        report(Math.min(1, arrived / bytes));
        controller.enqueue(chunk);
      },
    }),
  );
  const found = new Uint8Array(await new Response(counted).arrayBuffer());
  // Some servers unpack such files themselves.
  const packed = file.endsWith(".gz") && found[0] === 0x1f && found[1] === 0x8b;
  if (!packed) return found;
  const unpacked = new Blob([found]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

/**
 * Score one file.
 *
 * @param {{file: Blob, side: number}} options The file, and the longest side of the preview to return, in pixels.
 * @returns Score, quality map in points above or below its mean (49 numbers, or null), size and preview.
 */
async function score({ file, side }) {
  const bitmap = await decode(file);
  try {
    const { width, height } = bitmap;
    const { quality, map } = await run(makeViews(pixelsOf(bitmap), settings));
    if (!Number.isFinite(quality)) throw new Error("the model gave no finite score");
    const preview = shrink(bitmap, side);
    return [{ score: quality, map, width, height, preview }, [preview]];
  } finally {
    bitmap.close();
  }
}

async function run({ pairs, global, local }) {
  const size = settings.view_size;
  const feeds = { pixel_values: new ort.Tensor("uint8", global, [pairs, 3, size, size]) };
  if (session.inputNames.includes("local_pixel_values")) {
    feeds.local_pixel_values = new ort.Tensor("uint8", local, [pairs, 3, size, size]);
  }
  const found = await session.run(feeds);
  const quality = mean(found.quality.data);
  if (!found.quality_map) return { quality, map: null };
  const cells = found.quality_map.data.length / pairs;
  const raw = Array.from({ length: cells }, (_, cell) => {
    return mean(Array.from({ length: pairs }, (_, pair) => found.quality_map.data[pair * cells + cell]));
  });
  const middle = mean(raw);
  return { quality, map: Float32Array.from(raw, (value) => settings.score_scale * (value - middle)) };
}

async function decode(file) {
  const { limits } = settings;
  if (file.size === 0) throw new Error("is empty");
  if (file.size > limits.bytes) {
    throw new Error(`${megabytes(file.size)} MB is over the limit of ${megabytes(limits.bytes)} MB; save it smaller`);
  }
  const kind = kindOf(new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  let bitmap;
  try {
    const { blob, orientation } = kind === "WebP" ? await takeOrientation(file) : { blob: file, orientation: 1 };
    // A decoder that multiplies colors by alpha may round them down, as WebP's does. The canvas below rounds to the nearest.
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none" });
    bitmap = orientation === 1 ? bitmap : turn(bitmap, orientation);
  } catch {
    throw new Error(
      kind
        ? `damaged ${kind} file: it could not be read to the end`
        : `not an image that this browser reads; it reads ${FORMATS}`,
    );
  }
  if (bitmap.width * bitmap.height > limits.pixels) {
    const pixels = `${bitmap.width} × ${bitmap.height} pixels`;
    bitmap.close();
    throw new Error(`${pixels} is over the limit of ${Math.round(limits.pixels / 1e6)} megapixels; save it smaller`);
  }
  return bitmap;
}

function kindOf(head) {
  const text = String.fromCharCode(...head);
  if (text.startsWith("\xff\xd8\xff")) return "JPEG";
  if (text.startsWith("\x89PNG")) return "PNG";
  if (text.startsWith("GIF8")) return "GIF";
  if (text.startsWith("BM")) return "BMP";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  if (text.slice(4, 12) === "ftypavif") return "AVIF";
  return null;
}

/**
 * Take the EXIF orientation out of a WebP file. Browsers turn JPEG and PNG files; of WebP files, some do and some do not.
 *
 * @returns {Promise<{blob: Blob, orientation: number}>} A copy that no browser turns, and the orientation that is left to apply.
 */
async function takeOrientation(file) {
  const data = new DataView(await file.arrayBuffer());
  for (let at = 12; at + 8 <= data.byteLength; ) {
    const size = data.getUint32(at + 4, true);
    if (data.getUint32(at) === 0x45584946) {
      const orientation = replaceOrientation(data, at + 8, size);
      return { blob: new Blob([data]), orientation };
    }
    at += 8 + size + (size % 2);
  }
  return { blob: file, orientation: 1 };
}

/** Set the orientation in EXIF to 1, and return its old value; EXIF that cannot be read turns nothing. */
function replaceOrientation(data, start, size) {
  try {
    const exif = new DataView(data.buffer, start, size);
    const little = exif.getUint16(0) === 0x4949;
    const entries = exif.getUint32(4, little);
    for (let number = 0; number < exif.getUint16(entries, little); number++) {
      const entry = entries + 2 + 12 * number;
      if (exif.getUint16(entry, little) !== 0x0112) continue;
      const orientation = exif.getUint16(entry + 8, little);
      exif.setUint16(entry + 8, 1, little);
      return orientation >= 1 && orientation <= 8 ? orientation : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function turn(bitmap, orientation) {
  const { width, height } = bitmap;
  const canvas = orientation > 4 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  // Directions of the columns and the rows of the file, and the place of its first pixel.
  const places = {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  };
  context.setTransform(...places[orientation]);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

/** Read an image in strips, on white where it is transparent. */
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  let canvas;
  return {
    width,
    height,
    readRows(top, count) {
      if (canvas?.canvas.height !== count) {
        canvas = new OffscreenCanvas(width, count).getContext("2d", { alpha: false, willReadFrequently: true });
        canvas.imageSmoothingEnabled = false;
        canvas.fillStyle = "white";
      }
      canvas.fillRect(0, 0, width, count);
      canvas.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
      return canvas.getImageData(0, 0, width, count).data;
    },
  };
}

function shrink(bitmap, side) {
  const factor = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * factor)));
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, ...size);
  context.drawImage(bitmap, 0, 0, ...size);
  return canvas.transferToImageBitmap();
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function megabytes(bytes) {
  return Math.round(bytes / 2 ** 20);
}

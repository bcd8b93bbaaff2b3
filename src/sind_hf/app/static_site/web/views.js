// From the pixels of one image to the two views of SIND, as `image_processing_sind.py` makes them.
//
// The antialiased bilinear resize is the fixed-point algorithm of Pillow and of torch: one pass along the rows, one
// along the columns, each rounded to 8 bits. They differ only in the number of bits of their weights.
// Images are RGB bytes, row by row: { data, width, height }.

const GRID = 7; // fragments per side of the local view
const MAX_FULL_ASPECT = 8; // above it, only the strips that fragments come from are resized
const STRIP_PIXELS = 2 ** 20; // source pixels that are held as RGBA at once
const NINE_GLOBAL = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]];
const NINE_LOCAL = [[0, 0], [0, 2], [2, 0], [2, 2], [1, 1], [1, 0], [1, 2], [0, 1], [2, 1]];

/**
 * Make the views of one image.
 *
 * @param {{width: number, height: number, readRows: (top: number, count: number) => Uint8ClampedArray}} source
 *     Upright image; `readRows` returns RGBA bytes, of which alpha is not read.
 * @param {{view_size: number, views: "center" | "nine", resize_backend: "torch" | "pillow"}} settings
 * @returns {{pairs: number, global: Uint8Array, local: Uint8Array}} Both views, (pairs, 3, s, s) each.
 */
export function makeViews(source, settings) {
  const size = settings.view_size;
  const side = (8 * size) / 7;
  const local = localSize(source.width, source.height, size);
  const long = Math.max(local.width, local.height) > MAX_FULL_ASPECT * Math.min(local.width, local.height);
  const backend = long ? "pillow" : settings.resize_backend;
  const globalImage = resize(source, side, side, backend);
  const localImage = long ? null : resize(source, local.width, local.height, backend);
  const plans = planViews(settings.views, local, size);
  const views = {
    pairs: plans.length,
    global: new Uint8Array(plans.length * 3 * size * size),
    local: new Uint8Array(plans.length * 3 * size * size),
  };
  plans.forEach((plan, pair) => {
    const start = pair * 3 * size * size;
    copyPlanes(globalImage, range(plan.top, size), range(plan.left, size), views.global, start);
    const ys = fragmentIndices(plan.row, local.height, size);
    const xs = fragmentIndices(plan.column, local.width, size);
    if (localImage) {
      copyPlanes(localImage, ys, xs, views.local, start);
    } else if (local.width >= local.height) {
      copyPlanes(joinStrips(source, local, xs, true), ys, range(0, size), views.local, start);
    } else {
      copyPlanes(joinStrips(source, local, ys, false), range(0, size), xs, views.local, start);
    }
  });
  return views;
}

/** Return the size of the image that fragments come from: its short side is three views long. */
export function localSize(width, height, viewSize) {
  const short = 3 * viewSize;
  return width <= height
    ? { width: short, height: Math.trunc((short * height) / width) }
    : { width: Math.trunc((short * width) / height), height: short };
}

/** Compute where every pair of views is cut: the global crop, and the offset of fragments inside their cells. */
export function planViews(mode, local, viewSize) {
  const margin = (8 * viewSize) / 7 - viewSize;
  const roomY = Math.floor(local.height / GRID) - viewSize / GRID;
  const roomX = Math.floor(local.width / GRID) - viewSize / GRID;
  const at = (global, fragment) => ({
    top: Math.floor((margin * global[0]) / 2),
    left: Math.floor((margin * global[1]) / 2),
    row: Math.floor((roomY * fragment[0]) / 2),
    column: Math.floor((roomX * fragment[1]) / 2),
  });
  return mode === "nine" ? NINE_GLOBAL.map((place, pair) => at(place, NINE_LOCAL[pair])) : [at([1, 1], [1, 1])];
}

/**
 * Resize an image, or a box of it.
 *
 * @param {object} source See `makeViews`.
 * @param {number} width Width of the result.
 * @param {number} height Height of the result.
 * @param {"torch" | "pillow"} backend Library whose rounding is followed.
 * @param {number[]} box Left, top, right and bottom, in pixels of the source; default: all of it.
 */
export function resize(source, width, height, backend, box = [0, 0, source.width, source.height]) {
  const across = weights(source.width, box[0], box[2], width, backend);
  const down = weights(source.height, box[1], box[3], height, backend);
  const first = down.starts[0];
  const rows = down.starts[height - 1] + down.counts[height - 1] - first;
  const narrow = new Uint8Array(rows * width * 3);
  const step = Math.max(1, Math.floor(STRIP_PIXELS / source.width));
  for (let top = 0; top < rows; top += step) {
    const count = Math.min(step, rows - top);
    resizeRows(source.readRows(first + top, count), source.width, count, across, narrow, top * width * 3);
  }
  return { data: resizeColumns(narrow, width * 3, first, down), width, height };
}

/** Compute which source pixels every pixel of the result is the weighted mean of, and their weights in fixed point. */
function weights(sourceSize, from, to, size, backend) {
  const scale = (to - from) / size;
  const support = Math.max(scale, 1);
  const widest = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(size);
  const counts = new Int32Array(size);
  const exact = new Float64Array(size * widest);
  let largest = 0;
  for (let i = 0; i < size; i++) {
    const center = from + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(sourceSize, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      const distance = Math.abs((k + start - center + 0.5) * (1 / support));
      const weight = distance < 1 ? 1 - distance : 0;
      exact[i * widest + k] = weight;
      sum += weight;
    }
    for (let k = 0; k < count; k++) {
      exact[i * widest + k] /= sum;
      largest = Math.max(largest, exact[i * widest + k]);
    }
    starts[i] = start;
    counts[i] = count;
  }
  let bits = 22;
  if (backend === "torch") {
    bits = 0; // its weights are 16-bit integers: as many bits as the largest of them leaves
    while (bits < 22 && 0.5 + largest * 2 ** (bits + 1) < 2 ** 15) bits++;
  }
  const fixed = Int32Array.from(exact, (weight) => Math.trunc(0.5 + weight * 2 ** bits));
  return { starts, counts, widest, fixed, bits };
}

function resizeRows(rgba, sourceWidth, rows, { starts, counts, widest, fixed, bits }, target, at) {
  const half = 1 << (bits - 1);
  for (let y = 0; y < rows; y++) {
    const row = y * sourceWidth * 4;
    for (let x = 0; x < starts.length; x++) {
      let red = half;
      let green = half;
      let blue = half;
      let weightAt = x * widest;
      const end = weightAt + counts[x];
      for (let from = row + starts[x] * 4; weightAt < end; from += 4) {
        const weight = fixed[weightAt++];
        red += Math.imul(rgba[from], weight);
        green += Math.imul(rgba[from + 1], weight);
        blue += Math.imul(rgba[from + 2], weight);
      }
      target[at++] = clip(red >> bits);
      target[at++] = clip(green >> bits);
      target[at++] = clip(blue >> bits);
    }
  }
}

function resizeColumns(source, stride, first, { starts, counts, widest, fixed, bits }) {
  const target = new Uint8Array(starts.length * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < starts.length; y++) {
    sums.fill(1 << (bits - 1));
    for (let k = 0; k < counts[y]; k++) {
      const weight = fixed[y * widest + k];
      const row = (starts[y] - first + k) * stride;
      for (let x = 0; x < stride; x++) sums[x] += Math.imul(source[row + x], weight);
    }
    for (let x = 0; x < stride; x++) target[y * stride + x] = clip(sums[x] >> bits);
  }
  return target;
}

/** Resize the seven strips of a long image that hold fragments, and join them. */
function joinStrips(source, local, indices, wide) {
  const fragment = indices.length / GRID;
  const joined = wide
    ? { data: new Uint8Array(indices.length * local.height * 3), width: indices.length, height: local.height }
    : { data: new Uint8Array(local.width * indices.length * 3), width: local.width, height: indices.length };
  const scale = wide ? source.width / local.width : source.height / local.height;
  for (let strip = 0; strip < GRID; strip++) {
    // Pillow takes the box in single precision.
    const start = Math.fround(indices[strip * fragment] * scale);
    const stop = Math.fround((indices[strip * fragment] + fragment) * scale);
    if (wide) {
      const part = resize(source, fragment, local.height, "pillow", [start, 0, stop, source.height]);
      for (let y = 0; y < local.height; y++) {
        const row = part.data.subarray(y * fragment * 3, (y + 1) * fragment * 3);
        joined.data.set(row, (y * joined.width + strip * fragment) * 3);
      }
    } else {
      const part = resize(source, local.width, fragment, "pillow", [0, start, source.width, stop]);
      joined.data.set(part.data, strip * fragment * local.width * 3);
    }
  }
  return joined;
}

/** Copy the pixels at rows `ys` and columns `xs` as three planes. */
function copyPlanes(image, ys, xs, target, at) {
  for (let channel = 0; channel < 3; channel++) {
    for (const y of ys) {
      for (const x of xs) target[at++] = image.data[(y * image.width + x) * 3 + channel];
    }
  }
}

function fragmentIndices(offset, side, viewSize) {
  const cell = Math.floor(side / GRID);
  const fragment = viewSize / GRID;
  return Array.from({ length: viewSize }, (_, i) => Math.floor(i / fragment) * cell + offset + (i % fragment));
}

function range(start, length) {
  return Array.from({ length }, (_, i) => start + i);
}

function clip(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

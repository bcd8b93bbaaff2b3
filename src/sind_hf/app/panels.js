// Draws results: scores in words, quality maps, tables and comparisons. The page with a server and the page of plain
// files share this file.
//
// A result is { name, score, percentile, map, preview } or { name, error }: `percentile` is between 0 and 100, or null
// without reference scores; `map` holds the points of every part above or below the mean of its image, row by row, or
// is null; `preview` is an image that a canvas can draw.

const TOUCH = matchMedia("(pointer: coarse)").matches;
const CHOOSE = TOUCH ? "choose or take a photo" : "choose or drop";

/** What the upload fields say. */
export const INSTRUCTIONS = {
  choose: TOUCH ? "Choose or take a photo" : "Choose images or drop them here",
  more: "Score more",
  A: `Image A: ${CHOOSE}`,
  B: `Image B: ${CHOOSE}`,
};

const MAP_STRENGTH = 0.5; // of the colors over the image, at first
const SLIGHT = 0.05; // share of the range; smaller differences are slight
const FLAT = 0.02; // share of the range; smaller differences between the parts say nothing

let facts;

/**
 * Say which scale the scores are on. Call this before anything is drawn.
 *
 * @param {object} about What `sind_hf.app.panels.page_facts` returns.
 */
export function setFacts(about) {
  facts = about;
}

/**
 * Make the panel of one image, the table of several, or the comparison of two.
 *
 * @param {"score" | "batch" | "compare"} kind
 * @param {object[]} results
 */
export function panelOf(kind, results) {
  if (kind === "compare") return comparisonPanel(results);
  return kind === "score" ? scorePanel(results[0]) : batchPanel(results);
}

export function bringIntoSight(panel) {
  const { top } = panel.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) panel.scrollIntoView();
}

// --- words ------------------------------------------------------------------------------------------------------

function shown(score) {
  return score.toFixed(facts.digits).replace("-", "−");
}

function points(difference) {
  return (difference >= 0 ? "+" : "−") + Math.abs(difference).toFixed(facts.digits);
}

function scaleInWords() {
  if (!facts.score_range) return "on no declared range; higher is better";
  return `on a scale of ${facts.score_range[0]} to ${facts.score_range[1]}; higher is better`;
}

function rankInWords(percentile) {
  const images = `of the ${facts.reference_size.toLocaleString("en")} reference images`;
  if (percentile >= 99.5) return `Higher than more than 99 % ${images}.`;
  if (percentile < 0.5) return `Higher than less than 1 % ${images}.`;
  return `Higher than ${Math.round(percentile)} % ${images}.`;
}

/** Return the number of the band that a score is in, and its word; null where there are no bands. */
function bandOf(score) {
  let found = null;
  facts.bands.forEach(({ word, least }, number) => {
    if (least === null || score >= least) found = { word, number };
  });
  return found;
}

// --- parts of the page ------------------------------------------------------------------------------------------

/** Make an element. Properties are those of the element; `attributes` and `style` are set one by one. */
export function make(tag, { attributes = {}, style = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  Object.assign(element.style, style);
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function complaints(messages) {
  if (!messages.length) return null;
  const lines = messages.map((message) => make("li", {}, message));
  return make("div", { className: "complaint", attributes: { role: "alert" } }, make("ul", {}, ...lines));
}

function scoreLine(score, { large }) {
  const band = bandOf(score);
  const word = band && make("span", { className: `word${large ? " large" : ""} band-${band.number}` }, band.word);
  const scale = large ? make("span", { className: "scale" }, scaleInWords()) : null;
  return make("p", { className: "score" }, make("strong", {}, shown(score)), " ", word, scale);
}

/** Make a bar that ends where a score lies; scores are not clipped to the range, the bar is. */
function bar(score) {
  if (!facts.score_range) return null;
  const [low, high] = facts.score_range;
  const place = Math.min(Math.max((score - low) / (high - low), 0), 1);
  const band = bandOf(score);
  return make(
    "div",
    { className: `bar${band ? ` band-${band.number}` : ""}`, attributes: { "aria-hidden": "true" } },
    make("div", { style: { width: `${100 * place}%` } }),
  );
}

function barWithEnds(score) {
  if (!facts.score_range) return null;
  const [low, high] = facts.score_range;
  return make(
    "div",
    {},
    bar(score),
    make("div", { className: "ends" }, make("span", {}, `${low} worst`), make("span", {}, `${high} best`)),
    score < low || score > high
      ? make("p", { className: "note" }, "Outside the scale: scores are not clipped to it.")
      : null,
  );
}

function rank(result) {
  return result.percentile === null ? null : make("p", {}, rankInWords(result.percentile));
}

// --- quality maps -----------------------------------------------------------------------------------------------

/** Return the value that is shown in full color: pale is the mean of an image's parts. */
function mapLimit(results) {
  return Math.max(...results.map(({ map }) => Math.max(...map.map(Math.abs)))) || 1;
}

/** Make a canvas of an image under its map, and a function that draws it with colors of a strength from 0 to 1. */
function drawMap(result, limit) {
  const { preview, map, name } = result;
  const canvas = make("canvas", { width: preview.width, height: preview.height });
  const context = canvas.getContext("2d");
  const cells = map && tint(map, limit);
  const words = map ? `${name}, with its quality map` : name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  const draw = (strength) => {
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = 1;
    context.drawImage(preview, 0, 0);
    if (!cells || !strength) return;
    context.globalCompositeOperation = "saturation"; // colors of the image would be taken for those of the map
    context.globalAlpha = Math.min(1, 3 * strength);
    context.fillStyle = "gray";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = strength;
    context.imageSmoothingQuality = "high";
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  };
  draw(map ? MAP_STRENGTH : 0);
  return { canvas, draw };
}

function tint(map, limit) {
  const side = Math.sqrt(map.length);
  const image = new ImageData(side, side);
  map.forEach((value, cell) => {
    const place = ((Math.min(Math.max(value / limit, -1), 1) + 1) / 2) * (facts.map_colors.length - 1);
    const left = Math.min(Math.floor(place), facts.map_colors.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [facts.map_colors[left][channel], facts.map_colors[left + 1][channel]];
      image.data[4 * cell + channel] = from + (to - from) * (place - left);
    }
    image.data[4 * cell + 3] = 255;
  });
  const canvas = make("canvas", { width: side, height: side });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Make the figure of an image with its map: strength by a slider, values under the pointer or the arrow keys. */
function mapFigure(result, limit) {
  const { canvas, draw } = drawMap(result, limit);
  if (!result.map) return make("figure", {}, canvas);
  const side = Math.sqrt(result.map.length);
  const how = TOUCH ? "Touch the image" : "Point at the image, or use the arrow keys,";
  const values = make("output", { className: "values" }, `${how} to read its parts.`);
  let cell = [0, 0];
  const read = (row, column) => {
    cell = [row, column].map((place) => Math.min(Math.max(place, 0), side - 1));
    const value = result.map[cell[0] * side + cell[1]];
    values.textContent = `Row ${cell[0] + 1}, column ${cell[1] + 1}: ${points(value)} points`;
  };
  canvas.tabIndex = 0;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    // The image may be shown smaller than its box, as in a comparison.
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const x = (event.clientX - box.left - (box.width - canvas.width * scale) / 2) / (canvas.width * scale);
    const y = (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / (canvas.height * scale);
    if (x >= 0 && x < 1 && y >= 0 && y < 1) read(Math.floor(y * side), Math.floor(x * side));
  };
  for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, point);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    read(cell[0] + move[0], cell[1] + move[1]);
  });
  const slider = make("input", { type: "range", min: 0, max: 100, value: 100 * MAP_STRENGTH });
  slider.addEventListener("input", () => draw(slider.value / 100));
  return make("figure", {}, canvas, make("label", {}, "Quality map, from none to strong", slider), values);
}

function legend(results, limit) {
  const maps = results.map(({ map }) => map).filter(Boolean);
  if (!maps.length) {
    return make("p", { className: "note" }, "This model makes no quality map: it reads no parts of the image.");
  }
  const stops = facts.map_colors.map((color) => `rgb(${color.join(" ")})`).join(", ");
  const worst = Math.min(...maps.map((map) => Math.min(...map)));
  const best = Math.max(...maps.map((map) => Math.max(...map)));
  const ends = (...texts) => make("div", { className: "ends" }, ...texts.map((text) => make("span", {}, text)));
  const span = facts.score_range ? facts.score_range[1] - facts.score_range[0] : null;
  const flat = span && best - worst < FLAT * span;
  return make(
    "div",
    { className: "legend" },
    ends("red: worse", "pale: average", "blue: better"),
    make("div", { className: "ramp", style: { background: `linear-gradient(to right, ${stops})` } }),
    ends(points(-limit), "0", points(limit)),
    flat
      ? make("p", {}, "The parts hardly differ: the score comes from the image as a whole.")
      : make(
          "p",
          {},
          "Red parts pull the score down, blue parts push it up. If the whole image were like its worst part, the score " +
            `would change by ${points(worst)}; like its best part, by ${points(best)}. ` +
            (maps.length > 1 ? "Both maps share these colors. " : "") +
            "What the model sees in the image as a whole is not in the map.",
        ),
  );
}

// --- one or several images --------------------------------------------------------------------------------------

function scorePanel(result) {
  if (result.error !== undefined) return complaints([result.error]);
  const limit = result.map ? mapLimit([result]) : 1;
  return make(
    "section",
    {},
    make("h2", {}, result.name),
    scoreLine(result.score, { large: true }),
    barWithEnds(result.score),
    rank(result),
    mapFigure(result, limit),
    legend([result], limit),
  );
}

function batchPanel(results) {
  const scored = results.filter(({ error }) => error === undefined);
  const failed = results.filter(({ error }) => error !== undefined).map(({ error }) => error);
  const count = failed.length ? `${scored.length} of ${results.length}` : scored.length;
  const title = make("h2", {}, `${count} images scored`);
  if (!scored.length) return make("section", {}, title, complaints(failed));
  const table = make("table");
  const threshold = thresholdSlider(scored);
  const kept = make("output", {});
  let order = { key: "score", down: true };
  const draw = () => {
    const sorted = [...scored].sort((a, b) => compareBy(order.key, a, b) * (order.down ? -1 : 1));
    table.replaceChildren(tableHead(order, sort), ...sorted.map(tableRow));
    mark();
  };
  const sort = (key) => {
    order = { key, down: order.key === key ? !order.down : key !== "name" };
    draw();
    table.querySelector(`[data-key="${key}"]`).focus();
  };
  const least = () => Number(threshold.value);
  const mark = () => {
    for (const body of table.tBodies) {
      const below = Number(body.dataset.score) < least();
      body.classList.toggle("below", below);
      body.querySelector(".left-out").hidden = !below;
    }
    const number = scored.filter(({ score }) => score >= least()).length;
    kept.textContent = `Keep images that score ${shown(least())} or more: ${number} of ${scored.length}`;
  };
  threshold.addEventListener("input", mark);
  draw();
  const buttons = make(
    "div",
    { className: "buttons" },
    saveButton("Download CSV", "scores.csv", "text/csv", () => `\ufeff${scoresCsv(results)}`),
    saveButton("Download the list of kept files", "kept.txt", "text/plain", () =>
      scored.filter(({ score }) => score >= least()).map(({ name }) => `${name}\n`).join(""),
    ),
  );
  const compared = facts.reference_size
    ? ` “Higher than” compares with ${facts.reference_size.toLocaleString("en")} reference images.`
    : "";
  return make(
    "section",
    {},
    make("div", { className: "head" }, title, buttons),
    complaints(failed),
    make("p", { className: "note" }, `Scores are ${scaleInWords()}.${compared}`),
    make("label", { className: "threshold" }, kept, threshold),
    table,
  );
}

function thresholdSlider(scored) {
  const scores = scored.map(({ score }) => score);
  const step = 10 ** -facts.digits;
  const low = Math.floor(Math.min(...scores) / step) * step;
  const high = Math.ceil(Math.max(...scores) / step) * step;
  return make("input", { type: "range", min: low, max: high, step, value: low });
}

function compareBy(key, a, b) {
  return key === "name" ? a.name.localeCompare(b.name) : a.score - b.score;
}

function tableHead({ key, down }, sort) {
  const column = (name, text, className) => {
    const arrow = name === key ? (down ? " ↓" : " ↑") : "";
    const button = make("button", { type: "button", attributes: { "data-key": name } }, text, arrow);
    button.addEventListener("click", () => sort(name));
    const order = name === key ? { "aria-sort": down ? "descending" : "ascending" } : {};
    return make("th", { scope: "col", className, attributes: order }, button);
  };
  return make(
    "thead",
    {},
    make(
      "tr",
      {},
      column("name", "Image", ""),
      column("score", "Score", "number"),
      facts.reference_size ? make("th", { scope: "col", className: "number" }, "Higher than") : null,
    ),
  );
}

function tableRow(result) {
  const thumbnail = make("canvas", { width: result.preview.width, height: result.preview.height });
  thumbnail.setAttribute("aria-hidden", "true");
  thumbnail.getContext("2d").drawImage(result.preview, 0, 0);
  const name = make("div", {}, make("span", {}, result.name), make("small", { className: "left-out" }, "left out"));
  const row = make(
    "tr",
    {},
    make("td", {}, make("div", { className: "name" }, thumbnail, name)),
    make("td", { className: "number" }, scoreCell(result.score), bar(result.score)),
    result.percentile === null ? null : make("td", { className: "number" }, `${Math.round(result.percentile)} %`),
  );
  const body = make("tbody", { attributes: { "data-score": result.score } }, row);
  if (result.map) {
    const details = make("details", {}, make("summary", {}, "Quality map"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      const limit = mapLimit([result]);
      details.append(mapFigure(result, limit), legend([result], limit));
    });
    const columns = result.percentile === null ? 2 : 3;
    body.append(make("tr", {}, make("td", { colSpan: columns }, details)));
  }
  return body;
}

function scoreCell(score) {
  const band = bandOf(score);
  return make(
    "span",
    {},
    make("strong", {}, shown(score)),
    band && make("span", { className: `word band-${band.number}` }, ` ${band.word}`),
  );
}

/** Return the results as `sind-hf score` writes them, in the order of the files. */
function scoresCsv(results) {
  const columns = ["image", "score", "error", ...(facts.reference_size ? ["percentile"] : [])];
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const rows = results.map((result) => columns.map((name) => cell(String((name === "image" ? result.name : result[name]) ?? ""))));
  return [columns, ...rows].map((row) => `${row.join(",")}\n`).join("");
}

function saveButton(text, name, type, contents) {
  const button = make("button", { type: "button" }, text);
  button.addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([contents()], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
  return button;
}

// --- two images -------------------------------------------------------------------------------------------------

function comparisonPanel(results) {
  const failed = results.filter(({ error }) => error !== undefined).map(({ error }) => error);
  if (failed.length) return complaints(failed);
  const [a, b] = results;
  const difference = a.score - b.score;
  const equal = shown(a.score) === shown(b.score);
  const range = facts.score_range && facts.score_range[1] - facts.score_range[0];
  const slightly = range && Math.abs(difference) < SLIGHT * range ? "slightly " : "";
  const headline = equal
    ? "Both look equally good"
    : `${difference > 0 ? "A" : "B"} looks ${slightly}better, by ${shown(Math.abs(difference))} points`;
  const limit = results.every(({ map }) => map) ? mapLimit(results) : 1;
  const sides = results.map((result, side) => {
    const better = !equal && difference > 0 === (side === 0);
    return make(
      "div",
      { className: `side${better ? " better" : ""}` },
      make("h3", {}, `${"AB"[side]}: ${result.name}`),
      scoreLine(result.score, { large: false }),
      barWithEnds(result.score),
      rank(result),
      mapFigure(result, limit),
    );
  });
  return make(
    "section",
    {},
    make("h2", {}, headline),
    make("p", { className: "note" }, `Scores are ${scaleInWords()}.`),
    make("div", { className: "sides" }, ...sides),
    legend(results, limit),
  );
}

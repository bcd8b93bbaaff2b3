// The page: takes files, asks the worker for scores, shows them. Nothing here leaves the browser.

const MAP_STRENGTH = 0.5; // of the colors over the image, at first
const PREVIEW_SIDE = 1024; // pixels of a single image or a compared one
const ROW_SIDE = 360; // pixels of an image in the table
const SLIGHT = 0.05; // share of the range; smaller differences are slight
const FLAT = 0.02; // share of the range; smaller differences between the parts say nothing
const EQUAL = 1e-4; // as in the percentiles of the package: relative to scores above 1

const site = await (await fetch("site.json")).json();
const scorer = openScorer();
const status = byId("status");
const progress = byId("progress");
let job = 0; // counts what the visitor asked for: whatever is older ends
let stopped = false; // the visitor wants what is scored so far

setUpTabs();
setUpScoring();
setUpComparing();
showExamples();
await keepForLater();
await scorer.opened.then(
  ({ runtime, threads }) => {
    document.documentElement.dataset.runtime = `${runtime} ${threads}`;
    if (!job) tell("Ready.");
  },
  (error) => tell(`The model could not be loaded: ${error.message} Reload the page to try again.`),
);

// --- the worker -------------------------------------------------------------------------------------------------

/** Start the worker. It is made from a blob, so that it is bound by the policy of this page. */
function openScorer() {
  const script = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const waiting = new Map();
  let worker;
  let count = 0;
  let markOpen;
  const ask = (message, onProgress) =>
    new Promise((resolve, reject) => {
      waiting.set(++count, { resolve, reject, onProgress });
      worker.postMessage({ ...message, id: count });
    });
  return {
    opened: new Promise((resolve) => (markOpen = resolve)),
    start() {
      worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
      worker.onmessage = ({ data: { id, value, error, progress: share } }) => {
        if (share !== undefined) return waiting.get(id).onProgress?.(share);
        const { resolve, reject } = waiting.get(id);
        waiting.delete(id);
        return error === undefined ? resolve(value) : reject(new Error(error));
      };
      worker.onerror = (event) => {
        const error = new Error(event.message || "a file of this site could not be loaded.");
        for (const { reject } of waiting.values()) reject(error);
        waiting.clear();
      };
      const runtime = new URLSearchParams(location.search).get("runtime");
      markOpen(ask({ task: "open", site, runtime }, (share) => {
        if (!job) tell(`Loading the model … ${Math.round(100 * share)} %`, share);
      }));
    },
    /** Score a file; a failure becomes a result with an `error`. */
    async score(file, name, side) {
      try {
        await this.opened;
        const found = await ask({ task: "score", file, side });
        return { name, ...found, percentile: percentileOf(found.score) };
      } catch (error) {
        return { name, error: `${name}: ${error.message}` };
      }
    },
  };
}

/** Install the service worker, and let it answer before the model is fetched, so that it keeps what is fetched. */
async function keepForLater() {
  try {
    const registration = await navigator.serviceWorker.register("service-worker.js");
    const coming = registration.installing ?? registration.waiting;
    if (!navigator.serviceWorker.controller && coming) {
      await new Promise((resolve) => {
        navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
        coming.addEventListener("statechange", () => coming.state === "redundant" && resolve());
      });
    }
  } catch {
    // Without one (a plain http address, a private window) the page works, with a network.
  }
  scorer.start();
}

// --- words ------------------------------------------------------------------------------------------------------

function shown(score) {
  return score.toFixed(site.digits).replace("-", "−");
}

function points(difference) {
  return (difference >= 0 ? "+" : "−") + Math.abs(difference).toFixed(site.digits + 1);
}

function scaleInWords() {
  if (!site.score_range) return "on no declared range; higher is better";
  return `on a scale of ${site.score_range[0]} to ${site.score_range[1]}; higher is better`;
}

/** Return the share of the reference scores below a score, in percent; of equal ones half counts as below. */
function percentileOf(score) {
  if (!site.reference.length) return null;
  const margin = EQUAL * Math.max(1, Math.abs(score));
  const below = site.reference.filter((each) => each < score - margin).length;
  const upTo = site.reference.filter((each) => each <= score + margin).length;
  return (50 * (below + upTo)) / site.reference.length;
}

function rankInWords(percentile) {
  const images = `of the ${site.reference.length.toLocaleString("en")} reference images`;
  if (percentile >= 99.5) return `Higher than more than 99 % ${images}.`;
  if (percentile < 0.5) return `Higher than less than 1 % ${images}.`;
  return `Higher than ${Math.round(percentile)} % ${images}.`;
}

/** Return the number of the band that a score is in, and its word; null where the site has no bands. */
function bandOf(score) {
  let found = null;
  site.bands.forEach(({ word, least }, number) => {
    if (least === null || score >= least) found = { word, number };
  });
  return found;
}

function tell(text, share) {
  status.textContent = text;
  progress.hidden = share === undefined;
  if (share !== undefined) progress.value = share;
}

// --- parts of the page ------------------------------------------------------------------------------------------

function byId(id) {
  return document.getElementById(id);
}

/** Make an element. Properties are those of the element; `attributes` and `style` are set one by one. */
function make(tag, { attributes = {}, style = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  Object.assign(element.style, style);
  element.append(...children.filter((child) => child !== null));
  return element;
}

function complaints(messages) {
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
  if (!site.score_range) return null;
  const [low, high] = site.score_range;
  const place = Math.min(Math.max((score - low) / (high - low), 0), 1);
  const band = bandOf(score);
  return make(
    "div",
    { className: `bar${band ? ` band-${band.number}` : ""}`, attributes: { "aria-hidden": "true" } },
    make("div", { style: { width: `${100 * place}%` } }),
  );
}

function barWithEnds(score) {
  if (!site.score_range) return null;
  const [low, high] = site.score_range;
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
    const place = ((Math.min(Math.max(value / limit, -1), 1) + 1) / 2) * (site.map_colors.length - 1);
    const left = Math.min(Math.floor(place), site.map_colors.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [site.map_colors[left][channel], site.map_colors[left + 1][channel]];
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
  const values = make("output", { className: "values" }, "Point at the image, or use the arrow keys, to read its parts.");
  let cell = [0, 0];
  const read = (row, column) => {
    cell = [row, column].map((place) => Math.min(Math.max(place, 0), side - 1));
    const value = result.map[cell[0] * side + cell[1]];
    values.textContent = `Row ${cell[0] + 1}, column ${cell[1] + 1}: ${points(value)} points`;
  };
  canvas.tabIndex = 0;
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    // The image may be shown smaller than its box, as in a comparison.
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const x = (event.clientX - box.left - (box.width - canvas.width * scale) / 2) / (canvas.width * scale);
    const y = (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / (canvas.height * scale);
    if (x >= 0 && x < 1 && y >= 0 && y < 1) read(Math.floor(y * side), Math.floor(x * side));
  });
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
  const stops = site.map_colors.map((color) => `rgb(${color.join(" ")})`).join(", ");
  const worst = Math.min(...maps.map((map) => Math.min(...map)));
  const best = Math.max(...maps.map((map) => Math.max(...map)));
  const ends = (...texts) => make("div", { className: "ends" }, ...texts.map((text) => make("span", {}, text)));
  const span = site.score_range ? site.score_range[1] - site.score_range[0] : null;
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

function setUpScoring() {
  const drop = document.querySelector("#score .drop");
  if (matchMedia("(pointer: coarse)").matches) drop.querySelector("span").textContent = "Choose or take a photo";
  takeFiles(drop, scoreFiles);
  byId("stop").addEventListener("click", () => (stopped = true));
}

async function scoreFiles(files) {
  if (files.length > site.limits.images) {
    const text = `${files.length} images are more than the ${site.limits.images} that are scored at once: add fewer.`;
    byId("scored").replaceChildren(complaints([text]));
    return;
  }
  const mine = ++job;
  const single = files.length === 1;
  const results = [];
  const started = performance.now();
  stopped = false;
  byId("stop").hidden = single;
  for (const file of files) {
    if (single) tell(`Scoring ${file.name} …`);
    else tell(`Scoring image ${results.length + 1} of ${files.length} …`, results.length / files.length);
    results.push(await scorer.score(file, file.name, single ? PREVIEW_SIDE : ROW_SIDE));
    if (job !== mine) return;
    if (stopped) break;
  }
  byId("stop").hidden = true;
  tell(`Done in ${((performance.now() - started) / 1000).toFixed(1)} s.`);
  const drop = document.querySelector("#score .drop");
  drop.classList.add("small"); // so that the result is on the first screen
  drop.querySelector("span").textContent = "Score more";
  byId("scored").replaceChildren(single ? scorePanel(results[0]) : batchPanel(results));
  bringIntoSight(byId("scored"));
}

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
      body.querySelector(".keep").textContent = below ? "leave out" : "keep";
    }
    const number = scored.filter(({ score }) => score >= least()).length;
    kept.textContent = `Keep images from ${shown(least())}: ${number} of ${scored.length}`;
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
  const compared = site.reference.length
    ? ` “Higher than” compares with ${site.reference.length.toLocaleString("en")} reference images.`
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
  const step = 10 ** -site.digits;
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
      site.reference.length ? make("th", { scope: "col", className: "number" }, "Higher than") : null,
      make("th", { scope: "col" }, "Keep"),
    ),
  );
}

function tableRow(result) {
  const thumbnail = make("canvas", { width: result.preview.width, height: result.preview.height });
  thumbnail.setAttribute("aria-hidden", "true");
  thumbnail.getContext("2d").drawImage(result.preview, 0, 0);
  const row = make(
    "tr",
    {},
    make("td", {}, make("div", { className: "name" }, thumbnail, make("span", {}, result.name))),
    make("td", { className: "number" }, scoreCell(result.score), bar(result.score)),
    result.percentile === null ? null : make("td", { className: "number" }, `${Math.round(result.percentile)} %`),
    make("td", { className: "keep" }),
  );
  const body = make("tbody", { attributes: { "data-score": result.score } }, row);
  if (result.map) {
    const details = make("details", {}, make("summary", {}, "Quality map"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      const limit = mapLimit([result]);
      details.append(mapFigure(result, limit), legend([result], limit));
    });
    const columns = result.percentile === null ? 3 : 4;
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
  const columns = ["image", "score", "error", ...(site.reference.length ? ["percentile"] : [])];
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

function setUpComparing() {
  const slots = [...document.querySelectorAll("#compare .drop")];
  const files = [null, null];
  slots.forEach((slot, number) => {
    takeFiles(slot, async (found) => {
      // Two at once fill both sides.
      files[number] = found[0];
      if (found.length > 1) [files[0], files[1]] = found;
      slots.forEach((each, side) => {
        if (files[side]) each.querySelector("span").textContent = `${"AB"[side]}: ${files[side].name}`;
      });
      byId("hint").textContent = files[0] && files[1] ? "" : `Now add image ${files[0] ? "B" : "A"}.`;
      if (files[0] && files[1]) await compareFiles(files);
    });
  });
}

async function compareFiles(files) {
  const mine = ++job;
  byId("stop").hidden = true;
  tell("Comparing …");
  const results = [];
  for (const file of files) results.push(await scorer.score(file, file.name, PREVIEW_SIDE));
  if (job !== mine) return;
  tell("Compared.");
  byId("compared").replaceChildren(comparisonPanel(results));
  bringIntoSight(byId("compared"));
}

function comparisonPanel(results) {
  const failed = results.filter(({ error }) => error !== undefined).map(({ error }) => error);
  if (failed.length) return complaints(failed);
  const [a, b] = results;
  const difference = a.score - b.score;
  const equal = shown(a.score) === shown(b.score);
  const range = site.score_range && site.score_range[1] - site.score_range[0];
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

// --- tabs, files, examples --------------------------------------------------------------------------------------

function setUpTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    byId("examples").hidden = !site.examples.length || chosen.id !== "score-tab";
  };
  tabs.forEach((tab, number) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[(number + 1) % tabs.length];
      choose(other);
      other.focus();
    });
  });
}

/** Hand over the files that are chosen in a field or dropped on it. */
function takeFiles(field, use) {
  const input = field.querySelector("input");
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) use(files);
  });
  for (const kind of ["dragenter", "dragover"]) {
    field.addEventListener(kind, (event) => {
      event.preventDefault();
      field.classList.add("over");
    });
  }
  field.addEventListener("dragleave", () => field.classList.remove("over"));
  field.addEventListener("drop", (event) => {
    event.preventDefault();
    field.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) use(files);
  });
}

function showExamples() {
  const items = site.examples.map(({ file, name, alt }) => {
    const image = make("img", { src: file, alt, loading: "lazy" });
    const button = make("button", { type: "button" }, image, make("span", {}, name));
    button.addEventListener("click", async () => {
      const found = await (await fetch(file)).blob();
      await scoreFiles([new File([found], name, { type: found.type })]);
    });
    return make("li", {}, button);
  });
  byId("examples").hidden = !items.length;
  byId("examples").querySelector("ul").replaceChildren(...items);
}

function bringIntoSight(panel) {
  const { top } = panel.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) panel.scrollIntoView();
}

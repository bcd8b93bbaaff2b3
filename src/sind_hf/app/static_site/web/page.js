// The page: takes files, asks the worker for scores, shows them. Nothing here leaves the browser.

import { INSTRUCTIONS, bringIntoSight, complaints, make, panelOf, setFacts } from "./panels.js";

const PREVIEW_SIDE = 1024; // pixels of a single image or a compared one
const ROW_SIDE = 360; // pixels of an image in the table
const EQUAL = 1e-4; // as in the percentiles of the package: relative to scores above 1

const site = await (await fetch("site.json")).json();
const scorer = openScorer();
const status = byId("status");
const progress = byId("progress");
let job = 0; // counts what the visitor asked for: whatever is older ends
let stopped = false; // the visitor wants what is scored so far

setFacts(site);
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

// --- small parts ------------------------------------------------------------------------------------------------

/** Return the share of the reference scores below a score, in percent; of equal ones half counts as below. */
function percentileOf(score) {
  if (!site.reference.length) return null;
  const margin = EQUAL * Math.max(1, Math.abs(score));
  const below = site.reference.filter((each) => each < score - margin).length;
  const upTo = site.reference.filter((each) => each <= score + margin).length;
  return (50 * (below + upTo)) / site.reference.length;
}

function tell(text, share) {
  status.textContent = text;
  progress.hidden = share === undefined;
  if (share !== undefined) progress.value = share;
}

function byId(id) {
  return document.getElementById(id);
}

// --- one or several images --------------------------------------------------------------------------------------

function setUpScoring() {
  const drop = document.querySelector("#score .drop");
  drop.querySelector("span").textContent = INSTRUCTIONS.choose;
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
  drop.querySelector("span").textContent = INSTRUCTIONS.more;
  byId("scored").replaceChildren(panelOf(single ? "score" : "batch", results));
  bringIntoSight(byId("scored"));
}

// --- two images -------------------------------------------------------------------------------------------------

function setUpComparing() {
  const slots = [...document.querySelectorAll("#compare .drop")];
  const files = [null, null];
  slots.forEach((slot, number) => {
    slot.querySelector("span").textContent = INSTRUCTIONS["AB"[number]];
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
  byId("compared").replaceChildren(panelOf("compare", results));
  bringIntoSight(byId("compared"));
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

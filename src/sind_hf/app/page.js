// What the page with a server adds to Gradio: it draws the results that arrive as data, and words the upload fields.

import { INSTRUCTIONS, bringIntoSight, make, panelOf, setFacts } from "./panels.js";

const styles = new CSSStyleSheet();
styles.replaceSync(await (await fetch(new URL("panels.css", import.meta.url))).text());
const drawn = new WeakMap(); // element -> results that it shows
let examples = [];
let ready = false;

// The words of the upload field: page.css shows them in place of Gradio's three lines.
for (const [name, text] of Object.entries(INSTRUCTIONS)) {
  document.documentElement.style.setProperty(`--${name}`, JSON.stringify(text));
}
// Gradio replaces an element, or its attributes.
const changes = { childList: true, subtree: true, attributes: true, attributeFilter: ["data-results"] };
new MutationObserver(update).observe(document.body, changes);
update();

function update() {
  const about = document.getElementById("sind-facts");
  if (about && !ready) {
    const facts = JSON.parse(about.dataset.facts);
    setFacts(facts);
    examples = facts.examples;
    ready = true;
  }
  if (ready) document.querySelectorAll(".sind-results").forEach(draw);
  // The field shrinks, so that the result is on the first screen.
  document.getElementById("drop")?.classList.toggle("small", Boolean(document.querySelector("#scored .sind-results")));
  // Phones offer the camera for fields that take images.
  for (const input of document.querySelectorAll("input[type=file]:not([accept])")) input.accept = "image/*";
  document.querySelectorAll("#examples .thumbnail-item").forEach((button, number) => {
    const image = button.querySelector("img");
    if (!examples[number] || !image || image.alt === examples[number].alt) return;
    image.alt = examples[number].alt;
    button.setAttribute("aria-label", `Score the example: ${examples[number].name}`);
  });
}

/** Draw results into a shadow tree, which Gradio's styles do not reach. */
async function draw(place) {
  const { kind, results: text } = place.dataset;
  if (drawn.get(place) === text) return;
  drawn.set(place, text);
  const results = JSON.parse(text);
  await Promise.all(results.map(async (result) => (result.preview = await load(result.preview))));
  if (drawn.get(place) !== text) return;
  const shadow = place.shadowRoot ?? place.attachShadow({ mode: "open" });
  shadow.adoptedStyleSheets = [styles];
  shadow.replaceChildren(panelOf(kind, results));
  bringIntoSight(place);
}

async function load(address) {
  if (!address) return null;
  const image = make("img", { src: address });
  await image.decode();
  return image;
}

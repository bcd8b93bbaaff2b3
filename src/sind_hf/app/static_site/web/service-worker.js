// Keeps the site for visits without a network. `sind-hf` puts `const SITE = { version, kept, files }` above this line.
//
// Every answer gets the headers that a static host cannot set: those that allow threads, and the content policy.

const SCOPE = new URL(self.registration.scope);
// Other sites of this kind may be in other folders of the same host.
const OURS = `sind:${SCOPE.pathname}:`;
const CACHE = OURS + SITE.version;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": SITE.policy,
};

self.addEventListener("install", (event) => {
  self.skipWaiting();
  // Past the HTTP cache, which may hold files of an older version.
  const requests = SITE.kept.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(dropOldCaches().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== SCOPE.origin || !url.pathname.startsWith(SCOPE.pathname)) return;
  const file = url.pathname.slice(SCOPE.pathname.length) || "index.html";
  if (SITE.files.includes(file)) event.respondWith(answer(file, event));
});

async function dropOldCaches() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

/** Answer from the cache; a file that is not in it yet (the model, a runtime) is kept while it is passed on. */
async function answer(file, event) {
  const cache = await caches.open(CACHE);
  const url = new URL(file, SCOPE).href;
  let found = await cache.match(url);
  if (!found) {
    found = await fetch(url, { cache: "reload" });
    if (!found.ok) return found;
    // A full disk must not keep anybody from scoring.
    event.waitUntil(cache.put(url, found.clone()).catch(() => {}));
  }
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

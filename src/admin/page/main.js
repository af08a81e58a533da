// Asks for the status again and again, and draws it.

const REFRESH_MS = 2000;
const REFRESH_MS_MAX = 15000;
const CULPRITS_SHOWN = 4;
let current = null;

/** Gives the parts of `element` new texts. Only if `key` has changed are they new elements: a link keeps focus and click. */
function setParts(element, key, texts, elements) {
  if (element.dataset.key !== key) element.replaceChildren(...elements());
  else element.querySelectorAll(".part").forEach((part, index) => set(part, texts[index]));
  element.dataset.key = key;
}

function culpritLink(text, route) {
  const link = make("a", "part", text);
  link.href = route === null ? "#unknown-keys" : anchor(route);
  return link;
}

function drawHeadline(text, route) {
  const element = byId("verdict").querySelector(".text");
  setParts(element, String(JSON.stringify(route)), [text], () => [route === undefined ? make("span", "part", text) : culpritLink(text, route)]);
}

function drawVerdict(status) {
  const { tone, shape, text, lines, route } = verdict(status);
  const element = byId("verdict");
  element.className = tone;
  set(element.querySelector(".shape"), shape);
  drawHeadline(text, route);
  document.title = `${text} – sentry-mirror`;
  // A line that says "1 more" would take the place of that one.
  const count = lines.length === CULPRITS_SHOWN + 1 ? lines.length : CULPRITS_SHOWN;
  const shown = lines.slice(0, count).map((line) => ({ ...line, text: list([line.who, line.text], " ") }));
  if (lines.length > count) shown.push({ tone: "idle", shape: "", text: `and ${lines.length - count} more, at the top of the table` });
  setParts(byId("culprits"), JSON.stringify(shown.map((line) => [line.tone, line.shape, line.route])), shown.map((line) => line.text), () =>
    shown.map((line) => make("li", line.tone, make("span", "shape", line.shape),
      line.route === undefined ? make("span", "part", line.text) : culpritLink(line.text, line.route))));
  byId("culprits").hidden = lines.length === 0;
}

function drawGauges(status) {
  const memory = status.request_memory_bytes / Math.max(status.request_memory_limit_bytes, 1);
  const { seconds, requests } = status.recent;
  const fields = [
    ["requests", "requests, last minute", `${rate(seconds > 0 ? requests / seconds : 0)}/s`],
    ["connections", "SDK connections", whole(status.connections.open)],
    ["memory", `of ${bytes(status.request_memory_limit_bytes)} for requests`, percent(memory)],
    ["rejected", "rejected since the start", whole(sum(Object.values(status.rejections)))],
    ["uptime", "up", long(status.uptime_seconds)],
  ];
  const list = byId("gauges");
  list.hidden = false;
  if (!list.children.length) list.append(...terms("", fields).children);
  for (const [key, term, value] of fields) {
    const row = list.querySelector(`[data-field="${key}"]`);
    set(row, value);
    set(row.previousElementSibling, term);
  }
}

function drawUnknownKeys(status) {
  const { last, others } = status.unknown_keys;
  byId("unknown-keys").hidden = last.length === 0 && others === 0;
  const rows = last.map((one) => [
    one.key,
    one.project ?? "–",
    one.sdk ?? "–",
    one.client,
    whole(one.requests),
    `${long(one.last_seconds_ago)} ago`,
  ]);
  const table = byId("unknown-keys").querySelector("table");
  const titles = ["key", "project", "SDK", "client", "requests since the start", "last seen"];
  if (!isBeingRead(table)) table.replaceWith(tabular(titles, rows, [4, 5], 2));
  byId("other-keys").hidden = others === 0;
  set(byId("other-keys"), `${plural(others, "more request")} had other such keys.`);
}

/** All words with their meanings: where nothing can point at a word, this is the only place for them. */
function glossary() {
  const groups = [["", GLOSSARY], ...MEANING_TITLES.map(([group, title]) => [title, Object.entries(MEANINGS[group])])];
  return groups.flatMap(([title, words]) => [
    title && make("h3", "", title),
    terms("", words.map(([word, meaning]) => [word, spaced(word), plain(meaning)])),
  ]).filter(Boolean);
}

function drawFooter(status) {
  const reasons = counts(Object.entries(status.rejections), MEANINGS.rejections);
  byId("rejections").hidden = reasons.length === 0;
  if (!isBeingRead(byId("rejections"))) byId("rejections").replaceChildren("Rejected since the start: ", ...reasons);
  const { done, refused } = status.reloads;
  set(byId("process"), list([
    `version ${status.version}`,
    `listening on ${status.listening_on}`,
    `${plural(status.workers, "worker")}, ${status.driver}`,
    `since ${clock(status.started_at)}`,
    `${bytes(status.received_bytes)} received`,
    done + refused ? `${plural(done, "reload")}${refused ? `, ${refused} refused` : ""}` : "",
  ]));
  if (!byId("glossary").children.length) byId("glossary").append(...glossary());
}

function redraw() {
  if (current === null) return;
  byId("tools").hidden = false;
  byId("as-of").hidden = false;
  set(byId("as-of").querySelector("time"), asOf(current));
  drawVerdict(current);
  drawGauges(current);
  drawStates(current);
  drawTable(current);
  drawUnknownKeys(current);
  drawFooter(current);
}

/** Opens the route that the address names, and shows it. */
function followAnchor() {
  const name = location.hash.startsWith("#route/") ? decodeURIComponent(location.hash.slice("#route/".length)) : null;
  if (name === null || current === null || !lines.has(name)) return;
  opened.add(name);
  view.filter = byId("filter").value = "";
  view.state = null;
  redraw();
  const line = lines.get(name);
  line.button.focus({ preventScroll: true });
  line.row.scrollIntoView({ block: "center" });
}

function move(by) {
  const buttons = [...document.querySelectorAll(".line:not([hidden]) .first button")];
  const at = buttons.indexOf(document.activeElement);
  if (at < 0 && document.activeElement !== byId("filter")) return false;
  buttons[at < 0 ? 0 : Math.min(Math.max(at + by, 0), buttons.length - 1)]?.focus();
  return true;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = document.activeElement === byId("filter");
  if (event.key === "/" && !isTyping) byId("filter").focus();
  else if (event.key === "Escape" && isTyping) { byId("filter").value = view.filter = ""; redraw(); }
  else if (!(event.key === "ArrowDown" && move(1)) && !(event.key === "ArrowUp" && move(-1))) return;
  event.preventDefault();
});
byId("filter").addEventListener("input", () => { view.filter = byId("filter").value; redraw(); });
addEventListener("hashchange", followAnchor);

let answeredAt = Date.now();

async function refresh() {
  const begun = performance.now();
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (response.status === 503) {
      drawHeadline("Starting");
    } else if (!response.ok) {
      throw new Error(`status ${response.status}`);
    } else {
      const isFirst = current === null;
      current = await response.json();
      redraw();
      if (isFirst) followAnchor();
    }
    answeredAt = Date.now();
    byId("stale").hidden = true;
  } catch (error) {
    byId("stale").hidden = false;
    const age = long((Date.now() - answeredAt) / 1000);
    set(byId("stale"), `The mirror has not answered for ${age}. This page is out of date.`);
    if (!(error instanceof TypeError || error instanceof DOMException)) console.error(error);
  }
  // With hundreds of routes an answer takes longer, and the mirror must not be busy with it.
  setTimeout(refresh, Math.min(Math.max(REFRESH_MS, 10 * (performance.now() - begun)), REFRESH_MS_MAX));
}

refresh();

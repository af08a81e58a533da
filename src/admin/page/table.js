// One line for each route, with its outbounds side by side.

/** The names of the routes whose details are shown. */
const opened = new Set();
/** The lines by name of the route: their elements, and what they show. */
const lines = new Map();
const view = { filter: "", state: null };

const anchor = (name) => `#route/${encodeURIComponent(name)}`;

const side = (...parts) => make("div", "side", ...parts);

/** The names that all routes give to their outbounds, by position; `null` where they differ. */
function columnNames(status) {
  const count = Math.max(...status.routes.map((route) => route.outbounds.length), 0);
  return Array.from({ length: count }, (_, index) => {
    const names = new Set(status.routes.map((route) => route.outbounds[index]?.name).filter(Boolean));
    return names.size === 1 ? [...names][0] : null;
  });
}

function drawHead(status, names) {
  const key = JSON.stringify([names, status.step_seconds]);
  const row = document.querySelector("#routes > thead > tr");
  if (row.dataset.key === key) return;
  row.dataset.key = key;
  const minutes = Math.round((STEPS_SHOWN * status.step_seconds) / 60);
  const title = (name, index) => (name ? withoutKey(name) : null) ?? (index === 0 ? "first outbound" : `outbound ${index + 1}`);
  const legend = () => side(make("span", "who", ""), make("span", "", "state"),
    make("span", "number", "per s", make("br"), "1 min"), make("span", "number", "missing", make("br"), `${minutes} min`),
    make("span", "picture", `${minutes} min`));
  const columns = names.map((name, index) =>
    make("th", "cell", make("span", "title", title(name, index)), index === 0 ? make("small", "inline", "primary") : "", legend()));
  row.replaceChildren(make("th", "first", "route"), make("th", "rate", "requests", make("small", "", "per s", make("br"), "1 min")), ...columns);
  byId("routes").classList.toggle("named", names.some((name) => name === null));
  byId("routes").classList.toggle("many", names.length > 2);
  byId("routes").classList.toggle("wide", names.length > 4);
}

function cell(outbound, name, status) {
  if (!outbound) return make("td", "cell");
  const [shape, word, tone] = STATES[outbound.state];
  const loss = lossNow(outbound, status);
  const share = outbound.state === "failing" && loss.share > 0 && loss.share < 1 ? ` ${Math.max(1, Math.floor(loss.share * 100))} %` : "";
  const state = make("span", `state ${tone}`, make("span", "shape", shape), word, share);
  state.title = `${stateMeaning(outbound, status)}${share ? ` Lost ${loss.words}.` : ""}`;
  const who = make("span", "who", withoutKey(outbound.name));
  who.title = outbound.dsn ?? outbound.name;
  const { seconds, delivered } = outbound.recent;
  const count = missing(outbound);
  const lost = sum(outbound.steps.map((step) => step[2]));
  const missed = make("span", `missing number ${count === 0 ? "nothing" : isTrouble(outbound) ? (lost > 0 ? "bad" : "wait") : ""}`, count === 0 ? "–" : whole(count));
  missed.title = `${whole(lost)} lost, ${whole(count - lost)} rate limited in the last 5 minutes`;
  const chart = make("span", "picture", picture(outbound.steps, 20));
  const perSecond = make("span", `delivered number ${delivered === 0 ? "nothing" : ""}`, rate(seconds > 0 ? delivered / seconds : 0));
  return make("td", "cell", side(who, state, perSecond, missed, chart));
}

function drawLine(line, route, names, status) {
  // Ages and the time are no part of it.
  const key = JSON.stringify([names, route.name, route.per_second, route.outbounds.map((one) => [one.name, one.state, one.recent, one.steps])]);
  if (line.row.dataset.key === key) return;
  line.row.dataset.key = key;
  const worst = Math.max(...route.outbounds.map(severity));
  const [, , tone] = Object.values(STATES)[Object.keys(STATES).length - worst];
  line.row.className = `line ${worst >= TROUBLE ? tone : ""}`;
  set(line.name, withoutScheme(route.name));
  line.name.title = route.dsn ?? route.name;
  const cells = names.map((name, index) => cell(route.outbounds[index], name, status));
  // The first cell stays, because its button may have the focus.
  while (line.row.children.length > 1) line.row.lastChild.remove();
  line.row.append(make("td", "rate", rate(route.per_second)), ...cells);
}

function makeLine(name) {
  const label = make("span", "name");
  const button = make("button", "", label);
  button.type = "button";
  const row = make("tr", "line");
  row.dataset.route = name;
  row.addEventListener("click", (event) => {
    if (getSelection().isCollapsed || event.target === button) toggle(name);
  });
  row.append(make("td", "first", button));
  return { row, button, name: label, detail: null };
}

/** Shows or hides the details of a route. */
function toggle(name) {
  if (opened.delete(name)) {
    if (location.hash === anchor(name)) history.replaceState(null, "", location.pathname);
  } else {
    opened.add(name);
    history.replaceState(null, "", anchor(name));
  }
  redraw();
}

/** The text of a detail would change under a selection, so it stays until that is gone. */
function isBeingRead(element) {
  const selection = getSelection();
  return !selection.isCollapsed && element.contains(selection.anchorNode);
}

function drawDetail(line, route, names, status) {
  const isOpen = opened.has(route.name);
  line.button.setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) {
    line.detail?.remove();
    line.detail = null;
    return;
  }
  line.detail ??= make("tr", "detail", make("td", ""));
  const cell = line.detail.firstChild;
  cell.colSpan = names.length + 2;
  if (!isBeingRead(cell)) cell.replaceChildren(...detail(route, status));
}

function matches(route) {
  const isInState = view.state === null || route.outbounds.some((outbound) => outbound.state === view.state);
  const texts = [route.name, route.dsn, ...route.outbounds.flatMap((one) =>
    [one.name, one.dsn, one.upstream?.origin, STATES[one.state][1]])];
  const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return isInState && words.every((word) => texts.some((text) => text?.toLowerCase().includes(word)));
}

function drawTable(status) {
  const names = columnNames(status);
  drawHead(status, names);
  // Those without a trouble stay in the order of the configuration.
  const rank = (route) => Math.max(...route.outbounds.map((one) => (isTrouble(one) ? badness(one) : 0)));
  const routes = [...status.routes].sort((a, b) => rank(b) - rank(a));
  const body = byId("routes").tBodies[0] ?? byId("routes").createTBody();
  const rows = [];
  let shown = 0;
  for (const route of routes) {
    if (!lines.has(route.name)) lines.set(route.name, makeLine(route.name));
    const line = lines.get(route.name);
    const isShown = matches(route);
    if (isShown) {
      drawLine(line, route, names, status);
      drawDetail(line, route, names, status);
      shown += 1;
    }
    line.row.hidden = !isShown;
    if (line.detail) line.detail.hidden = !isShown;
    rows.push(line.row, ...(line.detail ? [line.detail] : []));
  }
  const known = new Set(status.routes.map((route) => route.name));
  for (const name of [...lines.keys()]) if (!known.has(name)) lines.delete(name);
  // Moving an element takes the focus from it.
  const focused = document.activeElement;
  rows.forEach((row, index) => { if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null); });
  while (body.children.length > rows.length) body.lastChild.remove();
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  byId("none").hidden = shown > 0;
  byId("routes").hidden = shown === 0;
}

/** A button for each state that occurs, with the number of outbounds in it. */
function drawStates(status) {
  const outbounds = status.routes.flatMap((route) => route.outbounds);
  const group = byId("states");
  for (const [state, [shape, word, tone, meaning]] of Object.entries(STATES)) {
    const count = outbounds.filter((outbound) => outbound.state === state).length;
    let button = group.querySelector(`[data-state="${state}"]`);
    if (!button) {
      button = make("button", tone, make("span", "shape", shape), make("b", "count"), ` ${word}`);
      button.type = "button";
      button.dataset.state = state;
      button.title = meaning;
      button.addEventListener("click", () => { view.state = view.state === state ? null : state; redraw(); });
      group.append(button);
    }
    set(button.querySelector(".count"), whole(count));
    button.hidden = count === 0 && view.state !== state;
    button.setAttribute("aria-pressed", String(view.state === state));
  }
}

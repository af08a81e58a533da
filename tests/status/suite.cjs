// The status page in a headless Chromium, under load and with one outbound failing:
// `node suite.cjs BINARY INSTALLED METRICS`, as `run` calls it.
//
// What the page shows must be what /status says, the console must stay clean, and nothing may be loaded
// from anywhere else. Screenshots in light, dark, without colour and on a phone are left for people.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const { look } = require("./look.cjs");
const { key, send, sleep, startMirror } = require("./mirror.cjs");

const [binary, installed, metrics] = process.argv.slice(2);
const { chromium } = require(path.join(installed, "node/node_modules/playwright-core"));

const LOAD_MS = Number(process.env.LOAD_SECONDS ?? 20) * 1000;
const CLIENTS = 4;

/** A server that answers as `answer(number)` says. */
async function upstream(answer) {
  let number = 0;
  const server = http.createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      const [status, body, fields] = answer(number++);
      response.writeHead(status, { "Content-Type": "application/json", ...fields });
      setTimeout(() => response.end(body), Math.random() * 12);
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return server;
}

/** Sends events over kept connections until `end`; gives how many were answered. */
async function load(inbound, end) {
  let answered = 0;
  const client = async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    while (Date.now() < end) {
      const isUnknown = Math.random() < 0.2;
      const route = isUnknown ? "9" : Math.random() < 0.8 ? "1" : "2";
      const publicKey = isUnknown ? "dead".repeat(8) : key(route);
      const problem = await send(agent, inbound, publicKey, route, "event", "sentry.<b>test</b>/1");
      if (problem) throw problem;
      if (!isUnknown) answered += 1;
      await sleep(5 + Math.random() * 20);
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return answered;
}

/** Opens the details of all routes that are not open yet. */
async function openAll(page) {
  const closed = page.locator('.line button[aria-expanded="false"]');
  for (let left = await closed.count(); left > 0; left -= 1) await closed.first().click();
  assert.equal(await closed.count(), 0);
}

/** What the page shows: gauges, lines, and the cards of the routes that are open. */
function shown(page) {
  return page.evaluate(() => {
    const text = (parent, selector) => parent.querySelector(selector)?.textContent ?? null;
    const fields = (parent) =>
      Object.fromEntries(
        [...parent.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, field.textContent]),
      );
    const lines = [...document.querySelectorAll("#routes .line:not([hidden])")];
    return {
      verdict: text(document, "#verdict .text"),
      culprits: [...document.querySelectorAll("#culprits li")].map((line) => line.textContent),
      gauges: fields(document.querySelector("#gauges")),
      routes: lines.map((line) => ({
        name: line.dataset.route,
        tone: line.classList[1] ?? "",
        rate: text(line, ".rate"),
        about: line.nextElementSibling?.matches(".detail") ? text(line.nextElementSibling, ".about") : null,
        sides: [...line.querySelectorAll(".side")].map((side) => ({
          who: text(side, ".who"),
          state: text(side, ".state"),
          delivered: text(side, ".delivered"),
          missing: text(side, ".missing"),
          bars: side.querySelectorAll("path").length,
        })),
      })),
      outbounds: [...document.querySelectorAll("#routes .card:not(.disagreements)")].map((card) => ({
        name: card.dataset.outbound,
        role: text(card, ".role") ?? "",
        why: text(card, ".why"),
        upstream: text(card, ".upstream"),
        causes: text(card, ".causes") ?? "",
        limits: [...card.querySelectorAll(".limit")].map((limit) => limit.textContent),
        bars: [...card.querySelectorAll("path")].reduce((sum, path) => sum + path.getAttribute("d").split("M").length - 1, 0),
        error: text(card, ".error"),
        errorTime: text(card, "time"),
        ...fields(card),
      })),
      keys: [...document.querySelectorAll("#unknown-keys tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent)),
    };
  });
}

/**
 * Gives the page the same answer from now on, the next that the mirror gives; resolves to it once the
 * page has drawn it.
 */
async function frozen(page) {
  let answer = null;
  let served = 0;
  let isDrawn;
  const drawn = new Promise((resolve) => (isDrawn = resolve));
  await page.route("**/status", async (route) => {
    answer ??= await (await route.fetch()).json();
    // It asks again only once it has drawn what it got.
    if (served === 1) isDrawn();
    served += 1;
    await route.fulfill({ json: answer });
  });
  await drawn;
  return answer;
}

/** What goes wrong in a page, and where it asks for something. */
function watch(page, admin) {
  const wrong = [];
  page.on("console", (line) => wrong.push(`console: ${line.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${admin}/`) && !request.url().startsWith("data:")) wrong.push(request.url());
  });
  return wrong;
}

const UNITS = { ms: 1e-3, s: 1, "%": 1e-2, "/s": 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

/** That `text` is `value`, within what its last digit may hide; `null` is a dash. */
function assertShows(text, value, what) {
  if (value === null) {
    assert.equal(text, "–", what);
    return;
  }
  const [, digits, unit] = text.match(/^(?:< )?([\d,.]+) ?(\D*)$/) ?? assert.fail(`${what}: ${text} is no number`);
  const scale = unit === "" ? 1 : UNITS[unit];
  assert.ok(scale, `${what}: ${unit} is no unit`);
  const step = scale * (digits.includes(".") ? 0.1 : unit === "" ? 0 : 1);
  const difference = Math.abs(Number(digits.replaceAll(",", "")) * scale - value);
  assert.ok(difference <= step * 1.001, `${what}: ${text} is not ${value}`);
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

function compareOutbound(card, outbound) {
  const of = (what) => `${outbound.name}: ${what}`;
  assert.equal(card.name, outbound.name);
  assert.equal(card.role, outbound.is_primary ? "primary" : "", of("role"));
  const latency = outbound.latency_seconds;
  const { seconds, delivered } = outbound.recent;
  const values = {
    rate: seconds > 0 ? delivered / seconds : 0,
    success: outbound.success,
    mean: latency.mean,
    p50: latency.p50,
    p90: latency.p90,
    p99: latency.p99,
  };
  for (const [field, value] of Object.entries(values)) assertShows(card[field], value, of(field));
  // The numbers of deliveries are those since the start, the other field is a rate.
  assertShows(card.rate_limited, outbound.rate_limited, of("rate_limited"));
  assertShows(card.lost, outbound.lost, of("lost"));
  assertShows(card.delivered, outbound.delivered, of("delivered"));
  const shownSteps = outbound.steps.slice(-61, -1);
  assert.equal(card.bars, sum(shownSteps.map((step) => step.filter((count) => count > 0).length)), of("bars"));
  assert.ok(card.why.includes(outbound.state.replaceAll("_", " ")), of(card.why));

  const { upstream } = outbound;
  const parts = card.upstream.split(" · ");
  const has = (part) => assert.ok(parts.includes(part), of(`no "${part}" in "${card.upstream}"`));
  const probes = sum(Object.values(upstream.probes));
  const failed = probes - (upstream.probes.connected ?? 0);
  const probed = probes ? `, ${failed.toLocaleString("en")} of ${probes.toLocaleString("en")} probe${probes === 1 ? "" : "s"} failed` : "";
  has(`breaker ${upstream.breaker}${probed}`);
  has(`${upstream.in_flight.toLocaleString("en")} in flight`);
  has(`${upstream.connections_open} connection${upstream.connections_open === 1 ? "" : "s"}`);
  for (const [outcome, count] of Object.entries(outbound.outcomes)) {
    const word = `${outcome.replaceAll("_", " ")} ${count.toLocaleString("en")}`;
    if (outcome !== "2xx") assert.ok(card.causes.includes(word), of(`${word} in ${card.causes}`));
  }
  assert.equal(card.limits.length, outbound.rate_limits.length, of("rate limits"));
  for (const [index, limit] of outbound.rate_limits.entries()) {
    const words = `${limit.categories.join(" and ")}, ${Math.floor(limit.seconds / 60)} minutes left`;
    assert.equal(card.limits[index], words);
  }

  const error = outbound.last_error;
  assert.equal(card.error === null, error === null, of("error"));
  if (error) {
    assert.equal(card.error.trim(), error.message.trim());
    assert.match(card.errorTime, /^\d\d:\d\d:\d\d, \d+ (second|minute)s? ago$/);
  }
}

/** A line shows for each outbound what the same answer says. */
function compareLine(line, route) {
  assertShows(`${line.rate}/s`, route.per_second, `${route.name}: rate`);
  for (const [index, outbound] of route.outbounds.entries()) {
    const side = line.sides[index];
    const { seconds, delivered } = outbound.recent;
    assert.ok(side.state.includes(outbound.state.replaceAll("_", " ")), `${outbound.name}: ${side.state}`);
    assertShows(`${side.delivered}/s`, seconds > 0 ? delivered / seconds : 0, `${outbound.name}: delivered`);
    const missing = sum(outbound.steps.map(([, limited, lost]) => limited + lost));
    assertShows(side.missing, missing || null, `${outbound.name}: missing`);
    const kinds = [0, 1, 2].filter((kind) => outbound.steps.slice(-61, -1).some((step) => step[kind] > 0));
    assert.equal(side.bars, kinds.length, `${outbound.name}: picture`);
  }
}

/** Every value on the page is that of the very answer it was drawn from. */
function compare(said, status) {
  const { gauges } = said;
  assertShows(gauges.requests, status.recent.requests / status.recent.seconds, "requests");
  assertShows(gauges.memory, status.request_memory_bytes / status.request_memory_limit_bytes, "memory");
  assertShows(gauges.connections, status.connections.open, "connections");
  assertShows(gauges.rejected, sum(Object.values(status.rejections)), "rejected");
  const names = (routes) => routes.map((route) => route.name);
  assert.deepEqual(names(said.routes).sort(), names(status.routes).sort());
  const cards = [...said.outbounds];
  for (const line of said.routes) {
    const route = status.routes.find((route) => route.name === line.name);
    compareLine(line, route);
    const [, p50, p99] = line.about.match(/SDKs answered in (.+?), 99 % in (.+?) · /);
    assertShows(p50, route.latency_seconds.p50, `${route.name}: p50`);
    assertShows(p99, route.latency_seconds.p99, `${route.name}: p99`);
    const answers = Object.entries(route.answers).map(([word, count]) => `${word.replaceAll("_", " ")} ${count.toLocaleString("en")}`);
    assert.ok(line.about.endsWith(`since the start: ${route.requests.toLocaleString("en")} requests (${answers.join(", ")})`), line.about);
    for (const outbound of route.outbounds) compareOutbound(cards.shift(), outbound);
  }
  assert.deepEqual(cards, []);
  const keys = status.unknown_keys.last.map((one) => [one.key, one.project ?? "–", one.sdk ?? "–", one.client, one.requests.toLocaleString("en")]);
  assert.deepEqual(said.keys.map((row) => row.slice(0, 5)), keys);
}

/** What the mirror says once nothing is under way. */
async function settled(admin) {
  for (let tries = 0; tries < 40; tries += 1) {
    const status = await (await fetch(`${admin}/status`)).json();
    const upstreams = status.routes.flatMap((route) => route.outbounds.map((outbound) => outbound.upstream));
    if (upstreams.every((upstream) => upstream.in_flight === 0)) return status;
    await sleep(1000);
  }
  throw new Error("something is under way all the time");
}

async function main() {
  const ok = () => [200, `{"id":"${key("e")}"}`, {}];
  const limits = { "X-Sentry-Rate-Limits": "3600:error:key" };
  const servers = await Promise.all([
    upstream(ok),
    upstream((number) => (number % 3 ? ok() : [503, '{"detail":"no room <b>here</b>"}', {}])),
    upstream(ok),
    upstream((number) => [number < 5 ? 200 : 429, "{}", number < 5 ? {} : limits]),
  ]);
  const gone = servers[2].address().port;
  servers[2].close();
  const dsn = (server, letter, project) =>
    `http://${key(letter)}@127.0.0.1:${server.address().port}/${project}`;
  const route = (letter, outbounds) =>
    `  - inbound: http://${key(letter)}@mirror.example.com/${letter}\n    outbound:\n${outbounds.map((one) => `      - ${one}\n`).join("")}`;
  const mirror = await startMirror(
    binary,
    path.join(installed, "config.yml"),
    route("1", [dsn(servers[0], "a", 11), dsn(servers[1], "b", 22), `http://${key("c")}@127.0.0.1:${gone}/33`]) +
      route("2", [dsn(servers[0], "d", 44), dsn(servers[3], "f", 55)]),
  );
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  try {
    const loading = load(mirror.inbound, Date.now() + LOAD_MS);
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
    page.setDefaultTimeout(180000);
    const wrong = watch(page, mirror.admin);
    await page.goto(`${mirror.admin}/`);
    await page.waitForSelector(".line");
    await openAll(page);
    await sleep(LOAD_MS - 8000);
    const underLoad = await frozen(page);
    const running = await shown(page);
    compare(running, underLoad);
    await page.unrouteAll({ behavior: "wait" });
    const folder = path.join(installed, "screenshots");
    fs.mkdirSync(folder, { recursive: true });
    const shoot = (name) => page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
    await shoot("light");
    await page.emulateMedia({ colorScheme: "dark" });
    await shoot("dark");
    await page.setViewportSize({ width: 390, height: 844 });
    await shoot("phone");
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    assert.equal(overflow, false, "a phone has to scroll sideways");
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.emulateMedia({ colorScheme: "light" });
    // Not through a style element: the page forbids those that are not its own.
    await page.evaluate(() => (document.documentElement.style.filter = "grayscale(1)"));
    await shoot("grey");
    const answered = await loading;

    const share = /; \d\d\.\d % of requests have an unknown key$/;
    assert.match(running.verdict, share);
    assert.equal(running.verdict.replace(share, ""), "Of 5 outbounds, 2 fail, 1 is rate limited");
    const states = running.routes.flatMap((route) => route.sides.map((side) => side.state));
    assert.match(states[0], /^●receiving$/);
    assert.match(states[1], /^■failing 3\d %$/);
    assert.match(states[2], /^■failing$/);
    assert.match(states[3], /^●receiving$/);
    assert.match(states[4], /^◐rate limited$/);
    const told = running.culprits.join("\n");
    assert.match(told, /answers 503 since \d\d:\d\d:\d\d, \d+ seconds ago; \d+ lost; in the last 15 seconds, 3\d\.\d % of deliveries$/m);
    assert.match(told, /refuses connections since \d\d:\d\d:\d\d, \d+ seconds ago; [\d,]+ lost$/m);
    assert.match(told, /is rate limited by its server since \d\d:\d\d:\d\d, \d+ seconds ago: error, \d+ minutes left; [\d,]+ not delivered$/m);
    assert.match(told, /\d\d\.\d % of the requests of the last minute reached no outbound, because their key is not configured; the last had key "dead…", project 9, client 127\.0\.0\.1, sentry\.<b>test<\/b>\/1$/m);
    assert.deepEqual(running.keys[0].slice(0, 3), ["dead…", "9", "sentry.<b>test</b>/1"]);
    const status = await settled(mirror.admin);
    const requests = status.routes.reduce((sum, route) => sum + route.requests, 0);
    assert.equal(requests, answered);
    for (const route of status.routes) {
      for (const outbound of route.outbounds) {
        assert.equal(outbound.delivered + outbound.rate_limited + outbound.lost, route.requests, outbound.name);
      }
    }
    const late = await frozen(page);
    const said = await shown(page);
    compare(said, late);
    const { outbounds: cards } = said;
    assert.match(cards[2].upstream, / · breaker open, (\d+) of \1 probes? failed · /);
    assert.match(cards[2].error, /^cannot connect: Connection refused/);
    assert.ok(cards[1].error.includes('answered 503: {"detail":"no room <b>here</b>"}'));
    console.log(execFileSync(path.join(installed, "python/bin/python"), [metrics, mirror.admin]).toString().trim());
    assert.deepEqual(wrong, []);

    await look(browser, mirror.admin, folder);
    await page.unrouteAll({ behavior: "wait" });
    mirror.child.kill("SIGKILL");
    await page.waitForSelector("#stale:not([hidden])");
    assert.ok(wrong.every((line) => /ERR_CONNECTION_REFUSED|Failed to load resource/.test(line)), wrong.join("\n"));
    console.log(`${answered} requests, ${cards.length} outbounds: the page shows all that /status says`);
  } finally {
    await browser.close();
    mirror.child.kill("SIGKILL");
    for (const server of servers) server.close();
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

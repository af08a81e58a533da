// A morning with many troubles: `node morning.cjs BINARY INSTALLED`, as `run morning` calls it.
//
// Twenty routes go to a self-hosted Sentry and to the SaaS. After some seconds without trouble, one outbound goes down, one
// is rate limited for transactions, one is slow and one refuses; all the time an application uses a wrong key. The page
// has to name each of them. Screenshots are left for people who know nothing of this, to say what is wrong.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const { key, send, sleep, startMirror, startSink } = require("./mirror.cjs");

const [binary, installed] = process.argv.slice(2);
const { chromium } = require(path.join(installed, "node/node_modules/playwright-core"));

const ROUTES = [
  "account", "basket", "billing", "catalogue", "checkout", "courier-app", "emails", "fraud", "gateway", "inventory",
  "invoices", "login", "mobile-android", "mobile-ios", "payments", "pricing", "returns", "reviews", "search", "shop-web",
];
/** The culprits by route, each with the outbound that is one. */
const DOWN = { route: "billing", outbound: "saas" };
const REFUSING = { route: "emails", outbound: "saas" };
const SLOW = { route: "mobile-ios", outbound: "self-hosted" };
const LIMITED = { route: "search", outbound: "saas" };

const HEALTHY_MS = 12000;
const TROUBLED_MS = 35000;
/** Between two requests of a route. */
const INTERVAL_MS = 400;

const routeKey = (index) => (index + 16).toString(16).repeat(16);

/** The last part of the configuration; `troubled` has the addresses of sinks by route and outbound. */
function routes(healthy, troubled) {
  const outbound = (name, route, letter, project) => {
    const address = troubled[`${route} ${name}`] ?? healthy[name];
    return `      - {name: ${name}, dsn: "http://${key(letter)}@${address}/${project}"}\n`;
  };
  return ROUTES.map((route, index) =>
    `  - name: ${route}\n    inbound: http://${routeKey(index)}@mirror.example.com/${index + 1}\n    outbound:\n` +
    outbound("self-hosted", route, "a", index + 1) + outbound("saas", route, "b", index + 101)).join("");
}

/** Sends for all routes, and now and then with the wrong key, until `end`; gives what went wrong. */
async function load(inbound, end) {
  const agent = new http.Agent({ keepAlive: true });
  const answers = [];
  for (let round = 0; Date.now() < end; round += 1) {
    for (const [index] of ROUTES.entries()) {
      answers.push(send(agent, inbound, routeKey(index), index + 1, round % 3 === 2 ? "transaction" : "event"));
      await sleep(INTERVAL_MS / ROUTES.length);
    }
    if (round % 2) answers.push(send(agent, inbound, "dead".repeat(8), 9, "event"));
  }
  const errors = (await Promise.all(answers)).filter(Boolean);
  agent.destroy();
  return errors;
}

const texts = (page, selector) => page.locator(selector).allTextContents();

/** The seconds between a time of today on the page and another time. */
function secondsApart(clock, time) {
  const [hours, minutes, seconds] = clock.split(":").map(Number);
  const shown = new Date(time);
  shown.setHours(hours, minutes, seconds, 0);
  return Math.abs(shown - time) / 1000;
}

/** That the headline names each culprit: who, what, since when, how much. */
async function names(page, troubledAt) {
  const verdict = await page.locator("#verdict .text").textContent();
  assert.match(verdict, /^Of 40 outbounds, 2 fail, 1 is slow, 1 is rate limited; \d\.\d % of requests have an unknown key$/);
  const told = await texts(page, "#culprits li");
  const who = ({ route, outbound }) => `${route} → ${outbound}`;
  const expected = [
    [DOWN, / refuses connections since (\d\d:\d\d:\d\d), \d+ seconds ago; [\d,]+ lost$/],
    [REFUSING, / answers 403 since (\d\d:\d\d:\d\d), \d+ seconds ago; [\d,]+ lost; in the last 15 seconds, 100 % of deliveries$/],
    [SLOW, / answers in \d\.\d s on average; \d+(?:\.\d)? % of its answers in the last minute took over 1\.5 s \(reply_timeout\): SDKs wait that long, then get another answer$/],
    [LIMITED, / is rate limited by its server since (\d\d:\d\d:\d\d), \d+ seconds ago: transaction, \d minutes left; [\d,]+ not delivered$/],
  ];
  for (const [culprit, pattern] of expected) {
    const line = told.find((text) => text.includes(who(culprit)));
    const [, since] = line?.match(pattern) ?? assert.fail(`${who(culprit)}: ${told.join("\n")}`);
    if (since) assert.ok(secondsApart(since, troubledAt) < 10, `${line}: not since ${troubledAt}`);
  }
  const wrongKey = told.find((text) => text.includes("their key is not configured"));
  assert.match(wrongKey, / reached no outbound, .*; the last had key "dead…", project 9, client 127\.0\.0\.1, sentry\.python\/2\.75\.0$/);
  assert.equal(told.length, expected.length + 1);
  const lines = await texts(page, ".line .name");
  assert.equal(lines.length, ROUTES.length);
  const culprits = expected.map(([{ route }]) => route);
  assert.deepEqual(new Set(lines.slice(0, culprits.length)), new Set(culprits), "the culprits are the first lines");
  const quiet = ROUTES.filter((route) => !culprits.includes(route));
  assert.deepEqual(lines.slice(culprits.length), quiet, "the others stay in their order");
  const bottom = await page.evaluate(() => document.querySelector(".line:last-of-type").getBoundingClientRect().bottom);
  assert.ok(bottom <= 900, `the last of 20 routes ends at ${bottom}`);
}

/** Screenshots of the page, and of what a click on each culprit opens. */
async function shoot(browser, admin, folder, troubledAt) {
  const open = async (viewport) => {
    const page = await browser.newPage({ viewport, colorScheme: "light", reducedMotion: "reduce" });
    page.setDefaultTimeout(180000);
    await page.goto(`${admin}/`);
    await page.waitForSelector("#culprits li");
    return page;
  };
  const desktop = await open({ width: 1280, height: 900 });
  await names(desktop, troubledAt);
  await desktop.screenshot({ path: path.join(folder, "desktop.png") });
  for (const [index, link] of (await desktop.locator("#culprits a").all()).entries()) {
    await link.click();
    await desktop.screenshot({ path: path.join(folder, `desktop-${index + 1}.png`) });
  }
  assert.equal(await desktop.locator(".card[data-outbound]").count(), 8, "each link to a route opens it");
  const phone = await open({ width: 390, height: 844 });
  await phone.screenshot({ path: path.join(folder, "phone.png") });
  await phone.locator("#culprits a").first().click();
  await phone.screenshot({ path: path.join(folder, "phone-open.png") });
  for (const heading of ["Last incidents", "Keys that are not configured"]) {
    await phone.getByText(heading, { exact: true }).last().scrollIntoViewIfNeeded();
    await phone.screenshot({ path: path.join(folder, `phone-${heading.split(" ").at(-1)}.png`) });
  }
}

async function main() {
  const sinks = {
    healthy: await startSink(binary),
    saas: await startSink(binary),
    down: await startSink(binary),
    refusing: await startSink(binary),
    slow: await startSink(binary),
    limited: await startSink(binary),
  };
  const all = new Set(Object.values(sinks));
  /** Ends a sink and, unless it stays down, starts one that is in trouble at the same address. */
  const trouble = async (sink, ...options) => {
    sink.child.kill("SIGKILL");
    await new Promise((resolve) => sink.child.once("exit", resolve));
    all.delete(sink);
    if (options.length) all.add(await startSink(binary, "--listen", sink.address, ...options));
  };
  const at = ({ route, outbound }, sink) => [`${route} ${outbound}`, sink.address];
  const troubled = Object.fromEntries([
    at(DOWN, sinks.down), at(REFUSING, sinks.refusing), at(SLOW, sinks.slow), at(LIMITED, sinks.limited),
  ]);
  const healthy = { "self-hosted": sinks.healthy.address, saas: sinks.saas.address };
  const mirror = await startMirror(binary, path.join(installed, "morning.yml"), routes(healthy, troubled));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  try {
    const loading = load(mirror.inbound, Date.now() + HEALTHY_MS + TROUBLED_MS);
    await sleep(HEALTHY_MS);
    const troubledAt = new Date();
    await trouble(sinks.down);
    await trouble(sinks.refusing, "--status", "403");
    await trouble(sinks.slow, "--delay", "3s");
    await trouble(sinks.limited, "--rate-limit", "transaction:10m");
    await sleep(TROUBLED_MS - 2000);
    const folder = path.join(installed, "morning");
    fs.mkdirSync(folder, { recursive: true });
    await shoot(browser, mirror.admin, folder, troubledAt);
    assert.deepEqual(await loading, []);
    console.log(`the page names each of the five culprits; screenshots are in ${folder}`);
  } finally {
    await browser.close();
    mirror.child.kill("SIGKILL");
    for (const sink of all) sink.child.kill("SIGKILL");
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

// The status page in a headless Chromium, under load and with one outbound failing:
// `node suite.cjs BINARY INSTALLED METRICS`, as `run` calls it.
//
// What the page shows must be what /status says, the console must stay clean, and nothing may be loaded
// from anywhere else. Screenshots in light, dark, without colour and on a phone are left for people.
"use strict";

const assert = require("node:assert/strict");
const { execFileSync, spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const [binary, installed, metrics] = process.argv.slice(2);
const { chromium } = require(path.join(installed, "node/node_modules/playwright-core"));

const LOAD_MS = Number(process.env.LOAD_SECONDS ?? 20) * 1000;
const CLIENTS = 4;
const key = (letter) => letter.repeat(32);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

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

/** Runs the mirror and gives its two addresses. */
async function startMirror(outbounds) {
  const config = path.join(installed, "config.yml");
  const list = (dsns) => dsns.map((dsn) => `      - ${dsn}\n`).join("");
  fs.writeFileSync(
    config,
    `ip: 127.0.0.1\nport: 0\nadmin: {port: 0}\nbreaker: {failures: 5}\nkeys:\n` +
      `  - inbound: http://${key("1")}@mirror.example.com/1\n    outbound:\n${list(outbounds.slice(0, 3))}` +
      `  - inbound: http://${key("2")}@mirror.example.com/2\n    outbound:\n${list(outbounds.slice(3))}`,
  );
  const child = spawn(binary, ["-c", config], { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const address = (pattern) => log.match(pattern)?.[1];
  for await (const text of child.stderr) {
    log += text;
    const inbound = address(/listening on ([\d.:]+)/);
    const admin = address(/status page at (http:[^ ]+)\//);
    if (inbound && admin) {
      child.stderr.resume();
      return { child, inbound, admin };
    }
  }
  throw new Error(`the mirror has ended: ${log}`);
}

/** Sends events over kept connections until `end`; gives how many were answered. */
async function load(inbound, end) {
  let answered = 0;
  const client = async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    while (Date.now() < end) {
      const route = Math.random() < 0.8 ? "1" : "2";
      const body = `{"event_id":"${key("e")}"}\n{"type":"event"}\n{"message":"x"}\n`;
      const [host, port] = inbound.split(":");
      const request = http.request({
        host,
        port,
        agent,
        method: "POST",
        path: `/api/${route}/envelope/`,
        headers: { "X-Sentry-Auth": `Sentry sentry_key=${key(route)}`, "Content-Length": body.length },
      });
      request.end(body);
      const [response] = await once(request, "response");
      response.resume();
      await once(response, "end");
      answered += 1;
      await sleep(5 + Math.random() * 20);
    }
    agent.destroy();
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return answered;
}

/** What the page shows of each outbound, by its name. */
function shown(page) {
  return page.$$eval(".outbound", (cards) =>
    cards.map((card) => ({
      name: card.querySelector(".name").textContent,
      role: card.querySelector(".role").textContent,
      state: card.querySelector(".state").textContent,
      trouble: card.querySelector(".trouble").hidden ? null : card.querySelector(".trouble").textContent,
      ...Object.fromEntries(
        [...card.querySelectorAll("[data-field]")].map((field) => [field.dataset.field, field.textContent]),
      ),
    })),
  );
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

async function compare(page, admin) {
  // The load is over; what is still in flight, and the page, take a moment.
  for (let tries = 0; ; tries += 1) {
    const status = await (await fetch(`${admin}/status`)).json();
    const cards = await shown(page);
    const said = status.routes.flatMap((route) => route.outbounds);
    const number = (text) => Number(text.replaceAll(",", ""));
    const of = (outbound) => [outbound.name, outbound.delivered, outbound.withheld, outbound.lost];
    const onPage = cards.map((card) => [card.name, number(card.delivered), number(card.withheld), number(card.lost)]);
    try {
      assert.deepEqual(onPage, said.map(of));
      assert.deepEqual(cards.map((card) => card.role), said.map((one) => (one.is_primary ? "primary" : "")));
      for (const [index, card] of cards.entries()) {
        const what = said[index].last_error?.what;
        assert.equal(card.trouble === null, what === undefined);
        if (what) assert.ok(card.trouble.includes(what.trim()), `${card.trouble} is not ${what}`);
      }
      return { status, cards };
    } catch (error) {
      if (tries === 20) throw error;
      await sleep(500);
    }
  }
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
  const mirror = await startMirror([
    dsn(servers[0], "a", 11),
    dsn(servers[1], "b", 22),
    `http://${key("c")}@127.0.0.1:${gone}/33`,
    dsn(servers[0], "d", 44),
    dsn(servers[3], "f", 55),
  ]);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  try {
    const loading = load(mirror.inbound, Date.now() + LOAD_MS);
    const page = await browser.newPage({ viewport: { width: 1180, height: 900 }, colorScheme: "light" });
    const wrong = watch(page, mirror.admin);
    await page.goto(`${mirror.admin}/`);
    await page.waitForSelector(".outbound");
    await sleep(LOAD_MS - 3000);
    const verdict = await page.textContent("#verdict");
    const running = await shown(page);
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
    await page.setViewportSize({ width: 1180, height: 900 });
    await page.emulateMedia({ colorScheme: "light" });
    // Not through a style element: the page forbids those that are not its own.
    await page.evaluate(() => (document.documentElement.style.filter = "grayscale(1)"));
    await shoot("grey");
    const answered = await loading;

    assert.equal(verdict, "Of 5 outbounds, 1 gets nothing, 1 loses some, 1 is rate limited");
    const states = running.map((card) => card.state);
    assert.match(states[0], /^●Receiving/);
    assert.match(states[1], /^▲Losing 3\d\.\d %/);
    assert.match(states[2], /^■(Not answering|Failing)/);
    assert.match(states[3], /^●Receiving/);
    assert.match(states[4], /^◐Rate limited/);
    const { status, cards } = await compare(page, mirror.admin);
    const requests = status.routes.reduce((sum, route) => sum + route.requests, 0);
    assert.equal(requests, answered);
    for (const route of status.routes) {
      for (const outbound of route.outbounds) {
        assert.equal(outbound.delivered + outbound.withheld + outbound.lost, route.requests, outbound.name);
      }
    }
    assert.match(cards[2].trouble, /cannot connect: Connection refused/);
    assert.ok(cards[1].trouble.includes('answered 503: {"detail":"no room <b>here</b>"}'));
    console.log(execFileSync(path.join(installed, "python/bin/python"), [metrics, mirror.admin]).toString().trim());
    assert.deepEqual(wrong, []);

    mirror.child.kill("SIGKILL");
    await page.waitForSelector("#stale:not([hidden])");
    assert.ok(wrong.every((line) => /ERR_CONNECTION_REFUSED|Failed to load resource/.test(line)), wrong.join("\n"));
    console.log(`${answered} requests, ${cards.length} outbounds: the page shows what /status says`);
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

// Looks at the page with statuses that a mirror gives rarely: any state, any number of routes, hostile texts.
//
// The page is the mirror's own; only what it gets from /status is made up.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");

const { mixed, status } = require("./fixtures.cjs");

const DESKTOP = { width: 1280, height: 900 };
/** Far more than a busy machine needs. */
const PATIENCE_MS = 180000;
const PHONE = { width: 390, height: 844 };

/** Instead of a status: the mirror is about to start, and answers 503. */
const STARTING = Symbol("starting");

/** Opens the page with a status, and calls `check` with it. Nothing may go wrong meanwhile. */
async function withStatus(browser, admin, answer, { hash = "", ...options }, check) {
  const page = await browser.newPage({ viewport: DESKTOP, colorScheme: "light", ...options });
  page.setDefaultTimeout(PATIENCE_MS);
  const wrong = [];
  page.on("console", (line) => current !== STARTING && wrong.push(`console: ${line.text()}`));
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => wrong.push(`dialog: ${dialog.message()}`));
  let current = answer;
  await page.route("**/status", (route) => route.fulfill(current === STARTING ? { status: 503 } : { json: current }));
  await page.goto(`${admin}/${hash}`);
  await page.waitForSelector("#tools:not([hidden])");
  await check(page, (next) => (current = next));
  assert.deepEqual(wrong, []);
  await page.close();
}

const texts = (page, selector) => page.locator(selector).allTextContents();
const lines = (page) => texts(page, ".line:not([hidden]) .name");
const isWide = (page) => page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);

/** What is cut off at the right, or has to be scrolled to: the beginning of its text. */
const cutOff = (page) => page.evaluate(() => [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest("svg"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5 || (one.matches(".card, section") && one.scrollWidth > one.clientWidth))
  .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`));

const verdict = (page) => page.locator("#verdict .text").textContent();

/** Each state has its shape, its word, and its meaning where it stands. */
async function states(browser, admin) {
  const words = {
    failing: ["■failing", /^■ failing\. It refuses connections since \d\d:\d\d:\d\d, 3 minutes ago; \d+ lost\. The circuit breaker is open because/],
    partly: [/^■failing 3\d %$/, /^■ failing\. It answers 503 since \d\d:\d\d:\d\d, 3 minutes ago; \d+ lost; in the last 15 seconds, 3\d\.\d % of deliveries\.$/],
    slow: ["▲slow", /^▲ slow\. It answers in 3\.3 s on average; 100 % of its answers in the last minute took over 1\.5 s \(reply_timeout\): SDKs wait that long, then get another answer\.$/],
    rate_limited: ["◐rate limited", /^◐ rate limited\. It is rate limited by its server since \d\d:\d\d:\d\d, 3 minutes ago: error and transaction, 58 minutes left; \d+ not delivered\. In the/],
    recovering: ["◌recovering", /^◌ recovering\. It accepts deliveries again; \d+ lost\./],
    receiving: ["●receiving", /^● receiving\. It accepts what it should get\.$/],
    idle: ["○idle", /^○ idle\. There was nothing to deliver/],
  };
  const headlines = {
    failing: /^checkout-1 → self-hosted refuses connections since \d\d:\d\d:\d\d, 3 minutes ago; \d+ lost$/,
    partly: /^checkout-1 → self-hosted answers 503 since \d\d:\d\d:\d\d, 3 minutes ago; \d+ lost; in the last 15 seconds, 3\d\.\d % of deliveries$/,
    slow: "checkout-1 → self-hosted answers in 3.3 s on average; 100 % of its answers in the last minute took over 1.5 s (reply_timeout): SDKs wait that long, then get another answer",
    rate_limited: /^checkout-1 → self-hosted is rate limited by its server since \d\d:\d\d:\d\d, 3 minutes ago: error and transaction, 58 minutes left; \d+ not delivered$/,
    recovering: "The outbound receives again, 1 is recovering",
    receiving: "The outbound receives what it should",
    idle: "Ready and idle",
  };
  for (const [state, [word, why]] of Object.entries(words)) {
    await withStatus(browser, admin, status([[state]]), {}, async (page) => {
      const matches = (text, expected) =>
        expected instanceof RegExp ? assert.match(text, expected) : assert.equal(text, expected);
      matches((await texts(page, ".line .state"))[0], word);
      matches(await verdict(page), headlines[state]);
      const tone = await page.locator(".line").getAttribute("class");
      const expected = { failing: "bad", partly: "bad", slow: "wait", rate_limited: "wait" }[state] ?? "";
      assert.equal(tone.trim(), `line ${expected}`.trim(), "nothing is coloured without a trouble");
      assert.ok((await page.locator(".line .state").getAttribute("title")).length > 20);
      await page.locator(".line button").click();
      assert.match((await texts(page, ".card .why"))[0], why);
    });
  }
}

/** What the page does not say itself about a word, its title does, and without the marks of the documents. */
async function meanings(browser, admin) {
  const answer = status([["partly"]], { unknown: 60 });
  Object.assign(answer.routes[0].outbounds[0].outcomes, { receive: 3, constructor: 2 });
  await withStatus(browser, admin, answer, {}, async (page) => {
    await page.locator(".line button").click();
    const titles = await page.locator("abbr").evaluateAll((all) => Object.fromEntries(all.map((one) => [one.textContent, one.title])));
    assert.equal(titles.constructor, "");
    delete titles.constructor;
    for (const [word, title] of Object.entries(titles)) assert.match(title, /^[A-Z0-9][^`]{10,}\.$/, word);
    const words = ["accepted", "delivered", "rate limited", "lost", "not wanted", "5xx", "receive", "error", "log item", "sampled", "rejecting", "unknown key", "no key"];
    assert.deepEqual(words.filter((word) => !titles[word]), []);
    await page.locator("summary").click();
    const all = await page.locator("#glossary dt").allTextContents();
    const missing = [...Object.keys(titles), "failing", "loop"].filter((word) => !all.some((term) => term.endsWith(word)));
    assert.deepEqual(missing, []);
  });
}

/** Twenty routes fit one screen, with what is in trouble first. */
async function twenty(browser, admin, folder) {
  const answer = mixed(20, { unknown: 60 });
  await withStatus(browser, admin, answer, {}, async (page) => {
    const bottom = await page.evaluate(() => document.querySelector(".line:last-of-type").getBoundingClientRect().bottom);
    assert.ok(bottom <= DESKTOP.height, `the last of 20 routes ends at ${bottom}`);
    assert.equal(await isWide(page), false);
    const names = await lines(page);
    assert.equal(names.length, 20);
    assert.deepEqual(names.slice(0, 5), ["search-14", "billing-15", "cart-18", "mobile-ios-16", "mobile-android-17"]);
    assert.equal(names[5], "checkout-1", "the others in their order");
    assert.equal(await verdict(page), "Of 40 outbounds, 3 fail, 1 is slow, 1 is rate limited; 2.1 % of requests have an unknown key");
    const [first] = await texts(page, "#culprits li");
    assert.match(first, /^■10\.0\.0\.7:9000 refuses connections since \d\d:\d\d:\d\d, 3 minutes ago; \d+ lost; 2 outbounds: search-14, billing-15$/);
    const line = await page.locator("#culprits a").first().evaluate((one) => getComputedStyle(one).textDecorationLine);
    assert.equal(line, "underline", "a line can be clicked");
    const wrongKey = (await texts(page, "#culprits li")).find((text) => text.includes("not configured"));
    assert.match(wrongKey, /^■2\.1 % of the requests of the last minute reached no outbound, because their key is not configured; the last had key "dead…", project 9, client 10\.1\.2\.3, sentry\.python\/2\.75\.0$/);
    await page.screenshot({ path: path.join(folder, "20.png") });
    await page.locator("#culprits a").first().click();
    assert.equal(new URL(page.url()).hash, "#route/search-14");
    assert.equal(await page.locator(".card").count(), 2);
    await page.screenshot({ path: path.join(folder, "20-open.png") });
  });
  await withStatus(browser, admin, answer, { colorScheme: "dark", hash: "#route/cart-18" }, async (page) => {
    assert.equal(await page.locator(".card").count(), 2, "an address opens its route");
    await page.screenshot({ path: path.join(folder, "20-dark.png") });
  });
  await withStatus(browser, admin, answer, { viewport: PHONE }, async (page) => {
    await page.locator(".line button").first().click();
    for (const route of ["cart-18", "search-20"]) await page.locator(`[data-route="${route}"] button`).click();
    assert.equal(await isWide(page), false, "a phone has to scroll sideways");
    assert.deepEqual(await cutOff(page), []);
    const begins = await page.locator(".line .state").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().left));
    assert.equal(new Set(begins).size, 1, `states stand below each other: ${begins}`);
    const title = (selector) => page.locator(selector).evaluate((cell) => [cell.dataset.title, getComputedStyle(cell, "::before").display]);
    assert.deepEqual(await title("#unknown-keys tr:first-child td:nth-child(3)"), ["SDK", "inline"]);
    const label = (selector) => page.locator(selector).first().evaluate((one) => getComputedStyle(one, "::after").content);
    assert.equal(await label(".missing.bad"), '"missing"', "a number has a label");
    assert.equal(await label(".missing.nothing"), "none");
    await page.screenshot({ path: path.join(folder, "20-phone.png"), fullPage: true });
  });
}

/** Of two outbounds in the same state, the one that misses more comes first, in the headline and in the table. */
async function worstFirst(browser, admin) {
  const answer = status([["receiving", "partly"], ["receiving", "rate_limited"], ["receiving", "partly"], ["slow", "receiving"]]);
  const worst = answer.routes[2].outbounds[1];
  worst.incidents = [];
  worst.steps = worst.steps.map((step) => step.map((count) => 40 * count));
  const [first] = answer.routes;
  await withStatus(browser, admin, answer, {}, async (page, change) => {
    const order = ["billing-3", "checkout-1", "mobile-ios-4", "search-2"];
    assert.deepEqual(await lines(page), order);
    const told = await texts(page, "#culprits li");
    assert.deepEqual(told.map((text) => text.match(/^.([\w-]+) /)[1]), order);
    // A little more does not move a line.
    first.outbounds[1].steps[60][2] += 1;
    first.per_second += 1;
    change(answer);
    await page.waitForFunction((rate) => document.querySelector('[data-route="checkout-1"] .rate').textContent === rate, first.per_second.toFixed(1));
    assert.deepEqual(await lines(page), order);
  });
}

/** Two hundred routes are drawn soon, filtered, and moved through with the keyboard. */
async function twoHundred(browser, admin, folder) {
  await withStatus(browser, admin, mixed(200), {}, async (page) => {
    assert.equal((await lines(page)).length, 200);
    await page.screenshot({ path: path.join(folder, "200.png") });
    await page.keyboard.press("/");
    await page.keyboard.type("billing saas");
    const found = await lines(page);
    assert.ok(found.length > 20 && found.every((name) => name.startsWith("billing-")), found.join());
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    const open = page.locator('.line button[aria-expanded="true"] .name');
    assert.deepEqual(await open.allTextContents(), [found[1]]);
    await page.keyboard.press("Enter");
    assert.equal(await open.count(), 0);
    await page.keyboard.press("/");
    await page.keyboard.press("Escape");
    assert.equal((await lines(page)).length, 200);
    await page.locator('#states [data-state="rate_limited"]').click();
    assert.equal((await lines(page)).length, 1);
    await page.locator("#filter").fill("nothing of the kind");
    assert.equal(await page.locator("#none").isVisible(), true);
  });
}

/** A filter, the focus and what is open stay when new numbers arrive. */
async function staysAsItIs(browser, admin) {
  const answer = mixed(20);
  await withStatus(browser, admin, answer, {}, async (page, change) => {
    await page.locator('.line[data-route="checkout-7"] button').click();
    await page.locator("#filter").fill("checkout");
    await page.locator('.line[data-route="checkout-13"] button').focus();
    const recovered = structuredClone(answer);
    recovered.routes = recovered.routes.filter((route) => route.name !== "checkout-1");
    Object.assign(recovered.routes.find((route) => route.name === "checkout-13").outbounds[1], { state: "failing" });
    change(recovered);
    await page.waitForFunction(() => !document.querySelector('.line[data-route="checkout-1"]'));
    assert.deepEqual(await lines(page), ["checkout-13", "checkout-7", "checkout-19"]);
    assert.equal(await page.locator(".card:visible").count(), 2);
    const focused = await page.evaluate(() => document.activeElement.closest(".line")?.dataset.route);
    assert.equal(focused, "checkout-13");
  });
}

/** A trouble that began half a minute ago is told as it is now, not as it was over a whole minute. */
async function fresh(browser, admin) {
  const answer = status([["receiving", "failing"]]);
  const [, outbound] = answer.routes[0].outbounds;
  outbound.upstream.breaker = "closed";
  outbound.steps = outbound.steps.map((_, index) => (index < 54 ? [9, 0, 0] : [0, 0, index < 60 ? 9 : 1]));
  outbound.recent = { seconds: 60, delivered: 54, rate_limited: 0, lost: 46 };
  const began = new Date(new Date(answer.at) - 33000).toISOString();
  outbound.incidents = [{ kind: "rejecting", began_at: began, ended_at: null, seconds: 33, lost_deliveries: 46, reason: "answered 403" }];
  await withStatus(browser, admin, answer, {}, async (page, change) => {
    assert.match(await verdict(page), /^checkout-1 → saas answers 403 since \d\d:\d\d:\d\d, 33 seconds ago; 46 lost; in the last 15 seconds, 100 % of deliveries$/);
    assert.equal((await texts(page, ".line .state"))[1], "■failing", "as one that loses all");
    const bars = await page.locator(".line .side").last().locator("path.down").getAttribute("d");
    assert.equal(bars.split("M").length - 1, 6, "the step that has only begun is not drawn");
    // The link stays the same element: its text changes every other second, and a click must not miss it.
    await page.locator("#verdict a").focus();
    outbound.incidents[0].lost_deliveries = 47;
    change(answer);
    await page.waitForFunction(() => document.querySelector("#verdict").textContent.includes("47 lost"));
    assert.equal(await page.evaluate(() => document.activeElement.closest("#verdict") !== null), true);
    const told = await verdict(page);
    change(STARTING);
    await page.waitForFunction(() => document.querySelector("#verdict .text").textContent === "Starting");
    change(answer);
    await page.waitForFunction((text) => document.querySelector("#verdict .text").textContent === text, told);
  });
}

/** The page says of which time and zone it is, a time of another day has its date, and a breaker that is open says why there is no newer error. */
async function old(browser, admin) {
  const answer = status([["receiving", "failing"]]);
  const [, outbound] = answer.routes[0].outbounds;
  const day = 86400000;
  outbound.incidents[0].began_at = new Date(new Date(answer.at) - 2 * day).toISOString();
  outbound.last_error.at = outbound.incidents[0].began_at;
  await withStatus(browser, admin, answer, { timezoneId: "Asia/Tokyo" }, async (page) => {
    const time = new Date(answer.at).toLocaleTimeString("en-GB", { timeZone: "Asia/Tokyo" });
    assert.equal(await page.locator("#as-of").textContent(), `as of ${time} GMT+9`);
    assert.match(await verdict(page), / since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, 2 days ago; \d+ lost$/);
    await page.locator(".line button").click();
    const card = page.locator('.card[data-outbound="saas"]');
    assert.match(await card.locator(".upstream").textContent(), / · breaker open, 36 of 36 probes failed · /);
    const text = await card.innerText();
    assert.match(text, /Last error of a delivery, \d{4}-.*, 2 days ago\s+cannot connect: .*\s+The breaker is open: nothing is sent, and no probe has connected yet\./);
  });
}

/** No text of an upstream, a client or a configuration is markup. */
async function hostileTexts(browser, admin) {
  const evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>';
  const answer = status([["failing", "rate_limited"], ["receiving"]], { unknown: 60 });
  const [route] = answer.routes;
  const [failing, limited] = route.outbounds;
  Object.assign(route, { name: evil, dsn: evil, answers: { [evil]: 3 } });
  Object.assign(failing, { name: evil, dsn: evil, last_error: { at: answer.at, message: evil }, outcomes: { [evil]: 1 } });
  failing.incidents = [{ kind: "unanswered", began_at: answer.at, ended_at: null, seconds: 3, lost_deliveries: 5, reason: evil }];
  failing.items = { [evil]: { [evil]: 3 } };
  answer.disagreements = [{
    at: answer.at,
    route: evil,
    endpoint: evil,
    event_id: null,
    items: [{ category: evil, bytes: 3 }],
    items_left_out: 0,
    outcomes: [{ outbound: evil, outcome: "4xx", status: 413, reason: evil }],
  }];
  failing.upstream.origin = evil;
  limited.rate_limits = [{ categories: [evil], seconds: 60 }];
  for (const key of answer.unknown_keys.last) Object.assign(key, { key: evil, project: evil, sdk: evil, client: evil });
  Object.assign(answer, { version: evil, driver: evil, listening_on: evil, rejections: { [evil]: 1 } });
  await withStatus(browser, admin, answer, {}, async (page) => {
    await page.locator(".line button").first().click();
    await page.waitForSelector(".card");
    const found = await page.evaluate(() => document.querySelectorAll("img, body script[src], main script, footer script").length);
    assert.equal(found, 0);
    const text = await page.locator("body").innerText();
    for (const place of ["#verdict", ".card", "#unknown-keys", "footer"]) {
      assert.ok((await page.locator(place).first().innerText()).includes("onerror=alert(1)") || place === "#verdict", place);
    }
    assert.ok(text.split("onerror=alert(1)").length > 10, "the texts are shown as they are");
    assert.equal(await isWide(page), false);
    await page.setViewportSize(PHONE);
    assert.deepEqual(await cutOff(page), []);
  });
}

/** The routes have names of their own, or none, and several outbounds. */
async function shapes(browser, admin, folder) {
  await withStatus(browser, admin, mixed(20, { names: null }), {}, async (page) => {
    assert.equal(await isWide(page), false);
    assert.equal((await texts(page, ".line .who"))[0], "relay-0.example:3000/10");
    await page.screenshot({ path: path.join(folder, "20-dsns.png") });
  });
  const three = status([["receiving", "failing", "slow", "idle"], ["receiving"]]);
  await withStatus(browser, admin, three, {}, async (page) => {
    assert.equal(await isWide(page), false);
    assert.deepEqual(await texts(page, "#routes > thead .title"), ["self-hosted", "saas", "archive", "eu"]);
    await page.screenshot({ path: path.join(folder, "4-outbounds.png") });
  });
}

/** What is remembered of an outbound and its route is in the details. */
async function memory(browser, admin) {
  await withStatus(browser, admin, status([["receiving", "failing"]]), {}, async (page) => {
    await page.locator(".line button").click();
    const card = page.locator('.card[data-outbound="saas"]');
    const text = await card.innerText();
    for (const part of [/error\s+[\d,]+\s+\d+\s/, /log item\s+51,200/, /until now\s+unanswered\s+\d+\s+cannot connect/, /6 minutes\s+unanswered\s+12/]) {
      assert.match(text, part);
    }
    assert.deepEqual(await cutOff(page), []);
    const refused = await page.locator(".disagreements").innerText();
    assert.match(refused, /fc6d8c0c43fc4630ad850ee518f1b9d0\s+error 1024 KiB, 2 more\s+self-hosted: 200; saas: 413 envelope exceeded size limits/);
  });
}

async function look(browser, admin, folder) {
  await states(browser, admin);
  await meanings(browser, admin);
  await twenty(browser, admin, folder);
  await worstFirst(browser, admin);
  await twoHundred(browser, admin, folder);
  await staysAsItIs(browser, admin);
  await fresh(browser, admin);
  await old(browser, admin);
  await hostileTexts(browser, admin);
  await memory(browser, admin);
  await shapes(browser, admin, folder);
}

module.exports = { look };

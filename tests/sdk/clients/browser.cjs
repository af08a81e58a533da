// What a web application with the browser SDK sends: `node browser.cjs MODULES SDK MODE [no-dialog]`,
// DSN in SENTRY_DSN. A headless Chromium opens a page of another origin and a user works with it.
//
// MODULES is the folder with SDK (a name of @sentry/browser), esbuild and playwright-core; CHROMIUM
// may name another browser. MODE is one of
//   direct     as the SDK comes,
//   tunnel     everything goes to a path of the mirror, which finds the key in the bodies,
//   preflight  a tunnel with headers for which the browser first asks with OPTIONS.
//
// With a word behind it, the crash-report dialog is left out: Relay does not serve it.
//
// A step announces requests (see README.md) and ends when the browser has the answers. Any error in
// the browser which the program did not cause on purpose, as one of CORS, makes it fail.
"use strict";

const { once } = require("node:events");
const http = require("node:http");
const path = require("node:path");

const [modules, sdk, mode, noDialog] = process.argv.slice(2);
const esbuild = require(path.resolve(modules, "esbuild"));
const { chromium } = require(path.resolve(modules, "playwright-core"));

const STEP_MS = 20_000;
const dsn = process.env.SENTRY_DSN;
const { origin: mirror, username: key } = new URL(dsn);
// Version 11 sends the spans of a trace as they end, version 10 collected in a transaction.
const traced = sdk.endsWith("-10") ? "transaction" : "span";
const urlencoded = "application/x-www-form-urlencoded";
const preflight = mode === "preflight" ? ["OPTIONS"] : [];

// What the console must show, so that an empty one is known to mean something: an error of the page
// and a request to a server that, unlike the mirror, says nothing of CORS.
const onPurpose = [/^uncaught on purpose/, /\/no-cors.* blocked by CORS policy/, /\/no-cors/];

/** Runs in the page. The defaults send no replay; the step for it starts one. */
function startSdk({ dsn, key, tunnel, preflight }) {
  Sentry.init({
    dsn,
    tunnel,
    transportOptions: preflight && { headers: { "Content-Type": "application/json" } },
    tracePropagationTargets: preflight ? [/./] : undefined,
    release: "app@1.2.3",
    environment: "prod",
    tracesSampleRate: 1,
    enableLogs: true,
    integrations: [
      Sentry.browserTracingIntegration(),
      Sentry.replayIntegration({ minReplayDuration: 0 }),
      Sentry.feedbackIntegration({ autoInject: false }),
    ],
    beforeSend: (event) => (event.message === "dropped" ? null : event),
  });
  // Text that looks like a key site where there is none: it must pass unchanged.
  Sentry.setTag("look-alike", key);
  Sentry.setContext("look-alike", { text: `\n{"dsn":"${dsn}"}\r\n\n"public_key":"${key}"` });
}

/** The server of the page; `localhost` is another site than the mirror's 127.0.0.1. */
async function servePage() {
  const built = await esbuild.build({
    stdin: { contents: `export * from "${sdk}"`, resolveDir: path.resolve(modules) },
    bundle: true,
    minify: true,
    format: "iife",
    globalName: "Sentry",
    write: false,
  });
  const tunnel = mode === "direct" ? undefined : `${mirror}/tunnel`;
  const settings = JSON.stringify({ dsn, key, tunnel, preflight: mode === "preflight" });
  const content = {
    "/": `<!doctype html><title>Shop</title><link rel="icon" href="data:,">
      <script src="/sdk.js"></script><script>(${startSdk})(${settings})</script>
      <h1>Shop</h1><button onclick="this.textContent += ' größer'">Buy</button>`,
    "/sdk.js": built.outputFiles[0].contents,
    "/no-cors": "unreadable elsewhere",
  };
  const server = http.createServer((request, response) => {
    const type = request.url.endsWith(".js") ? "text/javascript" : "text/html";
    response.setHeader("Content-Type", `${type}; charset=utf-8`);
    response.statusCode = request.url in content ? 200 : 404;
    response.end(content[request.url]);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return server;
}

/** The items of an envelope: their types and payloads. */
function envelopeItems(body) {
  const items = [];
  let at = body.indexOf("\n") + 1;
  while (at > 0 && at < body.length) {
    const line = body.indexOf("\n", at);
    const { type, length } = JSON.parse(body.subarray(at, line));
    let end = length === undefined ? body.indexOf("\n", line + 1) : line + 1 + length;
    end = end < 0 ? body.length : end;
    items.push({ type, payload: body.subarray(line + 1, end) });
    at = end + 1;
  }
  return items;
}

/** A request as it is announced: its items, or the media type or method if it is no envelope. */
function kind(request) {
  const items = envelopeItems(request.postDataBuffer() ?? Buffer.alloc(0));
  for (const { type, payload } of items) {
    const zlib = payload[payload.indexOf("\n") + 1] === 0x78;
    if (type === "replay_recording" && !zlib) throw new Error("the recording is not compressed");
  }
  const [mediaType] = (request.headers()["content-type"] ?? request.method()).split(";");
  return items.map(({ type }) => type).join("+") || mediaType;
}

/** All that goes wrong in the page from now on, in the order of its appearance. */
function watchErrors(page) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => {
    if (line.type() === "error") errors.push(`${line.text()} ${line.location().url}`);
  });
  page.on("requestfailed", (request) => {
    errors.push(`${request.method()} ${request.url()} ${request.failure().errorText}`);
  });
  return errors;
}

/** Announces what `act` makes the page send, acts, and waits until the browser has the answers. */
async function step(page, name, kinds, act) {
  for (const each of kinds) {
    const framing = each === "OPTIONS" || each === "GET" ? "none" : "length";
    console.log(JSON.stringify([name, each, "identity", framing]));
  }
  // Preflights are the browser's own affair: nobody but the mirror sees them.
  const missing = kinds.filter((each) => each !== "OPTIONS");
  const answers = page.waitForEvent("requestfinished", {
    timeout: STEP_MS,
    predicate: (request) => {
      const at = request.url().startsWith(mirror) ? missing.indexOf(kind(request)) : -1;
      if (at >= 0) missing.splice(at, 1);
      return missing.length === 0;
    },
  });
  try {
    await Promise.all([answers, act()]);
  } catch (error) {
    throw new Error(`${name}: ${missing.join(", ") || "nothing"} missing: ${error}`);
  }
}

async function visit(page, home) {
  await step(page, "page load", [...preflight, "session", traced], () => page.goto(home));

  await step(page, "uncaught error", ["event", "session"], () =>
    page.evaluate(() => {
      setTimeout(() => {
        throw new Error("uncaught on purpose: größer");
      });
    }),
  );

  await step(page, "attachment", ["event+attachment"], () =>
    page.evaluate(() => {
      Sentry.withScope((scope) => {
        const data = crypto.getRandomValues(new Uint8Array(50_000));
        scope.addAttachment({ filename: "random.bin", data });
        Sentry.captureMessage("with an attachment");
      });
    }),
  );

  await step(page, "transaction", [traced], () =>
    page.evaluate((key) => {
      Sentry.startSpan({ name: `checkout ${key}`, op: "test", forceTransaction: true }, () =>
        Sentry.startSpan({ name: "add up", op: "function" }, () => {}),
      );
      return Sentry.flush();
    }, key),
  );

  await step(page, "logs", ["log"], () =>
    page.evaluate(() => {
      Sentry.logger.info("one", { thing: "ü" });
      return Sentry.flush();
    }),
  );

  await step(page, "feedback widget", ["feedback"], async () => {
    await page.evaluate(async () => {
      const form = await Sentry.getFeedback().createForm();
      form.appendToDom();
      form.open();
    });
    await page.fill("[name=name]", "Ada");
    await page.fill("[name=email]", "ada@example.com");
    await page.fill("[name=message]", "größer & better");
    await page.click("[type=submit]");
  });

  await step(page, "feedback, screenshot", ["feedback+attachment"], () =>
    page.evaluate(() => {
      const data = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 255]);
      const attachments = [{ filename: "screenshot.png", data, contentType: "image/png" }];
      Sentry.captureFeedback({ message: "Look at this." }, { attachments });
    }),
  );

  const recording = "replay_event+replay_recording";
  await step(page, "replay, first segment", [recording], async () => {
    await page.evaluate(() => Sentry.getReplay().start());
    await page.getByText("Buy").click();
    await page.evaluate(() => Sentry.getReplay().flush());
  });
  await step(page, "replay, its end", [recording], async () => {
    await page.getByText("Buy").click();
    await page.evaluate(() => Sentry.getReplay().stop());
  });

  if (!noDialog) await crashReport(page);

  // The SDK sends its report when the page is hidden. Headless Chromium hides none, and does not
  // show the requests of a page that has been left.
  await step(page, "client report", ["client_report"], () =>
    page.evaluate(() => {
      Sentry.captureMessage("dropped");
      Object.defineProperty(document, "visibilityState", { value: "hidden" });
      document.dispatchEvent(new Event("visibilitychange"));
      return Sentry.flush(); // What the SDK measures until now is due, too.
    }),
  );
}

/** The crash-report dialog: its script comes from the mirror, and so must its form go there. */
async function crashReport(page) {
  await step(page, "crash report, script", ["GET"], () =>
    page.evaluate(() => {
      const eventId = "0123456789abcdef".repeat(2);
      const user = { name: "Ada & Bob", email: "ada@example.com" };
      const onClose = () => { document.title = "closed"; };
      Sentry.showReportDialog({ eventId, user, onClose });
    }),
  );
  const dialog = page.locator(".sentry-error-embed");
  await step(page, "crash report, form", [...preflight, urlencoded], async () => {
    await dialog.locator("[name=name]").fill("Ada");
    await dialog.locator("[name=email]").fill("ada@example.com");
    await dialog.locator("[name=comments]").fill("größer & \"better\"\n100 %");
    await dialog.locator("[type=submit]").click();
  });
  await dialog.getByText("Thank you").waitFor();
  await dialog.getByText("Close").click();
  await page.waitForFunction(() => document.title === "closed");
}

async function main() {
  const server = await servePage();
  const { port } = server.address();
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  try {
    const page = await browser.newPage();
    const errors = watchErrors(page);
    await visit(page, `http://localhost:${port}/`);
    await page.evaluate((url) => fetch(url).catch(() => {}), `http://127.0.0.1:${port}/no-cors`);

    const unexpected = errors.filter((text) => !onPurpose.some((known) => known.test(text)));
    const unseen = onPurpose.filter((known) => !errors.some((text) => known.test(text)));
    if (unexpected.length) throw new Error(`errors in the browser:\n${unexpected.join("\n")}`);
    if (unseen.length) throw new Error(`${unseen.join(", ")} not seen:\n${errors.join("\n")}`);
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
  }
}

main();

// What an application with the Node SDK sends: `node node.cjs PACKAGE [TUNNEL]`, DSN in SENTRY_DSN.
//
// PACKAGE is the folder of the installed @sentry/node. With a TUNNEL path everything goes there.
// Each step says what it is about to send (see README.md) and flushes, so that one step is one
// envelope. The SDK compresses only bodies above 32 KiB, and all bodies must be chunked.
"use strict";

const crypto = require("node:crypto");

const [packageFolder, tunnel] = process.argv.slice(2);
const Sentry = require(packageFolder);

const dsn = process.env.SENTRY_DSN;
const { origin, username: key } = new URL(dsn);
// Text that looks like a key site where there is none: it must pass unchanged.
const lookAlike = `\n{"dsn":"${dsn}"}\r\n\n"public_key":"${key}"\0`;

async function step(name, items, encoding = "identity") {
  await Sentry.flush(10_000);
  console.log(JSON.stringify([name, items, encoding, "chunked"]));
}

Sentry.init({
  dsn,
  tunnel: tunnel && origin + tunnel,
  release: "app@1.2.3",
  environment: "prod",
  tracesSampleRate: 1,
  enableLogs: true,
  beforeSend: (event) => (event.message === "dropped" ? null : event),
  // Its session ends when the process does, after the last step; ours are explicit.
  integrations: (defaults) => defaults.filter(({ name }) => name !== "ProcessSession"),
});

async function main() {
  await step("error", "event");
  Sentry.setTag("look-alike", key);
  Sentry.captureException(new Error("größer"));

  await step("large error", "event", "gzip");
  Sentry.captureMessage("large", { extra: { text: "更大 ".repeat(20_000) } });

  await step("attachment", "event+attachment+attachment", "gzip");
  Sentry.withScope((scope) => {
    scope.addAttachment({ filename: "look-alike.bin", data: lookAlike });
    scope.addAttachment({ filename: "random.bin", data: crypto.randomBytes(300_000) });
    Sentry.captureMessage("with attachments");
  });

  await step("small attachment", "event+attachment");
  Sentry.withScope((scope) => {
    scope.addAttachment({ filename: "small.bin", data: new Uint8Array([0, 10, 13, 10, 255]) });
    Sentry.captureMessage("with a small attachment");
  });

  const traced = Sentry.SDK_VERSION.startsWith("10.") ? "transaction" : "span";
  await step("transaction", traced);
  Sentry.startSpan({ name: `checkout ${key}`, op: "test" }, () =>
    Sentry.startSpan({ name: "select 1", op: "db" }, () => {}),
  );

  await step("session", "session");
  Sentry.startSession();
  Sentry.endSession();

  await step("logs", "log");
  Sentry.logger.info("one", { thing: "ü" });
  Sentry.logger.error("two");

  await step("metrics", "trace_metric");
  Sentry.metrics.count("orders", 1);
  Sentry.metrics.distribution("latency", 12.5, { unit: "millisecond" });

  await step("check-in", "check_in");
  Sentry.captureCheckIn(
    { monitorSlug: "nightly", status: "in_progress" },
    { schedule: { type: "crontab", value: "0 * * * *" } },
  );

  await step("feedback", "feedback");
  Sentry.captureFeedback({ message: "It is good.", name: "Ada", email: "ada@example.com" });

  // The SDK sends its report when the process is about to end.
  await step("client report", "client_report");
  Sentry.captureMessage("dropped");
  await Sentry.flush(10_000);
}

main();

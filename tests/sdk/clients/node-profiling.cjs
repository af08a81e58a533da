// What the profiler of the Node SDK sends: `node node-profiling.cjs MODULES`, DSN in SENTRY_DSN.
//
// Apart from node.cjs because the profiler is published for certain versions of the SDK only.
"use strict";

const path = require("node:path");

const [modules] = process.argv.slice(2);
const Sentry = require(path.join(modules, "@sentry/node"));
const { nodeProfilingIntegration } = require(path.join(modules, "@sentry/profiling-node"));

Sentry.init({
  dsn: process.env.SENTRY_DSN,
  release: "app@1.2.3",
  environment: "prod",
  profileSessionSampleRate: 1,
  profileLifecycle: "manual",
  // The session would end when the process does, after the last step.
  integrations: (defaults) => [
    ...defaults.filter(({ name }) => name !== "ProcessSession"),
    nodeProfilingIntegration(),
  ],
});

async function main() {
  console.log(JSON.stringify(["profile chunk", "profile_chunk", "identity", "chunked"]));
  Sentry.profiler.startProfiler();
  // The profiler wants to see something.
  const end = performance.now() + 300;
  let work = 0;
  while (performance.now() < end) work += Math.sqrt(work + 1);
  Sentry.profiler.stopProfiler();
  await Sentry.flush(10_000);
}

main();

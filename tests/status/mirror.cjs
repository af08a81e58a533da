// Starts the mirror, and what stands in for Sentry.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");

const key = (letter) => letter.repeat(32);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts a program, and gives its process and what each of `patterns` finds in its output. */
async function start(program, args, output, patterns) {
  const stdio = ["ignore", "ignore", "ignore"];
  stdio[{ stdout: 1, stderr: 2 }[output]] = "pipe";
  const child = spawn(program, args, { stdio });
  let text = "";
  for await (const part of child[output].iterator({ destroyOnReturn: false })) {
    text += part;
    const found = patterns.map((pattern) => text.match(pattern)?.[1]);
    if (found.every(Boolean)) {
      child[output].resume();
      return [child, ...found];
    }
  }
  throw new Error(`${program} ${args.join(" ")} has ended: ${text}`);
}

/** Runs the mirror, and gives its process and its two addresses. `keys` is the last part of its configuration. */
async function startMirror(binary, file, keys) {
  fs.writeFileSync(file, `ip: 127.0.0.1\nport: 0\nadmin: {port: 0}\nbreaker: {failures: 5}\nkeys:\n${keys}`);
  const addresses = [/listening on ([\d.:]+)/, /status page at (http:[^ ]+)\//];
  const [child, inbound, admin] = await start(binary, ["-c", file], "stderr", addresses);
  return { child, inbound, admin };
}

/** A stand-in for Sentry that answers as the options of `sentry-mirror sink` say. */
async function startSink(binary, ...options) {
  const listen = options.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
  const args = ["sink", ...listen, ...options];
  const [child, address] = await start(binary, args, "stdout", [/listening on ([\d.:]+)\.\n/]);
  return { child, address };
}

module.exports = { key, sleep, startMirror, startSink };

// Starts the mirror, and what stands in for Sentry.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");

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

/** Sends a request with an item; resolves to what went wrong, or to nothing, once it is answered. */
function send(agent, inbound, publicKey, project, type, client = "sentry.python/2.75.0") {
  const body = `{"event_id":"${key("e")}"}\n{"type":"${type}"}\n{"message":"x"}\n`;
  const [host, port] = inbound.split(":");
  const request = http.request({
    host,
    port,
    agent,
    method: "POST",
    path: `/api/${project}/envelope/`,
    headers: { "X-Sentry-Auth": `Sentry sentry_key=${publicKey}, sentry_client=${client}`, "Content-Length": body.length },
  });
  request.end(body);
  return new Promise((resolve) => {
    request.on("error", resolve);
    request.on("response", (response) => response.resume().on("end", () => resolve(null)));
  });
}

module.exports = { key, send, sleep, startMirror, startSink };

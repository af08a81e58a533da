// Statuses as the mirror gives them, with outbounds in any state and of any number.
"use strict";

const STEPS = 60;
const STEP_SECONDS = 5;
const NOW = new Date();
const ago = (seconds) => new Date(NOW - seconds * 1000).toISOString();
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The same numbers in each run. */
function randomly(seed) {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
}

/** The deliveries of each step: delivered, rate limited, lost. */
function stepsOf(state, perStep, random) {
  return Array.from({ length: STEPS + 1 }, (_, index) => {
    const count = Math.round(perStep * (0.6 + 0.8 * random()));
    switch (state) {
      case "failing": return index < 24 ? [count, 0, 0] : [0, 0, count];
      case "partly": return index < 30 ? [count, 0, 0] : [count - Math.ceil(count / 3), 0, Math.ceil(count / 3)];
      case "rate_limited": return index < 20 ? [count, 0, 0] : [Math.floor(count / 4), Math.ceil(count * 0.75), 0];
      case "recovering": return index > 40 && index < 55 ? [0, 0, count] : [count, 0, 0];
      case "idle": return [0, 0, 0];
      default: return [count, 0, 0];
    }
  });
}

const ERRORS = {
  failing: "cannot connect: Connection refused (os error 111)",
  partly: 'answered 503: {"detail":"no room <b>here</b>"}',
  rate_limited: "answered 429: usage exceeded",
  recovering: "cannot connect: Connection refused (os error 111)",
};

const KINDS = { failing: "unanswered", partly: "rejecting", recovering: "unanswered" };

/** The incidents of an outbound: what goes on, and one of yesterday. */
function incidentsOf(state, lost) {
  const kind = KINDS[state];
  if (!kind) return [];
  const incident = { kind, began_at: ago(185), ended_at: null, seconds: 185, reason: ERRORS[state], lost_deliveries: lost };
  const ended = { ...incident, began_at: ago(86400), ended_at: ago(86000), seconds: 400, lost_deliveries: 12 };
  return [state === "recovering" ? { ...incident, ended_at: ago(25), seconds: 160 } : incident, ended];
}

/** An outbound in a state; `partly` is a failing one that accepts some. */
function outbound(state, { name, index, origin, perStep, random }) {
  const steps = stepsOf(state, perStep, random);
  const minute = steps.slice(-12);
  const of = (list, at) => sum(list.map((step) => step[at]));
  const [delivered, limited, lost] = [0, 1, 2].map((at) => of(minute, at));
  const all = delivered + limited + lost;
  const isFailing = state === "failing" || state === "partly";
  const latency = state === "slow" ? { mean: 3.3, p50: 3.4, p90: 4.4, p99: 4.9 } : { mean: 0.0241, p50: 0.0212, p90: 0.041, p99: 0.093 };
  const first = steps.findIndex((step) => sum(step) > 0);
  return {
    name,
    dsn: `http://${"abcdef"[index % 6].repeat(4)}…@${origin.replace("http://", "")}/${10 + index}`,
    is_primary: index === 0,
    delivered: 1000 + of(steps, 0),
    unwanted: index === 1 ? 240 : 0,
    rate_limited: of(steps, 1),
    lost: of(steps, 2),
    outcomes: { "2xx": 1000 + of(steps, 0), ...(lost ? { [state === "partly" ? "5xx" : "connect"]: of(steps, 2) } : {}) },
    bytes: 12345678,
    per_second: all / 60,
    success: all > 0 ? delivered / all : null,
    recent: { seconds: 60, delivered, rate_limited: limited, lost },
    slow_share: state === "slow" ? 1 : 0,
    state: isFailing ? "failing" : state,
    latency_seconds: all > 0 ? latency : { mean: null, p50: null, p90: null, p99: null },
    steps: first < 0 ? [] : steps.slice(first),
    rate_limits: state === "rate_limited" ? [{ categories: ["error", "transaction"], seconds: 3480 }] : [],
    items: all > 0 ? { error: { delivered: 1000 + of(steps, 0), ...(lost ? { lost: of(steps, 2) } : {}) }, log_item: { delivered: 51200, sampled: 9801 } } : {},
    incidents: incidentsOf(state, of(steps, 2)),
    last_error: ERRORS[state] ? { at: ago(4), message: ERRORS[state] } : null,
    upstream: {
      origin,
      breaker: state === "failing" ? "open" : "closed",
      probes: state === "failing" ? { failed: 36 } : {},
      in_flight: state === "slow" ? 31 : 1,
      connections_open: 4,
      connections_idle: 3,
      addresses: 2,
      addresses_avoided: state === "failing" ? 1 : 0,
      dns_age_seconds: 21,
    },
  };
}

/**
 * A status with a route for each of `routes`: a list of the states of its outbounds. `names` names the
 * outbounds by position, or is null, so that they have DSNs for names.
 */
function status(routes, { names = ["self-hosted", "saas", "archive", "eu"], unknown = 0, perStep = 12 } = {}) {
  const random = randomly(7);
  const made = routes.map((states, number) => {
    const outbounds = states.map((state, index) => {
      const origin = state === "failing" ? "http://10.0.0.7:9000" : `http://relay-${index}.example:300${index}`;
      const made = outbound(state, { name: null, index, origin, perStep, random });
      return { ...made, name: names?.[index] ?? made.dsn };
    });
    const requests = sum(outbounds[0].steps.map(sum)) + 1000;
    const dsn = `http://${(number + 4096).toString(16)}…@mirror.example.com/${number + 1}`;
    const latency = states.includes("slow") ? { p50: 1.5, p90: 1.5, p99: 1.55 } : { p50: 0.0221, p90: 0.05, p99: 0.1 };
    return {
      name: names ? `${["checkout", "search", "billing", "mobile-ios", "mobile-android", "cart"][number % 6]}-${number + 1}` : dsn,
      dsn,
      requests,
      answers: { accepted: requests },
      per_second: outbounds[0].per_second,
      latency_seconds: latency,
      outbounds,
    };
  });
  const requests = Math.round(60 * sum(made.map((route) => route.per_second)));
  return {
    version: "0.2.0",
    stage: "ready",
    at: NOW.toISOString(),
    started_at: ago(260000),
    uptime_seconds: 260000,
    listening_on: "0.0.0.0:3000",
    driver: "io_uring",
    workers: 4,
    step_seconds: STEP_SECONDS,
    reply_timeout_seconds: 1.5,
    connections: { open: 57, accepted: 123456 },
    request_memory_bytes: 1234567,
    request_memory_limit_bytes: 536870912,
    received_bytes: 987654321,
    answers: { accepted: requests },
    rejections: unknown ? { unknown_key: unknown, no_key: 2 } : {},
    recent: { seconds: 60, requests: requests + unknown, unknown_key: unknown },
    unknown_keys: {
      last: unknown
        ? [
          { key: "dead…", project: "9", sdk: "sentry.python/2.75.0", client: "10.1.2.3", requests: 612, first_seconds_ago: 4000, last_seconds_ago: 2 },
          { key: "bead…", project: null, sdk: "Mozilla/5.0 (X11; Linux x86_64) <script>alert(1)</script>", client: "2001:db8::7", requests: 3, first_seconds_ago: 90, last_seconds_ago: 31 },
        ]
        : [],
      others: 0,
    },
    disagreements: made.slice(-1).map((route) => ({
      at: ago(70),
      route: route.name,
      endpoint: "envelope",
      event_id: "fc6d8c0c43fc4630ad850ee518f1b9d0",
      items: [{ category: "error", bytes: 1048211 }],
      items_left_out: 2,
      outcomes: route.outbounds.map(({ name }, index) =>
        index === 0 ? { outbound: name, outcome: "2xx", status: 200 } : { outbound: name, outcome: "4xx", status: 413, reason: "envelope exceeded size limits" }),
    })),
    reloads: { done: 3, refused: 0 },
    routes: made,
  };
}

/** So many routes with two outbounds each, of which the last ones have troubles of all kinds. */
function mixed(count, options) {
  const troubles = [
    ["receiving", "failing"], ["receiving", "failing"], ["slow", "receiving"], ["receiving", "rate_limited"],
    ["receiving", "partly"], ["receiving", "recovering"], ["idle", "idle"],
  ];
  const good = Array.from({ length: Math.max(count - troubles.length, 0) }, () => ["receiving", "receiving"]);
  return status([...good, ...troubles].slice(-count), options);
}

module.exports = { mixed, status };

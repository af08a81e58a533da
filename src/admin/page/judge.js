// What is wrong, in words.

/** An incident that begins again so soon goes on. */
const INCIDENT_CONTINUES_SECONDS = 60;

/** Losses that are this many steps old are over, if something was delivered since. */
const QUIET_STEPS = 3;

/** The states of an outbound, the worst first: shape, word, tone, meaning. */
const STATES = {
  failing: ["■", "failing", "bad",
    "Deliveries were lost in the last 15 seconds, or the circuit breaker is open because the upstream does not answer."],
  slow: ["▲", "slow", "wait",
    "More than 5 % of its answers in the last minute took longer than reply_timeout."],
  rate_limited: ["◐", "rate limited", "wait",
    "In the last minute deliveries were not sent, or answered 429, because of a rate limit of the outbound."],
  recovering: ["◌", "recovering", "idle",
    "Deliveries were lost less than a minute ago, but none in the last 15 seconds, and some were delivered since."],
  receiving: ["●", "receiving", "good", "It accepts what it should get."],
  idle: ["○", "idle", "idle", "There was nothing to deliver in the last minute."],
};

const GLOSSARY = [
  ...Object.values(STATES).map(([shape, word, , meaning]) => [`${shape} ${word}`, meaning]),
  ["delivered", "Answered 2xx by the outbound."],
  ["lost", "Not sent, or not accepted, although the outbound should get it."],
  ["rate limited", "Not sent, or answered 429, because of a rate limit: the outbound does not want it now."],
  ["missing", "Lost and rate limited together."],
  ["not wanted", "Not sent because the configuration says so: filtered, or not in the sample."],
  ["accepted", "The share of deliveries that were delivered."],
  ["primary", "The first outbound of a route. SDKs get its answer, and wait for it for up to reply_timeout."],
  ["unknown key", "A key that no inbound DSN has. Such requests are rejected and reach no outbound."],
];

/** What the groups of other words are about. */
const MEANING_TITLES = [
  ["incidents", "Kinds of incidents"],
  ["outcomes", "What became of a delivery"],
  ["items", "What became of an item"],
  ["categories", "Categories of items"],
  ["answers", "What SDKs were answered"],
  ["rejections", "Why a request was rejected"],
];

const meaningOf = (term) => GLOSSARY.find(([word]) => word === term)[1];

/** What the state of an outbound means, for one that fails the part of it that is true. */
function stateMeaning(outbound, status) {
  if (outbound.state !== "failing") return STATES[outbound.state][3];
  if (outbound.upstream?.breaker === "open") {
    return "The circuit breaker is open because the upstream does not answer: nothing is sent until a probe connects.";
  }
  const hasNewLoss = outbound.steps.slice(-QUIET_STEPS).some((step) => step[2] > 0);
  return hasNewLoss
    ? `Deliveries were lost in the last ${QUIET_STEPS * status.step_seconds} seconds.`
    : "Deliveries were lost in the last minute, and none was accepted since.";
}

const severity = (outbound) => Object.keys(STATES).length - Object.keys(STATES).indexOf(outbound.state);
const TROUBLE = severity({ state: "rate_limited" });
const isTrouble = (outbound) => severity(outbound) >= TROUBLE;
/** By how much an outbound is worse than another: by its state, then by what it misses, coarsely, so that lines stay. */
const badness = (outbound) => severity(outbound) + Math.min(Math.floor(Math.log2(missing(outbound) + 1)), 60) / 64;
const missing = (outbound) => sum(outbound.steps.map(([, limited, lost]) => limited + lost));

/**
 * The share of deliveries that are lost now. Over a whole minute, what was delivered before the trouble began would make
 * a total loss look like a partial one.
 */
function lossNow(outbound, status) {
  const newest = outbound.steps.slice(-QUIET_STEPS);
  const [delivered, lost] = [0, 2].map((kind) => sum(newest.map((step) => step[kind])));
  if (outbound.upstream?.breaker === "open" || delivered + lost === 0) return { share: 1, words: "" };
  const share = lost / (delivered + lost);
  return { share, words: lost === 0 ? "" : `in the last ${QUIET_STEPS * status.step_seconds} seconds, ${percent(share)} of deliveries` };
}

/** What an upstream does, in short, according to an error or to its own words. */
function misdeed(text) {
  const status = text.match(/^answered (\d+)/)?.[1] ?? text.match(/^(\d{3})\b/)?.[1];
  if (status) return `answers ${status}`;
  const known = [
    [/refused/, "refuses connections"],
    [/timeouts\.connect|timed out|unreachable|No route to host/i, "cannot be reached"],
    [/no known address/, "has no known address"],
    [/^TLS/, "fails the TLS handshake"],
    [/silent|timeouts\.exchange/, "does not answer"],
    [/too slowly/, "is too slow"],
    [/reset|closed/i, "closes connections"],
    [/limits\.|out of memory/, "is slower than the traffic"],
    [/malformed/, "answers what is not HTTP"],
  ];
  return known.find(([pattern]) => pattern.test(text))?.[1] ?? "does not accept deliveries";
}

/** The current incident of an outbound, if the mirror tells of one; otherwise what its steps say. */
function trouble(outbound, status) {
  const index = outbound.state === "rate_limited" ? 1 : 2;
  const kinds = { failing: ["unanswered", "rejecting"], rate_limited: ["rate_limited"], recovering: ["unanswered", "rejecting"] };
  const incidents = outbound.incidents ?? [];
  // One that has just ended goes on if it begins again.
  const age = (time) => (new Date(status.at) - new Date(time)) / 1000;
  const isCurrent = ({ kind, ended_at: ended }) =>
    (kinds[outbound.state] ?? []).includes(kind) && (ended === null || age(ended) < INCIDENT_CONTINUES_SECONDS);
  const incident = incidents.find(isCurrent);
  if (incident) return { since: incident.began_at, lost: incident.lost_deliveries, reason: incident.reason };
  if (outbound.state === "recovering") return { since: null, lost: sum(outbound.steps.map((step) => step[2])), reason: null };
  // The run of steps up to now in which each that had deliveries also had such ones.
  let [first, count] = [outbound.steps.length, 0];
  for (let at = outbound.steps.length - 1; at >= 0; at -= 1) {
    const step = outbound.steps[at];
    if (step[index] > 0) { first = at; count += step[index]; } else if (step[0] > 0) break;
  }
  const seconds = (outbound.steps.length - first) * status.step_seconds;
  const isWhole = first > 0 || outbound.steps.length < 60;
  const since = count > 0 && isWhole ? new Date(new Date(status.at) - seconds * 1000) : null;
  return { since, lost: count, reason: null };
}

/** What is wrong with an outbound: what it does, since when, and what that did to deliveries. */
function complaint(outbound, status) {
  const { since, lost, reason } = trouble(outbound, status);
  switch (outbound.state) {
    case "failing": {
      const words = reason || outbound.last_error?.message || "";
      return { deed: misdeed(words), since, effect: lost ? list([`${whole(lost)} lost`, lossNow(outbound, status).words], "; ") : "" };
    }
    case "slow": {
      const timeout = span(status.reply_timeout_seconds);
      const late = `${percent(outbound.slow_share)} of its answers in the last minute took over ${timeout} (reply_timeout)`;
      const wait = outbound.is_primary ? "SDKs wait that long, then get another answer" : "";
      return { deed: `answers in ${span(outbound.latency_seconds.mean)} on average`, since: null, effect: list([late, wait], ": ") };
    }
    case "rate_limited": {
      const limits = outbound.rate_limits.map(limitText).join("; ");
      return { deed: "is rate limited by its server", since, which: limits, effect: lost ? `${whole(lost)} not delivered` : "" };
    }
    case "recovering":
      return { deed: "accepts deliveries again", since: null, effect: lost ? `${whole(lost)} lost` : "" };
    default:
      return { deed: STATES[outbound.state][1], since: null, effect: "" };
  }
}

/** A complaint as a sentence without its subject. */
function sentence({ deed, since, which, effect }, status) {
  const begun = since ? ` since ${clock(since)}, ${ago(since, status)}` : "";
  return list([`${deed}${begun}${which ? `: ${which}` : ""}`, effect], "; ");
}

function limitText({ categories, seconds }) {
  return `${categories.join(" and ") || "everything"}, ${long(seconds)} left`;
}

/** Everything that is wrong, the worst first: tone, shape, text, and the route to show. */
function culprits(status) {
  const all = status.routes.flatMap((route) => route.outbounds.map((outbound) => ({ route, outbound })));
  const found = all.filter(({ outbound }) => isTrouble(outbound));
  found.sort((a, b) => badness(b.outbound) - badness(a.outbound));
  const lines = [];
  const byOrigin = Map.groupBy(found, ({ outbound }) =>
    outbound.state === "failing" && outbound.upstream?.breaker === "open" ? outbound.upstream.origin : Symbol("own"));
  for (const group of byOrigin.values()) {
    const [{ route, outbound }] = group;
    const [shape, , tone] = STATES[outbound.state];
    const told = complaint(outbound, status);
    let who = `${withoutScheme(route.name)} → ${withoutKey(outbound.name)}`;
    if (group.length > 1) {
      const troubles = group.map((one) => trouble(one.outbound, status));
      const times = troubles.map((one) => one.since).filter(Boolean).map((one) => new Date(one));
      told.since = times.length ? new Date(Math.min(...times)) : null;
      const lost = `${whole(sum(troubles.map((one) => one.lost)))} lost`;
      who = withoutScheme(outbound.upstream.origin);
      told.effect = `${lost}; ${group.length} outbounds: ${group.slice(0, 3).map((one) => withoutScheme(one.route.name)).join(", ")}${group.length > 3 ? ", …" : ""}`;
    }
    lines.push({ tone, shape, who, text: sentence(told, status), route: route.name, weight: Math.max(...group.map((one) => badness(one.outbound))) });
  }
  const { requests, unknown_key } = status.recent;
  if (unknown_key > 0) {
    const share = unknown_key / requests;
    const isBad = share >= 0.01;
    const [last] = status.unknown_keys.last;
    const sender = last && list([last.project && `project ${last.project}`, `client ${last.client}`, last.sdk], ", ");
    const example = last ? `; the last had key "${last.key}", ${sender}` : "";
    const text = `${percent(share)} of the requests of the last minute reached no outbound, because their key is not configured${example}`;
    // After what fails, and before what is slow; or after everything else.
    const weight = isBad ? severity({ state: "slow" }) + 0.99 : TROUBLE - 0.01;
    lines.push({ tone: isBad ? "bad" : "wait", shape: "■", who: "", text, route: null, weight });
  }
  return lines.sort((a, b) => b.weight - a.weight);
}

/** The headline: tone, shape, text, and the lines to list below it. */
function verdict(status) {
  const lines = culprits(status);
  const outbounds = status.routes.flatMap((route) => route.outbounds);
  const total = outbounds.length;
  const count = (state) => outbounds.filter((outbound) => outbound.state === state).length;
  if (status.stage === "draining") return { tone: "wait", shape: "◐", text: "Draining: finishing the last requests", lines };
  if (lines.length === 1) {
    const [{ tone, shape, who, text, route }] = lines;
    return { tone, shape, text: list([who, text], " "), lines: [], route };
  }
  if (lines.length > 1) {
    const some = (number, one, many) => number > 0 && `${number} ${number === 1 ? one : many}`;
    const states = list([
      some(count("failing"), "fails", "fail"),
      some(count("slow"), "is slow", "are slow"),
      some(count("rate_limited"), "is rate limited", "are rate limited"),
    ], ", ");
    const keys = status.recent.unknown_key > 0 ? `${percent(status.recent.unknown_key / status.recent.requests)} of requests have an unknown key` : "";
    const text = list([states && `Of ${plural(total, "outbound")}, ${states}`, keys], "; ");
    return { tone: lines[0].tone, shape: lines[0].shape, text, lines };
  }
  if (outbounds.every((outbound) => outbound.state === "idle")) return { tone: "idle", shape: "○", text: "Ready and idle", lines };
  const recovering = count("recovering");
  const what = total === 1 ? "The outbound receives" : `All ${total} outbounds receive`;
  if (recovering > 0) return { tone: "idle", shape: "◌", text: `${what} again, ${recovering} ${recovering === 1 ? "is" : "are"} recovering`, lines };
  return { tone: "good", shape: "●", text: `${what} what ${total === 1 ? "it" : "they"} should`, lines };
}

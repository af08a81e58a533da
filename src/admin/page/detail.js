// What is known of a route and its outbounds, shown when its line is opened.

const OUTCOMES_OF_NO_INTEREST = ["2xx", "filtered", "sampled", "capped"];

function why(outbound, status) {
  const [shape, word] = STATES[outbound.state];
  const facts = isTrouble(outbound) || outbound.state === "recovering" ? ` It ${sentence(complaint(outbound, status), status)}.` : "";
  const factsSayIt = outbound.state === "slow" || (outbound.state === "failing" && lossNow(outbound, status).words);
  const meaning = factsSayIt ? "" : ` ${stateMeaning(outbound, status)}`;
  return make("p", "why", make("b", "", `${shape} ${word}.`), facts, meaning);
}

function figures(outbound) {
  const latency = outbound.latency_seconds;
  const { seconds, delivered } = outbound.recent;
  return [
    make("h4", "", `Last ${Math.round(seconds)} seconds`),
    terms("numbers", [
      ["rate", "delivered", `${rate(seconds > 0 ? delivered / seconds : 0)}/s`],
      ["success", "accepted", percent(outbound.success), meaningOf("accepted")],
      ["mean", "answer time: mean", span(latency.mean)],
      ["p50", "median", span(latency.p50)],
      ["p90", "90 % within", span(latency.p90)],
      ["p99", "99 % within", span(latency.p99)],
    ]),
    make("h4", "", "Since the start"),
    terms("numbers", [
      ["delivered", "delivered", whole(outbound.delivered), meaningOf("delivered")],
      ["rate_limited", "rate limited", whole(outbound.rate_limited), meaningOf("rate limited")],
      ["lost", "lost", whole(outbound.lost), meaningOf("lost")],
      ["unwanted", "not wanted", whole(outbound.unwanted), meaningOf("not wanted")],
      ["bytes", "sent", bytes(outbound.bytes)],
    ]),
  ];
}

function causes(outbound) {
  const counted = Object.entries(outbound.outcomes).filter(([outcome]) => !OUTCOMES_OF_NO_INTEREST.includes(outcome));
  if (!counted.length) return null;
  return make("p", "causes", "Not accepted: ", ...counts(counted, MEANINGS.outcomes));
}

/** The circuit breaker, connections and addresses. */
function upstreamLine(upstream) {
  if (!upstream) return null;
  const probes = sum(Object.values(upstream.probes));
  const failed = probes - (upstream.probes.connected ?? 0);
  return make("p", "upstream", list([
    upstream.origin,
    `breaker ${upstream.breaker}${probes ? `, ${whole(failed)} of ${plural(probes, "probe")} failed` : ""}`,
    `${whole(upstream.in_flight)} in flight`,
    plural(upstream.connections_open, "connection"),
    upstream.dns_age_seconds === null ? "" : `address ${long(upstream.dns_age_seconds)} old`,
    upstream.addresses_avoided ? `${whole(upstream.addresses_avoided)} of ${whole(upstream.addresses)} addresses avoided` : "",
  ]));
}

function lastWords(outbound, status) {
  if (!outbound.last_error) return [];
  const { at, message } = outbound.last_error;
  const time = make("time", "", `${clock(at)}, ${ago(at, status)}`);
  time.dateTime = at;
  const isOpen = outbound.upstream?.breaker === "open";
  const since = isOpen ? make("p", "since", "The breaker is open: nothing is sent, and no probe has connected yet.") : "";
  return [make("h4", "", isOpen ? "Last error of a delivery, " : "Last error, ", time), make("p", "error", message), since];
}

function limits(outbound) {
  if (!outbound.rate_limits.length) return [];
  return [make("h4", "", "Rate limits now"), ...outbound.rate_limits.map((limit) => make("p", "limit", limitText(limit)))];
}

/** Caps that are near or reached. */
function caps(outbound) {
  const used = (outbound.caps ?? []).filter((cap) => cap.level !== "below");
  if (!used.length) return [];
  const text = (cap) => `${cap.category} ${cap.amount} ${cap.level}: ${Math.round(100 * cap.used)} % asked for, ${Math.round(100 * cap.share)} % of traces let through`;
  return [make("h4", "", "Caps"), ...used.map((cap) => make("p", "cap", text(cap)))];
}

/** Items by category and by what became of them. */
function items(outbound) {
  const categories = Object.entries(outbound.items ?? {});
  if (!categories.length) return [];
  const outcomes = [...new Set(categories.flatMap(([, counts]) => Object.keys(counts)))];
  const rows = categories.map(([category, counts]) =>
    [explained(category, MEANINGS.categories), ...outcomes.map((outcome) => whole(counts[outcome] ?? 0))]);
  const titles = outcomes.map((outcome) => explained(outcome, MEANINGS.items));
  return [make("h4", "", "Items since the start"), tabular(["category", ...titles], rows, outcomes.map((_, index) => index + 1))];
}

function incidents(outbound) {
  const shown = (outbound.incidents ?? []).slice(0, 10);
  if (!shown.length) return [];
  const rows = shown.map((one) => [
    clock(one.began_at),
    one.ended_at ? long(one.seconds) : "until now",
    explained(one.kind, MEANINGS.incidents),
    whole(one.lost_deliveries),
    one.reason ?? "",
  ]);
  return [make("h4", "", "Last incidents"), tabular(["began", "lasted", "kind", "lost", "reason"], rows, [3], 4)];
}

function card(outbound, status) {
  const role = outbound.is_primary ? "primary" : outbound.replies === false ? "never replies" : "";
  const dsn = outbound.dsn === outbound.name ? "" : outbound.dsn;
  const minutes = Math.round((STEPS_SHOWN * status.step_seconds) / 60);
  const caption = make("figcaption", "",
    make("span", "", `${minutes} minutes ago`), make("span", "", peak(outbound.steps, status.step_seconds)), make("span", "", "now"));
  const element = make("article", `card ${STATES[outbound.state][2]}`,
    make("h3", "", make("span", "title", outbound.name), role && make("small", "role", role), dsn && make("small", "", dsn)),
    why(outbound, status),
    make("figure", "", picture(outbound.steps, 64), caption),
    ...figures(outbound), causes(outbound), upstreamLine(outbound.upstream),
    ...limits(outbound), ...caps(outbound), ...lastWords(outbound, status), ...items(outbound), ...incidents(outbound));
  element.dataset.outbound = outbound.name;
  return element;
}

/** Requests that one outbound took and another refused. */
function disagreements(route, status) {
  const shown = (status.disagreements ?? []).filter((one) => one.route === route.name).slice(0, 10);
  if (!shown.length) return null;
  const item = ({ category, bytes: size }) => `${spaced(category)} ${bytes(size)}`;
  const answer = (one) => `${one.outbound}: ${one.status ?? spaced(one.outcome)}${one.reason ? ` ${one.reason}` : ""}`;
  const rows = shown.map((one) => [
    clock(one.at),
    one.event_id ?? one.endpoint,
    list([...one.items.map(item), one.items_left_out ? `${whole(one.items_left_out)} more` : ""], ", "),
    one.outcomes.map(answer).join("; "),
  ]);
  return make("article", "card wait disagreements", make("h3", "", "One outbound took what another refused"),
    tabular(["time", "event", "items", "answers"], rows, [], 3));
}

function detail(route, status) {
  const latency = route.latency_seconds;
  const answers = counts(Object.entries(route.answers), MEANINGS.answers);
  const about = list([
    route.dsn !== route.name && route.dsn,
    `last minute: SDKs answered in ${span(latency.p50)}, 99 % in ${span(latency.p99)}`,
    `since the start: ${plural(route.requests, "request")}`,
  ]);
  const cards = route.outbounds.map((outbound) => card(outbound, status));
  return [make("p", "about", about, ...(answers.length ? [" (", ...answers, ")"] : [])), make("div", "cards", ...cards, disagreements(route, status) ?? "")];
}

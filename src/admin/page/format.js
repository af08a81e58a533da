// Numbers, times and elements.

const byId = (id) => document.getElementById(id);

/** An element with a class and content. Text is never parsed as HTML. */
function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.filter((part) => part !== null && part !== undefined && part !== ""));
  return element;
}

/** Changes nothing if nothing has changed: a selection and what a screen reader says stay. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const whole = (number) => number.toLocaleString("en");
const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
const rate = (perSecond) => (perSecond < 10 ? perSecond.toFixed(1) : whole(Math.round(perSecond)));
const list = (parts, separator = " · ") => parts.filter(Boolean).join(separator);
const spaced = (word) => word.replaceAll("_", " ");

/** A DSN without its scheme, because only names that are configured are short. */
const withoutScheme = (name) => name.replace(/^https?:\/\//, "");

/** The host and the project of a DSN, or a configured name. */
const withoutKey = (name) => name.replace(/^https?:\/\/[^@/]*@/, "");

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const ms = seconds * 1000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${seconds.toFixed(1)} s`;
}

function long(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, length] of units) {
    if (seconds >= length) return plural(Math.floor(seconds / length), unit);
  }
  // Never negative, even if the clock was set back.
  return plural(Math.max(Math.floor(seconds), 0), "second");
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count < 10 && unit > 0 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function percent(share) {
  if (share === null || share === undefined) return "–";
  // Rounded down: 99.99 % must not read as 100 %, and a little is not nothing.
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${share < 1 ? (Math.floor(share * 1000 + 1e-9) / 10).toFixed(1) : "100"} %`;
}

/** A time of today as 00:36:31, any other with its date. */
function clock(time) {
  const date = new Date(time);
  const text = date.toLocaleTimeString("en-GB");
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? text : `${date.toLocaleDateString("en-CA")} ${text}`;
}

/** The time of `status` with its zone: that of all times on the page. */
function asOf(status) {
  const zone = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(new Date(status.at));
  return `${clock(status.at)} ${zone.find(({ type }) => type === "timeZoneName").value}`;
}

/** How long before `status` a time was. */
const ago = (time, status) => `${long((new Date(status.at) - new Date(time)) / 1000)} ago`;

/** A text of the documents without their marks. */
const plain = (text) => text.replaceAll("`", "");

/** A word of the status that a pointer explains, if `meanings` has it. */
function explained(word, meanings) {
  const element = make("abbr", "", spaced(word));
  // Not of the object's prototype.
  if (Object.hasOwn(meanings, word)) element.title = plain(meanings[word]);
  return element;
}

/** Words with counts, as the parts of a text. */
const counts = (entries, meanings) =>
  entries.flatMap(([word, count], index) => [index ? ", " : "", explained(word, meanings), ` ${whole(count)}`]);

/** A list of terms and values; each of `fields` is [key, term, value, meaning]. */
function terms(className, fields) {
  const rows = fields.filter(Boolean).map(([key, term, value, meaning]) => {
    const row = make("dd", "", value);
    row.dataset.field = key;
    return make("div", "", make("dt", "", meaning ? explained(term, { [term]: meaning }) : term), row);
  });
  return make("dl", className, ...rows);
}

/** A table. The columns `numbers` are aligned to the right, and the column `words` takes what is left. */
function tabular(titles, rows, numbers = [], words = null) {
  const className = (index) => (numbers.includes(index) ? "number" : index === words ? "words" : "");
  const cells = (tag, row) => row.map((content, index) => make(tag, className(index), content));
  const head = make("tr", "", ...cells("th", titles));
  const body = rows.map((row) => make("tr", "", ...cells("td", row)));
  // A phone shows these, because it has no room for a row of titles.
  for (const row of body) [...row.cells].forEach((cell, index) => (cell.dataset.title = head.cells[index].textContent));
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
}

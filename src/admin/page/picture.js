// A bar chart of the last minutes: delivered up, lost down.

const STEPS_SHOWN = 60;
const BAR = 4;

/** The steps to show: without the last, which has only begun and would look as if the traffic had collapsed. */
const wholeSteps = (steps) => steps.slice(-STEPS_SHOWN - 1, -1);

/** The bars of each kind are one path: with hundreds of pictures, single bars would be slow. */
function picture(steps, height) {
  const shown = wholeSteps(steps);
  const up = Math.max(...shown.map(([delivered, limited]) => delivered + limited), 0);
  const down = Math.max(...shown.map((step) => step[2]), 0);
  // Both sides have one scale. Without a loss there is no space for any.
  const unit = up + down > 0 ? (height - 2) / (up + down) : 0;
  const zero = height - 1 - down * unit;
  // Even the smallest count is visible.
  const length = (count) => (count > 0 ? Math.max(count * unit, 1.2) : 0);
  const paths = { up: "", held: "", down: "" };
  const bar = (kind, x, y, count) => {
    if (count > 0) paths[kind] += `M${x} ${y.toFixed(1)}h${BAR - 1}v${length(count).toFixed(1)}h${1 - BAR}z`;
  };
  shown.forEach(([delivered, limited, lost], index) => {
    const x = (STEPS_SHOWN - shown.length + index) * BAR + 0.5;
    bar("up", x, zero - length(delivered), delivered);
    bar("held", x, zero - length(delivered) - length(limited), limited);
    bar("down", x, zero, lost);
  });
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  const shape = (tag, attributes) => {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    svg.append(element);
  };
  svg.setAttribute("viewBox", `0 0 ${STEPS_SHOWN * BAR} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [kind, d] of Object.entries(paths)) if (d) shape("path", { class: kind, d });
  shape("line", { class: "zero", x1: 0, x2: STEPS_SHOWN * BAR, y1: zero, y2: zero });
  return svg;
}

/** The largest number of deliveries in a step, per second. */
function peak(steps, stepSeconds) {
  const most = Math.max(...wholeSteps(steps).map(sum), 0);
  return most ? `peak ${rate(most / stepSeconds)}/s` : "quiet";
}

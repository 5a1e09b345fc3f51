"use strict";
// Tooltips, small lines, dots and the chart. Colours are in page.css, so they follow light, dark and print.

// Tooltips.

let shownTip = null;

/** Shows the tooltip of the element that the pointer, the focus or a tap is at, if it has one. */
function showTip(target) {
  const tip = byId("tip");
  shownTip?.classList.remove("on");
  shownTip?.removeAttribute("aria-describedby");
  shownTip = target?.closest?.("[data-tip]") ?? null;
  tip.style.visibility = shownTip ? "visible" : "hidden";
  if (!shownTip) return;
  shownTip.classList.add("on");
  shownTip.setAttribute("aria-describedby", "tip");
  tip.textContent = shownTip.dataset.tip;
  tip.style.left = tip.style.top = "0";
  const box = shownTip.getBoundingClientRect();
  const left = box.left + (box.width - tip.offsetWidth) / 2;
  const above = box.top - tip.offsetHeight - 6;
  const below = box.height > 150 ? box.top + 8 : box.bottom + 6;
  const widest = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(left, widest)) + scrollX}px`;
  tip.style.top = `${(above > 4 ? above : below) + scrollY}px`;
}

for (const kind of ["pointerover", "focusin", "click"]) {
  document.addEventListener(kind, ({ target }) => showTip(target));
}
document.addEventListener("keydown", ({ key }) => key === "Escape" && showTip(null));

// Small pictures.

const round = (number) => Number(number.toFixed(1));

/** Returns the path of a line with a gap where a value is null. */
function pathOf(values, x, y) {
  const has = (index) => values[index] != null;
  return values
    .map((value, index) =>
      value == null ? "" : `${has(index - 1) ? "L" : "M"}${round(x(index))},${round(y(value))}`,
    )
    .join("");
}

/** Returns lines over time, from 0, each a list of values and the name of its class. */
function spark(lines) {
  const [width, height, top] = [200, 33, 2];
  const values = lines.flatMap(([each]) => each).filter((value) => value != null);
  if (lines[0][0].length < 2 || !values.length) return [];
  const max = Math.max(...values) || 1;
  const y = (value) => height - (Math.max(0, value) / max) * (height - top);
  const paths = lines.map(([each, kind]) => {
    const x = (index) => (width * index) / Math.max(1, each.length - 1);
    return shape("path", { class: kind, d: pathOf(each, x, y) });
  });
  const base = shape("path", { class: "base", d: `M0,${height}H${width}` });
  const attributes = { class: "spark", viewBox: "0 0 200 34", preserveAspectRatio: "none", "aria-hidden": "true" };
  return [shape("svg", attributes, base, ...paths)];
}

/** Returns a dot for each percentile, and a line at their median. */
function strip(percentiles, median) {
  const x = (percentile) => round(1 + 1.3 * percentile);
  const dots = percentiles.map((each) => shape("circle", { cx: x(each), cy: 10, r: 3 }));
  const label = `${withUnit(percentiles.length, "post")}, median ${formats.rank(median)}`;
  return shape(
    "svg",
    { class: "strip", viewBox: "0 0 132 20", role: "img", "aria-label": label },
    shape("path", { class: "rule", d: "M1,10H131" }),
    shape("path", { class: "rule", d: "M66,4V16" }),
    ...dots,
    shape("path", { class: "median", d: `M${x(median)},2V18` }),
  );
}

/** Returns a bar of which each channel has a part; `max` is the longest one. */
function bar(organic, paid, max, kind = "") {
  const part = (channel, value) => {
    const element = make("b", { class: channel });
    element.style.width = `${(100 * Math.max(0, value ?? 0)) / (max || 1)}%`;
    return element;
  };
  return make("span", { class: `bar ${kind}`, "aria-hidden": "true" }, part("organic", organic), part("paid", paid));
}

// The chart: impressions by day stacked, the period before behind them, and ad spend below.

const WIDE_CHART = 700; // pixels, from which on labels stand at the end
const LABEL_ROOM = 150;
const WIDEST_COLUMN = 60; // of a few days
const LABEL_HEIGHT = 14;
const LINE_HEIGHT = 16;
const CHARACTER_WIDTH = 6.2; // pixels, on average, of a label

/** Returns a round step of which at most three are up to `max`. */
function stepOf(max) {
  const power = 10 ** Math.floor(Math.log10(max / 4));
  return [1, 2, 2.5, 5, 10, 20, 25].map((factor) => factor * power).find((each) => max / each < 4);
}

/** Returns the text of a value on an axis, with the decimals that the step needs. */
function axisText(value, step) {
  if (value === 0) return "0";
  const [size, unit] = [
    [1e9, `${THIN}bn`],
    [1e6, `${THIN}M`],
    [1e4, `${THIN}K`],
    [0, ""],
  ].find(([each]) => 3 * step >= each);
  const divisor = unit === `${THIN}K` ? 1e3 : size || 1;
  const count = [0, 1, 2].find((each) => Number.isInteger((round((step / divisor) * 1000) / 1000) * 10 ** each)) ?? 2;
  return digits(count).format(value / divisor) + unit;
}

const totalOf = (point) => sumOf(CHANNELS.map((channel) => point[`${channel}_impressions`]));

/**
 * Returns the chart for a width in pixels. A point has impressions by channel, `ad_spend`, the impressions `before`, a
 * `label`, a `tip`, and whether it `isLacking` files. `peak` and `highestSpend`
 * have the label of a point.
 */
function dailyChart(points, { peak, highestSpend, ends }, width) {
  const isWide = width >= WIDE_CHART;
  const [left, right, top] = [40, isWide ? width - LABEL_ROOM : width - 4, 20];
  const [zero, zeroOfSpend, highOfSpend] = isWide ? [206, 296, 44] : [176, 266, 36];
  const height = zeroOfSpend + 24;
  const step = (right - left) / points.length;
  const half = Math.min(0.35 * step, WIDEST_COLUMN / 2);
  const max = Math.max(...points.flatMap((point) => [totalOf(point) ?? 0, point.before ?? 0])) || 1;
  const maxOfSpend = Math.max(...points.map(({ ad_spend: spend }) => spend ?? 0));
  const y = (value) => zero - (Math.max(0, value) / max) * (zero - top);
  const yOfSpend = (value) => zeroOfSpend - (Math.max(0, value) / (maxOfSpend || 1)) * highOfSpend;
  const x = (index) => left + index * step;
  const column = (kind, index, from, to) =>
    shape("rect", {
      class: kind,
      x: round(x(index + 0.5) - half),
      width: round(2 * half),
      y: round(to),
      height: round(Math.max(0, from - to)),
    });
  const text = (kind, at, baseline, anchor, ...children) =>
    shape("text", { class: kind, x: round(at), y: round(baseline), "text-anchor": anchor }, ...children);
  const line = (kind, d) => shape("path", { class: kind, d });
  const marks = [];

  const gridStep = stepOf(max);
  for (let value = 0; value <= max; value += gridStep) {
    marks.push(line(value ? "rule" : "rule zero", `M${left},${round(y(value))}H${right}`));
    marks.push(text("", left - 8, y(value) + 4, "end", axisText(value, gridStep)));
  }
  points.forEach(({ isLacking }, index) => isLacking && marks.push(column("lacking", index, zero, top)));
  if (points.every(({ before }) => before != null)) {
    const outline = points.map(({ before }, index) => `V${round(y(before))}H${round(x(index + 1))}`).join("");
    marks.push(line("before-fill", `M${left},${zero}${outline}V${zero}Z`));
    marks.push(line("before", `M${left},${round(y(points[0].before))}${outline}`));
  }
  points.forEach((point, index) => {
    const [organic, paid] = CHANNELS.map((channel) => Math.max(0, point[`${channel}_impressions`] ?? 0));
    const gap = organic && paid ? 1 : 0;
    if (organic) marks.push(column("organic", index, zero, y(organic)));
    if (paid) marks.push(column("paid", index, y(organic) - gap, y(organic + paid)));
    if (maxOfSpend) marks.push(column("paid spend", index, zeroOfSpend, yOfSpend(point.ad_spend ?? 0)));
  });
  marks.push(line("rule zero", `M${left},${zeroOfSpend}H${right}`));
  const every = Math.ceil(points.length / Math.max(1, Math.floor((right - left) / (isWide ? 90 : 100))));
  points.forEach(({ label }, index) => {
    if ((points.length - 1 - index) % every) return;
    const isEdge = !isWide && index === points.length - 1;
    marks.push(text("", isEdge ? right : x(index + 0.5), zeroOfSpend + 16, isEdge ? "end" : "middle", label));
  });
  if (maxOfSpend) {
    marks.push(text("label", left, zeroOfSpend - 62, "start", ends.spendTitle));
  }
  if (peak) {
    const lines = [peak.title, ...(isWide && peak.detail ? [peak.detail] : [])];
    const { at, anchor, baselines } = placeOfPeak(lines, peak.index, { points, left, right, half, x, y });
    baselines.forEach((baseline, index) =>
      marks.push(text(index ? "label muted" : "label strong", at, baseline, anchor, lines[index])),
    );
  }
  if (highestSpend) {
    const half = (CHARACTER_WIDTH * highestSpend.title.length) / 2;
    const middle = Math.min(x(highestSpend.index + 0.5), right - half);
    marks.push(text("label", middle, zeroOfSpend - highOfSpend - 4, "middle", highestSpend.title));
  }
  if (isWide) marks.push(...endLabels(points, ends, { right, y, yOfSpend, text, hasSpend: maxOfSpend > 0 }));
  const days = points.map(({ tip }, index) =>
    shape("rect", {
      class: "day",
      x: round(x(index)),
      y: 8,
      width: round(step),
      height: zeroOfSpend - 8,
      "data-tip": tip,
    }),
  );
  const hatch = shape(
    "pattern",
    { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" },
    line("", "M0,6L6,0"),
  );
  return shape(
    "svg",
    { viewBox: `0 0 ${round(width)} ${height}`, "aria-hidden": "true" },
    shape("defs", {}, hatch),
    ...marks,
    ...days,
  );
}

/**
 * Returns where the lines of the label of the peak stand: on a side of its column, above every column that they would
 * cover. Without room for all lines, only the first.
 */
function placeOfPeak(lines, index, { points, left, right, half, x, y }) {
  const high = y(totalOf(points[index]));
  const length = CHARACTER_WIDTH * Math.max(...lines.map((line) => line.length));
  const middle = (of) => x(of + 0.5);
  const sides = [1, -1].map((sign) => {
    const at = middle(index) + sign * (half + 6);
    const [from, to] = [Math.min(at, at + sign * length), Math.max(at, at + sign * length)];
    const covered = points.filter((_, of) => middle(of) + half > from && middle(of) - half < to);
    const highest = Math.min(y(0), ...covered.map((point) => y(totalOf(point) ?? 0)));
    const first = Math.min(high + 10, highest - 4 - LINE_HEIGHT * (lines.length - 1));
    const baselines = lines.map((_, line) => first + LINE_HEIGHT * line);
    return { at, anchor: sign > 0 ? "start" : "end", baselines, room: Math.min(from - left, right - to) };
  });
  const fitting = sides.find(({ room, baselines }) => room >= 0 && baselines[0] >= 12);
  if (fitting) return fitting;
  if (lines.length > 1) return placeOfPeak(lines.slice(0, 1), index, { points, left, right, half, x, y });
  return sides[0].room > sides[1].room ? sides[0] : sides[1];
}

/** Returns the labels at the ends of what is drawn, pushed apart. */
function endLabels(points, ends, { right, y, yOfSpend, text, hasSpend }) {
  const last = points.at(-1);
  const [organic, paid] = CHANNELS.map((channel) => Math.max(0, last[`${channel}_impressions`] ?? 0));
  const labels = [
    { at: y(organic / 2), channel: "organic", name: "Organic", value: ends.organic },
    { at: y(organic + paid / 2), channel: "paid", name: "Paid", value: ends.paid },
    { at: y(last.before ?? 0), channel: "", name: "", value: ends.before },
  ]
    .filter(({ value }) => value != null)
    .sort((one, other) => other.at - one.at);
  labels.forEach((label, index) => {
    if (index) label.at = Math.min(label.at, labels[index - 1].at - LABEL_HEIGHT);
  });
  if (hasSpend) {
    labels.push({ at: yOfSpend(last.ad_spend ?? 0) - 2, channel: "paid", name: "Ads", value: ends.spend });
  }
  return labels.map(({ at, channel, name, value }) =>
    text(
      channel ? "label" : "label muted",
      right + 10,
      at + 4,
      "start",
      ...(name ? [shape("tspan", { class: `strong ${channel}` }, name), ` ${value}`] : [value]),
    ),
  );
}

/** Draws the chart for the width of its container, again when that changes, and for paper. */
const chart = { draw: null };
const PAPER_WIDTH = 718; // pixels, of A4 without its margins

function drawChart(width = byId("chart").clientWidth) {
  if (chart.draw && width) byId("chart").replaceChildren(chart.draw(width));
}

// In the next frame: a chart of another height in the same one is an error of the observer, which the page would show.
new ResizeObserver(() => requestAnimationFrame(() => drawChart())).observe(byId("chart"));
addEventListener("beforeprint", () => drawChart(PAPER_WIDTH));
addEventListener("afterprint", () => drawChart());

/** Shows the values of the next or the previous day. Returns their text, if the key moves. */
function moveInChart(event) {
  const days = [...byId("chart").querySelectorAll("rect.day")];
  const sign = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!sign || !days.length) return null;
  event.preventDefault();
  const now = days.findIndex((day) => day === shownTip);
  const next = now < 0 ? (sign > 0 ? 0 : days.length - 1) : Math.max(0, Math.min(days.length - 1, now + sign));
  showTip(days[next]);
  return days[next].dataset.tip;
}

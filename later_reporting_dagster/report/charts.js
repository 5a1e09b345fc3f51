"use strict";
// Elements and charts. Colours are in page.css, so they follow light, dark and print without a script.

const CHANNELS = ["organic", "paid"];

const maker = (namespace) => (tag, attributes = {}, ...children) => {
  const element = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const make = maker("http://www.w3.org/1999/xhtml");
const shape = maker("http://www.w3.org/2000/svg");

const short = new Intl.NumberFormat("en-US", { notation: "compact" });
const dayAndMonth = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** Returns 0 and its multiples of a round step up to `max`: three to six values. */
function ticks(max) {
  const power = 10 ** Math.floor(Math.log10(max / 4));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => max / each <= 5);
  return Array.from({ length: Math.floor(max / step) + 1 }, (_, index) => index * step);
}

/**
 * Returns a line per channel, with a gap where a value is null.
 * A point has a `time`, a value by channel, a `tooltip`, and whether it `isIncomplete`. Points are evenly spaced.
 */
function lineChart(points, width, height) {
  const [left, right, top, bottom] = [38, width - 4, 8, height - 18];
  const max = Math.max(...points.flatMap((point) => CHANNELS.map((channel) => point[channel] ?? 0))) || 1;
  const last = points.length - 1;
  const gap = (right - left) / Math.max(1, last);
  const x = (index) => left + index * gap;
  const y = (value) => bottom - (value / max) * (bottom - top);
  const has = (index, channel) => (points[index]?.[channel] ?? null) !== null;
  const values = ticks(max).flatMap((value) => [
    shape("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    shape("text", { class: "value", x: left - 4, y: y(value) + 4 }, short.format(value)),
  ]);
  const labels = Math.max(1, Math.min(7, Math.floor((right - left) / 70)));
  const every = Math.ceil(points.length / labels);
  const days = points.flatMap(({ time }, index) => {
    const place = { class: index && index === last ? "last" : "", x: x(index), y: height - 4 };
    return (last - index) % every ? [] : [shape("text", place, dayAndMonth.format(time))];
  });
  const incomplete = points.flatMap(({ isIncomplete }, index) =>
    isIncomplete ? [shape("line", { class: "incomplete", x1: x(index), x2: x(index), y1: top, y2: bottom })] : []);
  const lines = CHANNELS.flatMap((channel) => {
    const shown = points.map((_, index) => index).filter((index) => has(index, channel));
    const place = (index) => `${x(index)},${y(points[index][channel])}`;
    const path = shown.map((index) => (has(index - 1, channel) ? "L" : "M") + place(index)).join("");
    const alone = shown.filter((index) => !has(index - 1, channel) && !has(index + 1, channel));
    return [
      shape("path", { class: `line ${channel}`, d: path }),
      ...alone.map((index) => shape("circle", { class: channel, cx: x(index), cy: y(points[index][channel]), r: 3 })),
    ];
  });
  const tooltips = points.map(({ tooltip }, index) => {
    const area = { class: "tooltip", x: x(index) - gap / 2, y: 0, width: gap, height: bottom };
    return shape("rect", area, shape("title", {}, tooltip));
  });
  return shape("svg", { width, height }, ...values, ...days, ...incomplete, ...lines, ...tooltips);
}

/** Returns horizontal bars from 0, each with a `label` at its end. A group has a `name` and `bars`, one per channel. */
function barChart(groups) {
  const max = Math.max(...groups.flatMap(({ bars }) => bars.map(({ value }) => value ?? 0))) || 1;
  return make("div", { class: "bars" }, ...groups.flatMap(({ name, bars }) => [
    make("bdi", { class: "group" }, name),
    make("div", {}, ...bars.map(({ channel, value, label, tooltip }) => {
      const bar = make("div", { class: `bar ${channel}`, title: tooltip }, label);
      bar.style.setProperty("--share", (value ?? 0) / max);
      return bar;
    })),
  ]));
}

const charts = new Map();  // container -> function that returns its chart for a width in pixels
const widths = new ResizeObserver((entries) => entries.forEach(({ target }) => drawIn(target)));

function drawIn(container) {
  const chart = charts.get(container);
  if (!chart || !container.clientWidth) return;
  container.querySelector("[aria-hidden]").replaceChildren(chart(container.clientWidth));
}

/** Draws a chart, or says that there is no data. Screen readers get `description` instead of its marks. */
function draw(name, hasData, description, chart) {
  const container = document.getElementById(`chart-${name}`);
  charts.set(container, hasData ? chart : null);
  container.replaceChildren(hasData
    ? make("div", { role: "img", "aria-label": description }, make("div", { "aria-hidden": "true" }))
    : make("p", { class: "nothing" }, "No data for this selection."));
  drawIn(container);
  widths.observe(container);
}

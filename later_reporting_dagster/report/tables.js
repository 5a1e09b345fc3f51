"use strict";
// Numbers, text and tables. Data is inserted only as text, never as markup: do not use innerHTML.

// Numbers.

const digits = (count) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: count, maximumFractionDigits: count });
const [whole, tenth, decimal] = [0, 1, 2].map(digits);
const NOT_AVAILABLE = "not available";

function twoDecimals(value) {
  if (value === 0) return "0";
  if (Math.abs(value) < 0.005) return value > 0 ? "<0.01" : ">-0.01";
  return decimal.format(value);
}

const formats = {
  count: (value) => whole.format(value),
  headline: (value) => {
    if (Math.abs(value) >= 1e9) return `${decimal.format(value / 1e9)}\u00a0bn`;
    return Math.abs(value) >= 1e8 ? `${decimal.format(value / 1e6)}\u00a0m` : whole.format(value);
  },
  share: (value) => `${Math.abs(value) < 10 && value !== 0 ? tenth.format(value) : whole.format(value)}\u00a0%`,
  rate: (value) => (Math.abs(value) >= 1 ? tenth.format(value) : twoDecimals(value)),
  percent: (value) => `${twoDecimals(value)}\u00a0%`,
  rank: (value) => `${tenth.format(value)}\u00a0%`,
  ratio: (value) => `${twoDecimals(value)}\u00a0×`,
  money: (value) => `$${Math.abs(value) >= 1000 ? whole.format(value) : twoDecimals(value)}`,
};

const formatted = (value, format) => (value == null ? NOT_AVAILABLE : formats[format](value));

/** Returns an element with a formatted number, and its exact value as an attribute; for null, a dash and the reason. */
function figure(value, format, reason = NOT_AVAILABLE) {
  if (value != null) return make("data", { value: String(value) }, formats[format](value));
  const dash = make("span", { "aria-hidden": "true" }, "–");
  return make("span", { class: "null", title: reason }, dash, make("span", { class: "unseen" }, reason));
}

/** Compares two values: the larger first, null last. */
const descending = (left, right) => (left == null || right == null ? (left == null) - (right == null) : right - left);

// Text.

const LISTED_FIRST = 3;
const NAME_LENGTH = 200;
const TEXT_LENGTH = 60;
const readable = (name) => (name ? name.replaceAll("_", " ") : "other");
const withUnit = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;
const bold = (text) => make("b", {}, make("bdi", {}, text));
const shortened = (text, length = 120) =>
  text.length > length ? `${[...text].slice(0, length - 1).join("")}…` : text;

/** Joins the first names, and adds the number of the others. */
function listed(names, one, more) {
  const rest = names.length - LISTED_FIRST;
  if (rest <= 0) return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, LISTED_FIRST).join(", ")} and ${withUnit(rest, `more ${one}`, `more ${more}`)}`;
}

/** Returns untrusted text that cannot change the direction of the text around it: without controls, or isolated. */
function isolated(text) {
  const plain = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
  const isRightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\ud802\ud803\ud83a\ud83b]/.test(plain);
  return isRightToLeft ? `\u2068${plain}\u2069` : plain;
}

// Columns. Each has a label, a function that makes a row's cell, and the names and values of its CSV columns. Those of
// `more` are shown on demand.

const cell = (...children) => make("td", { class: "number" }, ...children);

const column = {
  name: (label, text, link = () => null) => ({
    label, names: [label], values: (row) => [text(row)],
    cell: (row) => {
      const shown = make("bdi", { dir: "ltr", class: "name", title: text(row) }, shortened(text(row), NAME_LENGTH));
      const isLink = /^https?:\/\//i.test(link(row) ?? "");
      const attributes = { href: link(row), rel: "noopener noreferrer", target: "_blank" };
      return make("th", { scope: "row" }, isLink ? make("a", attributes, shown) : shown);
    },
  }),
  text: (label, text, kind = "name") => ({
    label, names: [label], values: (row) => [text(row)],
    cell: (row) => {
      const shown = text(row) == null ? figure(null) : make("bdi", { class: kind }, shortened(text(row), TEXT_LENGTH));
      return make("td", {}, shown);
    },
  }),
  // `reason` returns why a number is withheld, if it is.
  number: (label, name, format = "count", reason = () => undefined) => ({
    label, isNumber: true, sort: name, names: [name], values: (row) => [row[name]], reason,
    cell: (row) => cell(figure(row[name], format, reason(row))),
  }),
  // A number, and another one below it.
  pair: (label, name, format, below, belowText) => ({
    label, isNumber: true, sort: name, names: [name, below], values: (row) => [row[name], row[below]],
    cell: (row) => {
      const isPair = row[name] != null && row[below] != null;
      const detail = isPair ? [make("span", { class: "detail" }, ...belowText(row[below]))] : [];
      return cell(figure(row[name], format), ...detail);
    },
  }),
};
const more = (...columns) => columns.map((each) => ({ ...each, isMore: true }));

// Tables.

const SHOWN_ROWS = matchMedia("(max-width: 36rem)").matches ? 5 : 6;  // of a table, until all are shown

// id -> its columns, rows and options, what it is sorted by, and whether all rows and columns are shown
const tables = new Map();

/**
 * Fills a table. A column without any value is left out, unless it is the first, one of `more`, or withheld.
 * `limit` is the number of rows until all are shown; the CSV file has all. Rows of `foot` stay at the end.
 */
function fillTable(id, columns, rows, options = {}) {
  const defaults = { empty: "No data for this selection.", limit: SHOWN_ROWS, kind: () => "", foot: [] };
  const withDefaults = { ...defaults, ...options };
  const isFilled = (each) => [...rows, ...withDefaults.foot].some((row) =>
    each.values(row).some((value) => value != null && value !== "") || each.reason?.(row));
  const shown = columns.filter((each, index) => !index || !rows.length || each.isMore || isFilled(each));
  tables.set(id, { ...tables.get(id), columns: shown, rows, options: withDefaults });
  showTable(id);
}

/** Shows a table again with another sort order, or with all rows or columns. */
function changeTable(id, change) {
  tables.set(id, { ...tables.get(id), ...change(tables.get(id)) });
  showTable(id);
}

function showTable(id) {
  const table = tables.get(id);
  const { rows, options, isWhole, isWide } = table;
  const columns = table.columns.filter((each) => isWide || !each.isMore);
  const container = document.getElementById(`table-${id}`);
  if (!container.firstChild) addElements(container, id);
  const headings = columns.map((each) => heading(id, each, table));
  container.querySelector("thead").replaceChildren(make("tr", {}, ...headings));
  const visible = isWhole ? sorted(table) : sorted(table).slice(0, options.limit);
  const empty = make("tr", {}, make("td", { colspan: String(columns.length) }, options.empty));
  const line = (row) => make("tr", { class: options.kind(row) }, ...columns.map((each) => each.cell(row)));
  document.getElementById(id).replaceChildren(...(rows.length ? visible.map(line) : [empty]));
  container.querySelector("tfoot").replaceChildren(...(rows.length ? options.foot.map(line) : []));
  const [allRows, allColumns] = [".all", ".more"].map((name) => container.querySelector(name));
  allRows.hidden = rows.length <= options.limit;
  allRows.textContent = isWhole ? `Show the first ${options.limit}` : `Show all ${whole.format(rows.length)}`;
  allColumns.hidden = !rows.length || !table.columns.some((each) => each.isMore);
  allColumns.textContent = isWide ? "Fewer columns" : "More columns";
}

function sorted({ rows, sort, ascending }) {
  const upwards = (left, right) => (left == null || right == null ? descending(left, right) : left - right);
  const order = ascending ? upwards : descending;
  return sort ? [...rows].sort((left, right) => order(left[sort], right[sort])) : rows;
}

/** Returns the heading of a column: a button that sorts by it, if it has numbers. */
function heading(id, { label, isNumber, sort }, table) {
  const attributes = { scope: "col", ...(isNumber ? { class: "number" } : {}) };
  if (!sort || table.rows.length < 2) return make("th", attributes, label);
  const isSorted = sort === table.sort;
  if (isSorted) attributes["aria-sort"] = table.ascending ? "ascending" : "descending";
  const arrow = isSorted ? ` ${table.ascending ? "↑" : "↓"}` : "";
  const button = make("button", { type: "button", "data-sort": sort, "data-table": id }, label + arrow);
  return make("th", attributes, button);
}

/** Adds the elements of a table to its container: head, body, buttons and a hint. */
function addElements(container, id) {
  const { title } = container.dataset;
  const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title });
  const [caption, body] = [make("caption", { class: "unseen" }, title), make("tbody", { id })];
  scroll.append(make("table", {}, caption, make("thead", {}), body, make("tfoot", {})));
  const button = (name, kind, attributes = {}, label = "") =>
    make("button", { type: "button", class: kind, [`data-${name}`]: id, ...attributes }, label);
  const buttons = [
    button("all", "csv all"), button("more", "csv more"),
    button("csv", "csv", { "aria-label": `Download ${title} as CSV` }, "Download CSV"),
  ];
  const hint = make("span", { class: "hint" }, "Scroll sideways to see all columns →");
  container.append(scroll, make("p", { class: "below" }, ...buttons, hint));
  const isWide = () => scroll.scrollWidth > scroll.clientWidth + 1;
  const sizes = new ResizeObserver(() => container.classList.toggle("wide", isWide()));
  for (const each of [scroll, scroll.firstChild]) sizes.observe(each);
}

// CSV.

/** Returns a value for a CSV file. A leading apostrophe keeps spreadsheets from running text as a formula. */
function csvValue(value) {
  if (value == null || typeof value === "number") return String(value ?? "");
  return `"${value.replace(/^[=+\-@＝＋－＠\t\r]/, "'$&").replaceAll('"', '""')}"`;
}

/** Returns the lines of a table's CSV file: the names of its columns, then its rows. */
function csvLines({ columns, rows, options }) {
  const line = (row) => columns.flatMap(({ values }) => values(row));
  return [columns.flatMap(({ names }) => names), ...[...rows, ...options.foot].map(line)];
}

function download(name, lines) {
  const text = lines.map((values) => `${values.map(csvValue).join(",")}\r\n`).join("");
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

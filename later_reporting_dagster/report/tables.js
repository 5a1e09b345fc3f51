"use strict";
// Tables: on a wide screen rows, on a narrow one cards, always a CSV file.

// Columns. Each has a label, a `short` one for cards, a function that makes a row's cell, and the names and values of its
// CSV columns. A column without a cell is only in the CSV file.

const cell = (label, ...children) => make("td", { class: "number", role: "cell", "data-label": label }, ...children);

/** Returns untrusted text that is one line, or as much as has room. */
const named = (text, kind = "name") =>
  make("bdi", { dir: "ltr", class: kind, title: text }, shortened(text, NAME_LENGTH));

/** Returns the attributes of a link to a web page, or within this one. */
const linkTo = (href) => (href.startsWith("#") ? { href } : { href, rel: "noopener noreferrer", target: "_blank" });

/** Returns the heading of a row: a name, which may link to a web page or within this one, and what it is. */
function rowHeading(name, detail, link, ...more) {
  const shown = link ? make("a", linkTo(link), named(name)) : make("span", {}, named(name));
  const below = detail ? [" ", small(make("bdi", { class: "detail" }, shortened(detail, 60)))] : [];
  return make("th", { scope: "row", role: "rowheader" }, span("named", shown, ...below, ...more));
}

const column = {
  // `heading` returns the cell, `text` the name.
  name: (label, text, heading) => ({ label, csv: { [label]: text }, cell: heading }),
  text: (label, text, kind = "number") => ({
    label,
    csv: { [label]: text },
    cell: (row) =>
      make(
        "td",
        { class: kind, role: "cell", "data-label": label },
        text(row) == null ? figure(null) : make("bdi", {}, shortened(text(row))),
      ),
  }),
  number: (label, name, format = "count", options = {}) => ({
    label,
    short: label,
    sort: name,
    csv: { [label]: (row) => row[name] },
    cell(row) {
      return cell(this.short, figure(row[name], format, options.reason?.(row)), ...(options.beside?.(row) ?? []));
    },
    ...options,
  }),
  csv: (label, value) => ({ csv: { [label]: value } }),
};

// Tables.

const CARDS = matchMedia("screen and (max-width: 980px)");
const shownRows = () => (CARDS.matches ? 5 : 10);

// id -> its columns, rows and options, what it is sorted by, and whether all rows are shown
const tables = new Map();

/**
 * Fills a table. `note` is beside its title, rows of `foot` stay at the end. `isLong`: all rows are shown, `isFixed`: their
 * order is not changed, `isLean`: columns without any value are left out. The CSV file has all rows and columns.
 */
function fillTable(id, columns, rows, options = {}) {
  const defaults = { empty: "No data for this selection.", kind: () => null, foot: [], note: "" };
  const isFilled = (each) =>
    [...rows, ...(options.foot ?? [])].some((row) => Object.values(each.csv).some((value) => value(row) != null));
  const shown = columns.filter((each, index) => each.cell && (!index || !options.isLean || isFilled(each)));
  tables.set(id, { ...tables.get(id), columns, shown, rows, options: { ...defaults, ...options } });
  showTable(id);
}

/** Shows a table again with another sort order, or with all rows. */
function changeTable(id, change) {
  tables.set(id, { ...tables.get(id), ...change(tables.get(id)) });
  showTable(id);
}

function showTable(id) {
  const table = tables.get(id);
  const { shown, rows, options, isWhole } = table;
  const container = byId(id);
  if (!container.querySelector("table")) addElements(container, id);
  const limit = options.isLong ? Infinity : shownRows();
  const visible = isWhole ? sorted(table) : sorted(table).slice(0, limit);
  const line = (row) => make("tr", { role: "row", class: options.kind(row) }, ...shown.map((each) => each.cell(row)));
  const part = (tag, ...children) => container.querySelector(tag).replaceChildren(...children);
  part("colgroup", ...shown.map(({ width }) => make("col", { class: width && `width-${width}` })));
  part("thead", make("tr", { role: "row" }, ...shown.map((each) => columnHeading(id, each, table))));
  part("tbody", ...visible.map(line));
  part("tfoot", ...(rows.length ? options.foot.map(line) : []));
  container.querySelector("table").hidden = !rows.length;
  const nothing = container.querySelector(".nothing");
  nothing.hidden = rows.length > 0;
  nothing.textContent = options.empty;
  const note = container.querySelector(".head > p");
  if (note) note.textContent = options.note;
  const all = container.querySelector("[data-all]");
  all.hidden = rows.length <= limit;
  all.textContent = isWhole ? `Show ${limit}` : `Show all ${whole.format(rows.length)}`;
}

function sorted({ rows, sort, ascending }) {
  const upwards = (left, right) => (left == null || right == null ? descending(left, right) : left - right);
  const order = ascending ? upwards : descending;
  return sort ? [...rows].sort((left, right) => order(left[sort], right[sort])) : rows;
}

/** Returns the heading of a column: a button that sorts by it, if it has numbers. */
function columnHeading(id, { label, isText, sort, channel, heading }, table) {
  const kind = heading ? "ranks" : isText || label === table.shown[0].label ? null : "number";
  const attributes = { scope: "col", role: "columnheader", class: kind };
  if (heading) return make("th", attributes, heading());
  // The square of a channel stays with the first word.
  const [first, ...rest] = channel ? label.split(/(?= )/) : [];
  const words = channel ? [span(`key ${channel}`, first), ...rest] : [label];
  if (!sort || table.rows.length < 2 || table.options.isFixed) return make("th", attributes, ...words);
  const sortedBy = table.sort ?? table.options.sortedBy;
  if (sort === sortedBy) attributes["aria-sort"] = table.ascending ? "ascending" : "descending";
  return make(
    "th",
    attributes,
    make("button", { type: "button", "data-sort": sort, "data-table": id }, ...words),
  );
}

/** Adds the elements of a table to its container: buttons, head, body and foot. */
function addElements(container, id) {
  const heading = container.querySelector("h2") ?? container.closest("details").querySelector("h2");
  const title = heading.textContent;
  const button = (name, attributes = {}, label = "") =>
    make("button", { type: "button", [`data-${name}`]: id, ...attributes }, label);
  const fold = container.classList.contains("foldable")
    ? [button("fold", { class: "fold", "aria-expanded": "false" }, "Show")]
    : [];
  const actions = span(
    "actions",
    ...fold,
    button("all"),
    button("csv", { "aria-label": `Download ${title} as CSV` }, "CSV"),
  );
  const head = container.querySelector(".head");
  if (head) head.append(actions);
  else container.append(make("div", { class: "head" }, actions));
  const parts = ["thead", "tbody", "tfoot"].map((tag) => make(tag, { role: "rowgroup" }));
  const table = make("table", { role: "table", "aria-label": title }, make("colgroup"), ...parts);
  container.append(table, make("p", { class: "nothing" }));
}

/** Explains a section beside its title. */
function explain(id, text) {
  const title = byId(id).querySelector("h2");
  byId(id).querySelector(".head .mark")?.remove();
  title.after(mark(`About ${title.textContent}`, text));
}

CARDS.addEventListener("change", () => [...tables.keys()].forEach(showTable));

// CSV.

/** Returns a value for a CSV file. A leading apostrophe keeps spreadsheets from running text as a formula. */
function csvValue(value) {
  if (value == null || typeof value === "number") return String(value ?? "");
  return `"${String(value)
    .replace(/^[=+\-@＝＋－＠\t\r]/, "'$&")
    .replaceAll('"', '""')}"`;
}

/** Returns the lines of a table's CSV file: the names of its columns, then its rows. */
function csvLines({ columns, rows, options }) {
  const values = (row) => columns.flatMap(({ csv }) => Object.values(csv).map((value) => value(row)));
  return [columns.flatMap(({ csv }) => Object.keys(csv)), ...[...rows, ...options.foot].map(values)];
}

function download(name, lines) {
  const text = lines.map((values) => `${values.map(csvValue).join(",")}\r\n`).join("");
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

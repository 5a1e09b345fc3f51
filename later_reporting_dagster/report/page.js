"use strict";
// Shows the numbers for the chosen filters as tables and charts. All results are looked up in the embedded JSON. Data is
// inserted only as text, never as markup: do not use innerHTML.
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const CHANNELS = ["organic", "paid"];
  const [METRICS_TABLE] = Object.keys(report.tables);
  const DAY = 86400000;
  const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
  const SHOWN_ROWS = 10;  // of a table, until all are shown
  const DRAWN_GROUPS = 12;
  const LISTED_FIRST = 3;
  const OPTION_LENGTH = 60;  // of a campaign's name in the filter; tables show two lines of it
  const filters = { window: report.window, instance: null, campaign: null };

  // Look-up. A row of a table is of a campaign, of an instance, or of all instances. Tables are stored by column, with the rows in
  // the order in which they are shown.

  function groupedBy(values, key) {
    const groups = new Map();
    for (const value of values) {
      const name = key(value);
      if (groups.has(name)) groups.get(name).push(value);
      else groups.set(name, [value]);
    }
    return groups;
  }

  function rowsOf(name) {
    const columns = Object.entries(report[name]);
    return columns[0][1].map((_, index) => Object.fromEntries(columns.map(([column, values]) => [column, values[index]])));
  }

  const scopeKey = (row) => `${row.time_window}/${row.instance}/${row.campaign}`;
  const figures = new Map(rowsOf("figures").map((row) => [scopeKey(row), row]));
  const [parts, creators, posts, daily] = ["parts", "creators", "posts", "days"].map(rowsOf);
  const dailyByScope = groupedBy(daily, (row) => `${row.instance}/${row.campaign}`);

  const figuresOf = (instance, campaign) => figures.get(scopeKey({ time_window: filters.window, instance, campaign }));
  const instanceOf = (campaign) => report.campaigns[campaign][0];
  const chosenInstance = () => (filters.campaign !== null ? instanceOf(filters.campaign) : filters.instance);
  const isChosen = (instance) => [null, instance].includes(chosenInstance());
  const inWindow = (rows) => rows.filter((row) => row.time_window === filters.window && row.instance !== null && isChosen(row.instance));
  const instances = () => report.instances.map((_, index) => index).filter(isChosen);
  const windowDays = () => report.windows[filters.window].days ?? Infinity;

  /** Compares two values: the larger first, null last. */
  const descending = (left, right) => (left == null || right == null ? (left == null) - (right == null) : right - left);

  // Formatting.

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const NOT_AVAILABLE = "not available";
  const NO_PAID_ACTIVITY = "no paid activity";

  function twoDecimals(value) {
    if (value === 0) return "0";
    if (Math.abs(value) < 0.005) return value > 0 ? "<0.01" : ">-0.01";
    return decimal.format(value);
  }

  const formats = {
    count: (value) => whole.format(value),
    headline: (value) => (Math.abs(value) >= 1e9 ? `${decimal.format(value / 1e9)}\u00a0bn` : whole.format(value)),
    percent: (value) => `${twoDecimals(value)}\u00a0%`,
    rank: (value) => `${tenth.format(value)}\u00a0%`,
    ratio: (value) => `${twoDecimals(value)}\u00a0×`,
    money: (value) => `$${Math.abs(value) >= 1000 ? whole.format(value) : twoDecimals(value)}`,
  };

  const formatted = (value, format) => (value == null ? NOT_AVAILABLE : formats[format](value));
  const readable = (name) => (name ? name.replaceAll("_", " ") : "other");
  const dayOf = (age) => new Date(NEWEST - age * DAY).toISOString().slice(0, 10);
  const withUnit = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;

  /** Joins the first names, and adds the number of the others. */
  function listed(names, one, more) {
    const rest = names.length - LISTED_FIRST;
    if (rest <= 0) return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
    return `${names.slice(0, LISTED_FIRST).join(", ")} and ${withUnit(rest, `more ${one}`, `more ${more}`)}`;
  }

  /** Returns untrusted text that cannot change the direction of the text around it: without controls, and isolated if needed. */
  function isolated(text) {
    const plain = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
    return /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\ud802\ud803\ud83a\ud83b]/.test(plain) ? `\u2068${plain}\u2069` : plain;
  }

  const shortened = (text, length = 120) => (text.length > length ? `${[...text].slice(0, length - 1).join("")}…` : text);
  const ofInstance = (instance) => (chosenInstance() === null && report.instances.length > 1 ? ` · ${isolated(report.instances[instance])}` : "");

  /** Returns a campaign's name and id, or only its id, with its instance if several instances are shown. */
  function campaignName(campaign, length = Infinity) {
    const [instance, id, name] = report.campaigns[campaign];
    return (name === null ? String(id) : `${isolated(shortened(name, length))} (${id})`) + ofInstance(instance);
  }

  // Elements.

  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const isUnpaid = (row) =>
    !row.paid_impressions && !row.paid_engagements && (row.organic_impressions ?? row.organic_engagements ?? null) !== null;

  const note = (text) => make("span", { class: "null" }, text);

  /** Returns an element with a formatted number, and its exact value as an attribute; for null, a text. */
  function figure(value, format, nullText = NOT_AVAILABLE) {
    return value == null ? note(nullText) : make("data", { value: String(value) }, formats[format](value));
  }

  /** Returns the element with the value of a row's measure. */
  const figureOf = (row, name, format) => figure(row[name], format, /^paid_(imp|eng)|^rate_ratio/.test(name) && isUnpaid(row) ? NO_PAID_ACTIVITY : NOT_AVAILABLE);

  // Tables. A column has a label, a function that makes a row's cell, and the names and values of its CSV columns. A column
  // without any value is not shown.

  const cell = (...children) => make("td", { class: "number" }, ...children);

  const column = {
    name: (label, text, link = () => null) => ({
      label, names: [label], values: (row) => [text(row)],
      cell: (row) => {
        const shown = make("bdi", { dir: "ltr", class: "name", title: text(row) }, text(row));
        const isLink = /^https?:\/\//i.test(link(row) ?? "");
        return make("th", { scope: "row" }, isLink ? make("a", { href: link(row), rel: "noopener noreferrer", target: "_blank" }, shown) : shown);
      },
    }),
    text: (label, text) => ({ label, names: [label], values: (row) => [text(row)], cell: (row) => make("td", {}, text(row) === null ? figure(null) : make("bdi", { class: "name" }, text(row))) }),
    number: (label, name, format = "count") => ({
      label, isNumber: true, sort: name, names: [name], values: (row) => [row[name]], cell: (row) => cell(figureOf(row, name, format)),
    }),
    // A number, and another one below it.
    pair: (label, name, format, below, belowText) => ({
      label, isNumber: true, sort: name, names: [name, below], values: (row) => [row[name], row[below]],
      cell: (row) => cell(figureOf(row, name, format), ...(row[name] == null || row[below] == null ? [] : [make("span", { class: "detail" }, ...belowText(row[below]))])),
    }),
  };
  const RESULTS = [
    column.number("Posts", "posts"),
    column.number("Organic impressions", "organic_impressions"), column.number("Paid impressions", "paid_impressions"),
    column.number("Organic rate", "organic_engagement_rate", "percent"), column.number("Paid rate", "paid_engagement_rate", "percent"),
    column.number("Rate ratio", "rate_ratio", "ratio"),
  ];

  const tables = new Map();  // id -> its columns, rows and options, what it is sorted by, and whether all rows are shown

  /** Fills a table. `limit` is the number of rows until all are shown; the CSV file has all. */
  function fillTable(id, columns, rows, { empty = "No data for this selection.", limit = SHOWN_ROWS, kind = () => "" } = {}) {
    const shown = columns.filter((each, index) => !index || rows.some((row) => each.values(row).some((value) => value != null && value !== "")));
    tables.set(id, { ...tables.get(id), columns: shown, rows, options: { empty, limit, kind } });
    showTable(id);
  }

  function showTable(id) {
    const { columns, rows, options, sort, ascending, isWhole } = tables.get(id);
    const container = byId(`table-${id}`);
    if (!container.firstChild) {
      const { title } = container.dataset;
      const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title });
      scroll.append(make("table", {}, make("caption", { class: "unseen" }, title), make("thead", {}), make("tbody", { id })));
      const csv = make("button", { type: "button", class: "csv", "data-csv": id, "aria-label": `Download ${title} as CSV` }, "Download CSV");
      const all = make("button", { type: "button", class: "csv all", "data-all": id });
      container.append(scroll, make("p", { class: "below" }, all, csv, make("span", { class: "hint" }, "Scroll sideways to see all columns →")));
      const sizes = new ResizeObserver(() => container.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth + 1));
      for (const each of [scroll, scroll.firstChild]) sizes.observe(each);
    }
    const order = (left, right) => {
      const [one, other] = [left[sort], right[sort]];
      return ascending && one != null && other != null ? one - other : descending(one, other);
    };
    const sorted = sort ? [...rows].sort(order) : rows;
    const visible = isWhole ? sorted : sorted.slice(0, options.limit);
    const head = (each) => {
      const attributes = { scope: "col", ...(each.isNumber ? { class: "number" } : {}) };
      if (!each.sort || rows.length < 2) return make("th", attributes, each.label);
      const isSorted = each.sort === sort;
      const button = make("button", { type: "button", "data-sort": each.sort, "data-table": id }, isSorted ? `${each.label} ${ascending ? "↑" : "↓"}` : each.label);
      return make("th", { ...attributes, ...(isSorted ? { "aria-sort": ascending ? "ascending" : "descending" } : {}) }, button);
    };
    container.querySelector("thead").replaceChildren(make("tr", {}, ...columns.map(head)));
    byId(id).replaceChildren(
      ...(rows.length ? [] : [make("tr", {}, make("td", { colspan: String(columns.length) }, options.empty))]),
      ...visible.map((row) => make("tr", { class: options.kind(row) }, ...columns.map((each) => each.cell(row)))),
    );
    const all = container.querySelector(".all");
    all.hidden = rows.length <= options.limit;
    all.textContent = isWhole ? `Show the first ${options.limit}` : `Show all ${whole.format(rows.length)}`;
  }

  /** Returns a value for a CSV file. A leading apostrophe keeps spreadsheets from running text as a formula. */
  function csvValue(value) {
    if (value == null || typeof value === "number") return String(value ?? "");
    return `"${value.replace(/^[=+\-@＝＋－＠\t\r]/, "'$&").replaceAll('"', '""')}"`;
  }

  let keyFigures = [];

  function download(id) {
    const { columns, rows } = tables.get(id) ?? {};
    const lines = id === "kpis" ? keyFigures : [columns.flatMap((each) => each.names), ...rows.map((row) => columns.flatMap((each) => each.values(row)))];
    const text = lines.map((values) => `${values.map(csvValue).join(",")}\r\n`).join("");
    const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    make("a", { href: url, download: `organic-paid-${id}-${report.as_of}-${filters.window}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Headline and key figures.

  // Each row: label, its measures (organic, paid, both), their formats, and a text below the third.
  const KPIS = [
    ["Impressions", ["organic_impressions", "paid_impressions", "paid_share_of_impressions"], ["count", "count", "percent"], "paid share"],
    ["Engagements", ["organic_engagements", "paid_engagements", null], ["count", "count", null]],
    ["Engagement rate", ["organic_engagement_rate", "paid_engagement_rate", "rate_ratio"], ["percent", "percent", "ratio"], "paid / organic"],
  ];
  const MONEY = [
    ["Ad spend", "ad_spend", "money"], ["Return on ad spend", "return_on_ad_spend", "ratio"],
    ["Estimated value", "organic_estimated_value", "money"],
  ];

  /** Returns the rates of both channels in one sentence, and their ratio within the same posts in another. */
  function headline(row) {
    const [organic, paid] = CHANNELS.map((channel) => row[`${channel}_engagement_rate`]);
    if (organic == null || paid == null) return [isUnpaid(row) ? "No paid results in this period: there is nothing to compare." : "Paid and organic posts cannot be compared: no engagement rate is available for one of them."];
    const ratio = row.rate_ratio == null ? [] : [", a ratio of ", figure(row.rate_ratio, "ratio")];
    const within = row.same_post_rate_ratio == null ? [] : [" Within the ", figure(row.same_posts, "count"), " posts with both rates, the ratio is ", figure(row.same_post_rate_ratio, "ratio"), "."];
    return ["The paid engagement rate is ", figure(paid, "percent"), ", the organic one ", figure(organic, "percent"), ...ratio, ".", ...within];
  }

  function showKpis() {
    const row = figuresOf(filters.campaign === null ? filters.instance : instanceOf(filters.campaign), filters.campaign) ?? {};
    byId("headline").replaceChildren(...headline(row));
    const kpi = (name, format, label) => name === null ? make("td", {}) : make(
      "td", {},
      make("span", { class: "value", id: `figure-${name}` }, figureOf(row, name, format === "count" ? "headline" : format)),
      ...(label ? [make("span", { class: "what" }, label)] : []),
      make("span", { class: "change", id: `change-${name}` }, ...change(row, name, format)),
    );
    const shown = KPIS.filter(([, names]) => names.some((name) => row[name] != null) || names[0] === "organic_impressions");
    byId("kpis").replaceChildren(...shown.map(([label, names, kinds, what]) =>
      make("tr", {}, make("th", { scope: "row" }, label), ...names.map((name, index) => kpi(name, kinds[index], index === 2 ? what : null)))));
    byId("money").replaceChildren(...MONEY.filter(([, name]) => row[name] != null).map(([label, name, format]) =>
      make("div", {}, make("dt", {}, label), make("dd", { id: `figure-${name}` }, figure(row[name], format)))));
    const names = [...KPIS.flatMap(([, measures]) => measures).filter((name) => name !== null), "same_post_rate_ratio", "same_posts", "same_posts_paid_higher", ...MONEY.map(([, name]) => name)];
    keyFigures = [["measure", "value", "previous"], ...names.map((name) => [name, row[name], row[`previous_${name}`]])];
    return row;
  }

  /** Returns the change from the previous period, if both have data of the same number of days. */
  function change(row, name, format) {
    const [now, previous] = [row[name], row[`previous_${name}`]];
    if (previous == null) return [];
    if (now == null || row.days !== row.previous_days) return ["before: ", figure(previous, format)];
    const difference = format === "percent" ? now - previous : previous ? (100 * (now - previous)) / previous : null;
    if (difference === null) return ["from ", figure(previous, format)];
    const sign = difference > 0 ? "+" : difference < 0 ? "−" : "±";
    const size = format === "percent" ? `${twoDecimals(Math.abs(difference))} points` : `${tenth.format(Math.abs(difference))} %`;
    return [make("b", {}, sign + size), " from ", figure(previous, format)];
  }

  // What is missing.

  const bold = (text) => make("b", {}, make("bdi", {}, text));

  /** Returns the missing days of the period: ranges of ages, with the tables and the instances that lack them. */
  function gaps() {
    const oldest = windowDays() - 1;
    const found = new Map();
    for (const { table, instance, ages } of report.missing) {
      if (instance !== null && !isChosen(instance)) continue;
      const ranges = ages.filter(([from]) => from <= oldest).map(([from, to]) => [from, Math.min(to, oldest)]);
      if (!ranges.length) continue;
      const key = JSON.stringify([instance, ranges]);
      found.set(key, [...(found.get(key) ?? []), table]);
    }
    const alike = groupedBy([...found], ([key, names]) => JSON.stringify([JSON.parse(key)[1], names]));
    return [...alike.values()].map((members) => ({
      ranges: JSON.parse(members[0][0])[1], tables: members[0][1], instances: members.map(([key]) => JSON.parse(key)[0]),
    }));
  }

  function gapLine({ ranges, tables: names, instances: affected }) {
    const days = ranges.map(([from, to]) => (from === to ? dayOf(from) : `${dayOf(to)} to ${dayOf(from)}`)).reverse();
    const isOne = ranges.length === 1 && ranges[0][0] === ranges[0][1];
    const isAll = affected.length > 1 && affected.length === instances().length;
    const who = affected[0] === null ? [] : [" for ", isAll ? bold(`all ${affected.length} instances`) : bold(listed(affected.map((index) => report.instances[index]), "instance", "instances"))];
    return [make("b", {}, listed(days, "gap", "gaps")), ` ${isOne ? "is" : "are"} missing`, ...who, ` (${names.map((name) => report.tables[name]).join(", ")}).`];
  }

  const quarantined = () =>
    report.quarantined.filter((part) => (part.age === null || part.age < windowDays()) && (part.instance === null || instances().some((index) => report.instances[index] === part.instance)));

  function quarantineLines() {
    return [...groupedBy(quarantined(), (part) => part.instance)].map(([instance, members]) => {
      const rows = members.reduce((sum, part) => sum + part.rows, 0);
      const reasons = [...groupedBy(members, (part) => part.reason).keys()];
      const more = reasons.length > 1 ? `, and ${withUnit(reasons.length - 1, "other reason")}` : "";
      return [
        make("b", {}, withUnit(rows, "row")), " of ", instance === null ? "an unknown instance" : bold(instance),
        ` ${rows === 1 ? "is" : "are"} invalid and not counted: `, make("bdi", {}, shortened(reasons[0])), `${more}.`,
      ];
    });
  }

  function showMissing(row) {
    const lines = [...gaps().map(gapLine), ...quarantineLines()];
    const item = (line, kind = "") => make("li", kind ? { class: kind } : {}, ...line);
    const shown = lines.slice(0, 2 * LISTED_FIRST).map((line) => item(line));
    const hidden = lines.slice(2 * LISTED_FIRST);
    if (hidden.length) shown.push(item([make("a", { href: "#received-part" }, `${whole.format(hidden.length)} more`), ", in Data received."]));
    if (!shown.length) shown.push(item(["Nothing: all expected days of the period have been received, and no row is invalid."], "good"));
    const asides = [`Data as of ${report.as_of}.`];
    if (row.posts) asides.push(`Of ${withUnit(row.posts, "post")} with results, ${whole.format(row.organic_impressions_posts ?? 0)} report organic impressions and ${whole.format(row.paid_impressions_posts ?? 0)} paid ones.`);
    if (row.days < row.days_expected) asides.push(`The period has data of ${row.days} of ${row.days_expected} days${chosenInstance() === null ? ", counted by instance" : ""}.`);
    if (row.previous_days != null && row.days !== row.previous_days) asides.push("No change is shown, because the period before has data of another number of days.");
    byId("missing").replaceChildren(...shown, item([asides.join(" ")], "aside"));
    byId("all-missing").replaceChildren(...(hidden.length ? [make("h3", {}, "More that is missing"), make("ul", {}, ...hidden.map((line) => item(line)))] : []));
    return lines.length;
  }

  function showReceived() {
    const missing = (table, instance) => gaps().filter((gap) => gap.tables.includes(table) && gap.instances.includes(instance))
      .flatMap((gap) => gap.ranges).reduce((days, [from, to]) => days + to - from + 1, 0);
    fillTable(
      "received",
      [
        column.name("Instance", (row) => row.name), column.number("Days of results", "days"), column.number("Days expected", "days_expected"),
        ...Object.entries(report.tables).slice(0, 2).map(([table, label]) => column.number(`Missing ${label}`, table)), column.number("Invalid rows", "rows"),
      ],
      instances().map((instance) => ({
        name: report.instances[instance], days: 0, ...figuresOf(instance, null),
        rows: quarantined().filter((part) => part.instance === report.instances[instance]).reduce((sum, part) => sum + part.rows, 0),
        ...Object.fromEntries(Object.keys(report.tables).map((table) => [table, missing(table, instance)])),
      })),
    );
  }

  // Charts.

  const views = new Map();

  /** Draws a chart of `rows`. Screen readers get `description` instead. */
  function draw(name, rows, description) {
    const container = byId(`chart-${name}`);
    let view = views.get(name);
    if (!view) {
      // The description is the text alternative of the whole chart, so its marks are hidden from screen readers.
      const marks = make("div", { "aria-hidden": "true" });
      const image = make("div", { role: "img" }, marks);
      const empty = make("p", { class: "nothing", hidden: "" }, "No data for this selection.");
      container.replaceChildren(image, empty);
      const { View, parse, expressionInterpreter } = laterVega;
      view = new View(parse(report.charts[name], null, { ast: true }), { container: marks, renderer: "svg", expr: expressionInterpreter });
      views.set(name, view);
      new ResizeObserver(() => fit(view, container)).observe(container);
    }
    container.firstChild.hidden = !rows.length;
    container.firstChild.setAttribute("aria-label", description);
    container.lastChild.hidden = rows.length > 0;
    view.data("rows", rows);
    fit(view, container);
  }

  function fit(view, container) {
    const width = Math.floor(container.clientWidth);
    if (width) view.width(width).runAsync();
  }

  function showDays() {
    const byAge = new Map((dailyByScope.get(`${chosenInstance()}/${filters.campaign}`) ?? []).map((row) => [row.age, row]));
    const oldest = Math.max(0, ...daily.map((row) => row.age));
    const absent = report.missing.filter(({ table, instance }) => table === METRICS_TABLE && isChosen(instance));
    const days = Array.from({ length: Math.min(windowDays(), oldest + 1) }, (_, age) => ({
      ...byAge.get(age), age,
      missing: absent.filter(({ ages }) => ages.some(([from, to]) => from <= age && age <= to)).map(({ instance }) => report.instances[instance]),
    })).reverse();
    for (const measure of ["impressions", "engagements"]) {
      const rows = CHANNELS.flatMap((channel) => {
        const values = days.map((day) => day[`${channel}_${measure}`] ?? null);
        return values.map((value, index) => ({
          day: NEWEST - days[index].age * DAY, channel, value,
          alone: value !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null,
          incomplete: days[index].missing.length > 0,
          tooltip: `${dayOf(days[index].age)}: ${CHANNELS.map((each) => `${each} ${formatted(days[index][`${each}_${measure}`], "count")}`).join(", ")}`,
        }));
      });
      draw(measure, rows.every((each) => each.value === null) ? [] : rows, `Line chart of organic and paid ${measure} on each of ${days.length} days. The numbers are in the table of days.`);
    }
    byId("incomplete-key").hidden = !days.some((day) => day.missing.length);
    const columns = ["impressions", "engagements"].flatMap((measure) => CHANNELS.map((channel) => column.number(`${channel === "paid" ? "Paid" : "Organic"} ${measure}`, `${channel}_${measure}`)));
    fillTable("days", [column.name("Day (UTC)", (day) => dayOf(day.age)), ...columns, column.text("Missing", (day) => listed(day.missing, "instance", "instances"))], [...days].reverse(), { limit: Infinity });
  }

  function showParts() {
    const name = (row) => readable(row.kind === "platform" ? row.platform : row.content_type);
    const isPlatform = (row) => row.kind === "platform";
    const rows = parts.filter((row) => row.time_window === filters.window && row.instance === chosenInstance());
    const platforms = rows.filter(isPlatform);
    const types = rows.filter((row) => !isPlatform(row));
    const bars = (groups) => groups.slice(0, DRAWN_GROUPS).flatMap((row) => CHANNELS.map((channel) => {
      const rate = row[`${channel}_engagement_rate`];
      const count = withUnit(row[`${channel}_engagements_posts`] ?? 0, "post");
      const label = rate === null ? (channel === "paid" && isUnpaid(row) ? NO_PAID_ACTIVITY : NOT_AVAILABLE) : `${formatted(rate, "percent")} · ${count}`;
      return { group: name(row), lane: channel, channel, value: rate, end: rate ?? 0, label, tooltip: `${name(row)}, ${channel}: ${label}` };
    }));
    draw("platform_rates", bars(platforms), "Bar chart of organic and paid engagement rates by platform. The numbers are in the table below.");
    draw("content_rates", bars(types), "Bar chart of organic and paid engagement rates by content type. The numbers are in the table below.");
    const ordered = platforms.flatMap((row) => [row, ...types.filter((type) => type.platform === row.platform)]);
    fillTable("parts", [column.name("Platform, content type", name), ...RESULTS], ordered, { limit: Infinity, kind: (row) => (isPlatform(row) ? "of-platform" : "of-type") });
  }

  // Campaigns, costs, posts and creators.

  const campaigns = () => inWindow([...figures.values()])
    .filter(({ campaign }) => campaign !== null && [null, campaign].includes(filters.campaign))
    .map((row) => ({ ...row, status: report.campaigns[row.campaign][3] }));

  function showCampaigns() {
    const rows = campaigns();
    const name = column.name("Campaign", (row) => campaignName(row.campaign));
    fillTable("campaigns", [
      name, column.text("Status", (row) => row.status), ...RESULTS,
      column.pair("Same-post rate ratio", "same_post_rate_ratio", "ratio", "same_posts", (value) => [figure(value, "count"), "\u00a0posts"]),
      column.number("Ad spend", "ad_spend", "money"), column.number("Return on ad spend", "return_on_ad_spend", "ratio"),
      column.number("Conversions", "tracking_links_conversions"),
    ], rows.filter((row) => row.posts || row.ad_spend != null));
  }

  function showPosts() {
    const name = (row) => [row.name ?? `Post ${row.post_id}`, readable(row.content_type ?? row.platform)].join(" · ") + ofInstance(row.instance);
    const percentile = (label, measure, format) => column.pair(label, measure, format, `${measure}_percentile`, (value) => ["above\u00a0", figure(value, "rank"), "\u00a0of\u00a0peers"]);
    const columns = [
      column.name("Post", name, (row) => row.link), column.number("Age in days", "age"),
      percentile("Organic impressions", "organic_impressions", "count"), percentile("Organic rate", "organic_engagement_rate", "percent"),
    ];
    fillTable("boost", [...columns, column.number("Peers", "peers")], posts.filter((row) => isChosen(row.instance)), { empty: "None, or fewer than 20 posts to compare with." });
  }

  function showCreators() {
    const name = (row) => (row.name ?? row.handle ?? (row.creator_id === null ? "Unknown creator" : `Creator ${row.creator_id}`)) + ofInstance(row.instance);
    fillTable("creators", [column.name("Creator", name, (row) => row.link), ...RESULTS], inWindow(creators));
  }

  function show() {
    const { days, label } = report.windows[filters.window];
    byId("dates").textContent = days === null ? `All days up to ${dayOf(0)}` : `${dayOf(days - 1)} to ${dayOf(0)}`;
    byId("of-instance").hidden = filters.campaign === null;
    const row = showKpis();
    const missing = showMissing(row);
    showCampaigns();
    showPosts();
    showCreators();
    showDays();
    showParts();
    showReceived();
    const selection = filters.campaign !== null ? `campaign ${campaignName(filters.campaign)}` : filters.instance !== null ? report.instances[filters.instance] : "all instances";
    return `${label}, ${selection}: ${byId("headline").textContent} What is missing: ${missing ? withUnit(missing, "entry", "entries") : "nothing"}.`;
  }

  function setOptions(id, options, chosen) {
    byId(id).replaceChildren(...options.map(([value, label]) => {
      const option = make("option", { value: String(value) }, label);
      option.selected = value === chosen;
      return option;
    }));
  }

  const numberOrNull = (text) => (text === "" ? null : Number(text));

  /** Offers the campaigns of the chosen instance, or of all instances. */
  function setCampaignOptions() {
    const options = report.campaigns.map((_, index) => index).filter((index) => [null, instanceOf(index)].includes(filters.instance));
    if (!options.includes(filters.campaign)) filters.campaign = null;
    setOptions("campaign", [["", "All"], ...options.map((index) => [index, campaignName(index, OPTION_LENGTH)])], filters.campaign ?? "");
  }

  setOptions("period", Object.entries(report.windows).map(([name, { label }]) => [name, label]), filters.window);
  setOptions("instance", [["", "All"], ...report.instances.map((name, index) => [index, name])], "");
  setCampaignOptions();
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("change", () => {
    filters.window = byId("period").value;
    filters.instance = numberOrNull(byId("instance").value);
    filters.campaign = numberOrNull(byId("campaign").value);
    setCampaignOptions();
    byId("announcement").textContent = show();
  });
  document.addEventListener("click", (event) => {
    const { csv, sort, table, all } = event.target.closest("button")?.dataset ?? {};
    if (csv) download(csv);
    if (all) {
      tables.get(all).isWhole = !tables.get(all).isWhole;
      showTable(all);
    }
    if (!sort) return;
    const state = tables.get(table);
    Object.assign(state, { sort, ascending: state.sort === sort && !state.ascending });
    showTable(table);
    document.querySelector(`[data-table="${table}"][data-sort="${sort}"]`).focus();
  });
  show();
})();

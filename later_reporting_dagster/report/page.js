"use strict";
// Shows the numbers for the chosen filters as tables and charts. All results are looked up in the embedded JSON; SQL has
// computed them. Data is inserted only as text, never as markup: do not use innerHTML.
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const CHANNELS = ["organic", "paid"];
  const TABLES = Object.keys(report.tables);
  const [METRICS_TABLE] = TABLES;
  const DAY = 86400000;
  const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
  const DRAWN_CAMPAIGNS = 12;
  const MAXIMUM_CREATORS = 100;  // the same as maximum_creators in report.sql
  const CREATORS_AT_FIRST = 20;
  const MAXIMUM_TOTALS = 200;  // campaigns in the table of totals: thousands take seconds to draw
  const LISTED_FIRST = 3;
  const LABEL_LENGTH = 16;  // of a campaign's name in a chart
  const OPTION_LENGTH = 60;  // of a campaign's name in the filter; tables show it in full
  const filters = { period: report.period, instance: null, campaign: null, sort: "impressions", ascending: false, showAllCreators: false };

  // Look-up. A scope is what the filters can select: all instances, one instance, or one campaign. Its number is assigned by
  // report_page.py; it is not the number in report.sql. Days are given as ages: the number of days before the newest day.

  const scopeOfInstance = (instance) => 1 + instance;
  const scopeOfCampaign = (campaign) => 1 + report.instances.length + campaign;
  const scope = () =>
    filters.campaign !== null ? scopeOfCampaign(filters.campaign) : filters.instance !== null ? scopeOfInstance(filters.instance) : 0;
  const instanceOf = (campaign) => report.campaigns[campaign][0];
  const chosenInstance = () => (filters.campaign !== null ? instanceOf(filters.campaign) : filters.instance);
  const instances = () => report.instances.map((_, index) => index).filter((index) => [null, index].includes(chosenInstance()));
  const campaigns = () =>
    report.campaigns.map((_, index) => index)
      .filter((index) => (filters.campaign === null ? [null, instanceOf(index)].includes(filters.instance) : filters.campaign === index));

  const indexes = new Map();

  /** Returns the rows of a table for a scope and the chosen period. Tables are stored by column. */
  function rowsOf(name, wantedScope) {
    const table = report[name];
    const key = (index) => `${table.scope[index]}/${table.period[index]}`;
    if (!indexes.has(name)) indexes.set(name, groupedBy(table.scope.map((_, index) => index), key));
    const found = indexes.get(name).get(`${wantedScope}/${filters.period}`) ?? [];
    return found.map((index) => Object.fromEntries(Object.entries(table).map(([column, values]) => [column, values[index]])));
  }

  const rowOf = (name, wantedScope) => rowsOf(name, wantedScope)[0];

  function groupedBy(values, key) {
    const groups = new Map();
    for (const value of values) {
      const name = key(value);
      if (groups.has(name)) groups.get(name).push(value);
      else groups.set(name, [value]);
    }
    return groups;
  }

  /** Compares two numbers: the larger first, null last. */
  const descending = (left, right) =>
    left == null || right == null ? (left == null) - (right == null) : right - left;

  // Formatting.

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const NOT_AVAILABLE = "not available";
  const NO_PAID_ACTIVITY = "no paid activity";
  const NO_INTERVAL = "no interval";

  function twoDecimals(value) {
    if (value === 0) return "0";
    if (Math.abs(value) < 0.005) return value > 0 ? "<0.01" : ">-0.01";
    return decimal.format(value);
  }

  const formats = {
    count: (value) => whole.format(value),
    headline: (value) => (Math.abs(value) >= 1e9 ? `${decimal.format(value / 1e9)}\u00a0bn` : whole.format(value)),
    percent: (value) => `${twoDecimals(value)}\u00a0%`,
    ratio: (value) => `${twoDecimals(value)}\u00a0×`,
    factor: (value) => twoDecimals(value),
    plain: (value) => (Number.isInteger(value) ? whole.format(value) : twoDecimals(value)),
    money: (value) => `$${Math.abs(value) >= 1000 ? whole.format(value) : twoDecimals(value)}`,
  };

  const formatted = (value, format) => (value == null ? NOT_AVAILABLE : formats[format](value));

  function bounds(low, high) {
    if (low == null) return NOT_AVAILABLE;
    const [minimum, maximum] = [formatted(low, "money"), formatted(high, "money")];
    return minimum === maximum ? minimum : `${minimum} to ${maximum}`;
  }

  const readable = (name) => (name === null ? "other" : name.replaceAll("_", " "));
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

  /** Returns a campaign's name and id, or only its id, with its instance if several instances are shown. */
  function campaignName(campaign, length = Infinity) {
    const [instance, id, name] = report.campaigns[campaign];
    return (name === null ? String(id) : `${isolated(shortened(name, length))} (${id})`) +
      (filters.instance === null && report.instances.length > 1 ? ` · ${isolated(report.instances[instance])}` : "");
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
  const figureOf = (row, name, format) => figure(row[name], format, /paid/.test(name) && isUnpaid(row) ? NO_PAID_ACTIVITY : NOT_AVAILABLE);

  function range(low, high, format) {
    if (low == null) return [figure(null)];
    if (high == null) return ["at least ", figure(low, format)];
    const [minimum, maximum] = [figure(low, format), figure(high, format)];
    if (minimum.textContent === maximum.textContent) maximum.className = "unseen";
    else maximum.prepend(" to ");
    return [minimum, maximum];
  }

  const verdictOf = (row, name) => row[`${name}_verdict`]?.replaceAll("_", " ") ?? null;

  /** Returns the interval of a lift and its verdict, or the reason why there is none. */
  function interval(row, name) {
    if (row[name] == null || !(`${name}_low` in row)) return [];
    const [low, high] = [row[`${name}_low`], row[`${name}_high`]];
    const parts = low == null ? [NO_INTERVAL] : [...range(low, high, "factor"), `, ${verdictOf(row, name)}`];
    return [make("span", { class: low == null ? "interval few" : "interval" }, ...parts)];
  }

  // Tables. A column has a label, a function that makes a row's cell, and the names and values of its CSV columns. Columns may
  // be in groups: all columns with the same `group`, which then have a common heading.

  const cell = (...children) => make("td", { class: "number" }, ...children);

  const column = {
    name: (label, text, extra = () => []) => ({
      label, names: [label], values: (row) => [text(row)],
      cell: (row) => make("th", { scope: "row" }, make("bdi", {}, text(row)), ...extra(row)),
    }),
    // The name is isolated in its text, so that it does not change the order of name, id and instance.
    campaign: (text) => ({
      ...column.name("Campaign", text), cell: (row) => make("th", { scope: "row", class: "campaign" }, make("bdi", { dir: "ltr" }, text(row))),
    }),
    text: (label, text, shown = (row) => [make("bdi", {}, text(row) ?? "")]) =>
      ({ label, names: [label], values: (row) => [text(row)], cell: (row) => make("td", {}, ...shown(row)) }),
    number: (label, name, format = "count") => ({
      label, isNumber: true, sort: name, names: [name], values: (row) => [row[name]], cell: (row) => cell(figureOf(row, name, format)),
    }),
    range: (label, name, format = "money") => ({
      label, isNumber: true, names: [`${name}_minimum`, `${name}_maximum`], values: (row) => [row[`${name}_minimum`], row[`${name}_maximum`]],
      cell: (row) => cell(...range(row[`${name}_minimum`], row[`${name}_maximum`], format)),
    }),
    lift: (label, name) => ({
      label, isNumber: true, sort: name, names: [name, `${name}_low`, `${name}_high`, `${name}_verdict`],
      values: (row) => [row[name], row[`${name}_low`], row[`${name}_high`], verdictOf(row, name)],
      cell: (row) => cell(figureOf(row, name, "ratio"), ...interval(row, name)),
    }),
  };
  const RESULTS = [
    column.number("Organic impressions", "organic_impressions"), column.number("Paid impressions", "paid_impressions"),
    column.number("Organic engagements", "organic_engagements"), column.number("Paid engagements", "paid_engagements"),
    column.number("Organic rate", "organic_engagement_rate", "percent"), column.number("Paid rate", "paid_engagement_rate", "percent"),
  ];
  const RESULTS_AND_LIFT = [...RESULTS, column.lift("Paid lift", "paid_lift")];

  const downloads = new Map();

  const groupHeads = (groups) =>
    make("tr", {}, ...groups.map(([label, { length }]) =>
      label ? make("th", { scope: "colgroup", colspan: String(length), class: "group" }, label) : make("td", { colspan: String(length) })));

  /**
   * Fills a table. `head` makes the heading of a column, `kind` the class of a row; `empty` is shown if there are no rows. At
   * most `most` rows are shown; the CSV file has all.
   */
  function fillTable(id, columns, rows, { empty = "No data for this selection.", head = (each) => [each.label], kind = () => "", most = Infinity } = {}) {
    const container = byId(`table-${id}`);
    if (!container.firstChild) {
      const { title } = container.dataset;
      const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title });
      scroll.append(make("table", {}, make("caption", { class: "unseen" }, title), make("thead", {}), make("tbody", { id })));
      const button = make("button", { type: "button", class: "csv", "data-csv": id, "aria-label": `Download ${title} as CSV` }, "Download CSV");
      container.append(make("p", { class: "above" }, make("span", { class: "hint" }, "Scroll sideways to see all columns →"), button), scroll);
      const sizes = new ResizeObserver(() => container.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth + 1));
      for (const each of [scroll, scroll.firstChild]) sizes.observe(each);
    }
    const heads = columns.map((each) => make("th", { scope: "col", ...(each.isNumber ? { class: "number" } : {}), ...(each.attributes?.() ?? {}) }, ...head(each)));
    const groups = [...groupedBy(columns, (each) => each.group ?? "")];
    container.querySelector("thead").replaceChildren(...(groups.length > 1 ? [groupHeads(groups)] : []), make("tr", {}, ...heads));
    container.querySelectorAll("colgroup").forEach((each) => each.remove());
    if (groups.length > 1) container.querySelector("caption").after(...groups.map(([, members]) => make("colgroup", { span: String(members.length) })));
    byId(id).replaceChildren(
      ...(rows.length ? [] : [make("tr", {}, make("td", { colspan: String(columns.length) }, empty))]),
      ...rows.slice(0, most).map((row) => make("tr", { class: kind(row) }, ...columns.map((each) => each.cell(row)))),
    );
    downloads.set(id, [columns.flatMap((each) => each.names), ...rows.map((row) => columns.flatMap((each) => each.values(row)))]);
  }

  /** Returns a value for a CSV file. A leading apostrophe keeps spreadsheets from running text as a formula. */
  function csvValue(value) {
    if (value == null || typeof value === "number") return String(value ?? "");
    return `"${value.replace(/^[=+\-@＝＋－＠\t\r]/, "'$&").replaceAll('"', '""')}"`;
  }

  function download(id) {
    const text = downloads.get(id).map((values) => `${values.map(csvValue).join(",")}\r\n`).join("");
    const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    make("a", { href: url, download: `organic-paid-${id}-${report.as_of}-${filters.period}d.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Key figures.

  // Each row: label, organic measure, paid measure, comparing measure, format of the organic and paid measures, format of the
  // comparing measure, label of the comparing measure.
  const KPIS = [
    ["Impressions", "organic_impressions", "paid_impressions", "paid_share_of_impressions", "count", "percent", "paid share"],
    ["Engagements", "organic_engagements", "paid_engagements", "paid_share_of_engagements", "count", "percent", "paid share"],
    ["Engagement rate", "organic_engagement_rate", "paid_engagement_rate", "paid_lift", "percent", "ratio", "paid lift"],
    ["Estimated value", "organic_estimated_value", null, null, "money"],
  ];
  const isComparable = () => report.metrics_days >= 2 * filters.period;

  function showKpis() {
    const row = rowOf("kpis", scope()) ?? {};
    const kpi = (name, format, label) =>
      name === null ? make("td", {}) : make(
        "td", {},
        make("span", { class: "value", id: `figure-${name}` }, figureOf(row, name, format === "count" ? "headline" : format)),
        ...(label ? [make("span", { class: "what" }, label)] : []),
        make("span", { id: `interval-${name}` }, ...interval(row, name)),
        make("span", { class: "change", id: `change-${name}` }, ...change(row, name, format)),
        ...(name === "paid_lift" ? otherLifts(row) : []),
      );
    byId("kpis").replaceChildren(
      ...KPIS.map(([label, organic, paid, comparison, format, comparisonFormat, comparisonLabel]) =>
        make(
          "tr", {}, make("th", { scope: "row" }, label), kpi(organic, format), kpi(paid, format),
          kpi(comparison, comparisonFormat, comparisonLabel),
        ),
      ),
    );
    const names = KPIS.flatMap(([, ...names]) => names.slice(0, 3)).filter((name) => name !== null);
    downloads.set("kpis", [
      ["measure", "value", "previous", "change", "low", "high", "verdict"],
      ...[...names, "same_post_lift", "paid_lift_mix_adjusted"].map((name) =>
        [name, row[name], row[`previous_${name}`], row[`${name}_change`], row[`${name}_low`], row[`${name}_high`], verdictOf(row, name)]),
    ]);
    return row;
  }

  /** Returns the lifts that depend less on which posts are paid for, to show below the paid lift. */
  function otherLifts(row) {
    const line = (name, parts, ...extra) => make("span", { class: "what", id: `figure-${name}` }, ...parts, ...extra);
    const adjusted = row.paid_lift_mix_adjusted;
    return [
      ...(row.same_post_lift == null ? [] : [line("same_post_lift", ["same-post lift ", figure(row.same_post_lift, "ratio"), ", "], ...interval(row, "same_post_lift"))]),
      ...(adjusted == null ? [] : [line("paid_lift_mix_adjusted", ["lift at equal platform mix ", figure(adjusted, "ratio")])]),
    ];
  }

  function change(row, name, format) {
    const [previous, difference] = [row[`previous_${name}`], row[`${name}_change`]];
    if (!isComparable()) return [];
    if (difference == null) return [row[name] != null && previous != null && row.has_equal_days ? "from " : "before: ", figure(previous, format)];
    const sign = difference > 0 ? "+" : difference < 0 ? "−" : "±";
    const isPercentage = format === "count" || format === "money";
    const size = isPercentage ? `${tenth.format(Math.abs(difference))} %` : `${twoDecimals(Math.abs(difference))}${format === "percent" ? " points" : ""}`;
    return [make("b", {}, sign + size), " from ", figure(previous, format)];
  }

  // What is missing.

  const isStored = (table, instance, age) =>
    report.stored_days[table][instance].some(([from, to]) => from <= age && age <= to);

  const newestAge = (table, instance) => report.stored_days[table][instance][0]?.[0] ?? null;

  /** Returns the age of the oldest day of the period. The period of a table ends with the table's newest day. */
  const oldestAge = (table) => (report.newest[table] ?? report.newest[METRICS_TABLE]) + filters.period - 1;

  /** Returns how many days of the period are stored for an instance. */
  const storedDays = (table, instance) =>
    report.stored_days[table][instance].reduce((days, [from, to]) => days + Math.max(0, Math.min(to, oldestAge(table)) - from + 1), 0);

  const tablesWithout = (instance, age) => TABLES.filter((table) => !isStored(table, instance, age));

  const tableNames = (tables) => (tables.length < TABLES.length ? ` (${tables.map((table) => report.tables[table]).join(", ")})` : "");

  const dayElement = (age) => make("span", { class: "date" }, dayOf(age));

  const bold = (text) => make("b", {}, make("bdi", {}, text));

  function staleLines() {
    const lines = [];
    for (const instance of instances()) {
      const newest = TABLES.map((table) => newestAge(table, instance));
      const name = bold(report.instances[instance]);
      if (newest.every((age) => age === null)) {
        lines.push([name, ": no data received yet."]);
        continue;
      }
      for (const [age, tables] of groupedBy(TABLES, (table) => newestAge(table, instance))) {
        if (age === 0) continue;
        const label = bold(report.instances[instance]);
        if (age === null) lines.push([label, `: no data received yet${tableNames(tables)}.`]);
        else lines.push([label, " is out of date: its newest day is ", dayElement(age), `, ${withUnit(age, "day")} behind${tableNames(tables)}.`]);
      }
    }
    return lines;
  }

  /** Returns the days of the period that are missing although a newer day of the instance is stored. */
  function gaps() {
    const oldest = Math.min(Math.max(...TABLES.map(oldestAge)), report.days - 1);
    const found = new Map();
    for (const instance of instances()) {
      for (let age = 0; age <= oldest; age++) {
        const tables = tablesWithout(instance, age)
          .filter((table) => age <= oldestAge(table) && newestAge(table, instance) !== null && newestAge(table, instance) < age);
        if (!tables.length) continue;
        const key = JSON.stringify([age, tables]);
        found.set(key, [...(found.get(key) ?? []), instance]);
      }
    }
    return [...found].map(([key, affected]) => ({ age: JSON.parse(key)[0], tables: JSON.parse(key)[1], instances: affected }));
  }

  function gapLines() {
    const lines = [];
    const shared = groupedBy(gaps(), (gap) => JSON.stringify([gap.tables, gap.instances]));
    for (const alike of shared.values()) {
      const { tables, instances: affected } = alike[0];
      const days = alike.map((gap) => dayOf(gap.age)).sort();
      const isAll = affected.length > 1 && affected.length === instances().length;
      const names = isAll ? make("b", {}, `all ${affected.length} instances`) : bold(listed(affected.map((index) => report.instances[index]), "instance", "instances"));
      lines.push([make("b", {}, listed(days, "day", "days")), ` ${days.length === 1 ? "is" : "are"} missing for `, names, `${tableNames(tables)}.`]);
    }
    return lines;
  }

  const isChosen = (instance) => instance === null || instances().some((index) => report.instances[index] === instance);

  const unreadableLines = () => [
    ...(report.are_campaigns_unreadable ? [[make("b", {}, "The names of campaigns"), " cannot be read: only their numbers are shown."]] : []),
    ...report.unreadable
      .filter((part) => part.age <= oldestAge(part.table) && isChosen(part.instance))
      .map((part) => [make("b", {}, dayOf(part.age)), " of ", part.instance === null ? "all instances" : bold(part.instance), ` cannot be read (${report.tables[part.table] ?? "campaign totals"}).`]),
  ];

  const quarantined = () =>
    report.quarantined.filter((part) => (part.age === null || part.age <= oldestAge(part.table)) && isChosen(part.instance));

  function quarantineLines() {
    const lines = [];
    for (const [instance, parts] of groupedBy(quarantined(), (part) => part.instance)) {
      const rows = parts.reduce((sum, part) => sum + part.rows, 0);
      const reasons = [...groupedBy(parts, (part) => part.reason)]
        .map(([reason, alike]) => [alike.reduce((sum, part) => sum + part.rows, 0), reason])
        .sort((left, right) => right[0] - left[0]);
      const more = reasons.length > 1 ? `, and ${withUnit(reasons.length - 1, "other reason")}` : "";
      lines.push([
        make("b", {}, withUnit(rows, "row")), " of ", instance === null ? "an unknown instance" : bold(instance),
        ` ${rows === 1 ? "is" : "are"} invalid and not counted: `, make("bdi", {}, shortened(reasons[0][1])), `${more}.`,
      ]);
    }
    return lines;
  }

  function showMissing(kpis) {
    const kinds = [staleLines(), gapLines(), unreadableLines(), quarantineLines()];
    const item = (line, kind = "") => make("li", kind ? { class: kind } : {}, ...line);
    const shown = kinds.flatMap((lines) => lines.slice(0, LISTED_FIRST).map((line) => item(line)));
    const hidden = kinds.flatMap((lines) => lines.slice(LISTED_FIRST));
    if (hidden.length) {
      shown.push(item([make("a", { href: "#all-missing" }, `${whole.format(hidden.length)} more`), ", in Data coverage and freshness."]));
    }
    const isWhole = !shown.length;
    if (isWhole) {
      shown.push(item(["Nothing: all expected days of the period have been received, and no row is invalid."], "good"));
    }
    shown.push(item([`Data as of ${report.as_of}, the newest day received.`], "aside"));
    const coverage = rowOf("coverage", scope());
    if (coverage) {
      shown.push(item([
        `Of ${withUnit(coverage.published, "post")} published, ${whole.format(coverage.impressions)} report organic impressions`,
        ` and ${whole.format(coverage.paid_impressions)} paid impressions.`,
      ], "aside"));
    }
    if (report.days < filters.period) {
      shown.push(item([`Only ${report.days} of the ${filters.period} days can have data: the first day received is ${report.first_day}.`], "aside"));
    }
    if (!isComparable()) {
      shown.push(item([`No change is shown, because not all of the ${filters.period} days before have been received.`], "aside"));
    } else if (kpis.has_equal_days === false) {
      shown.push(item(["No change is shown, because the two periods have data for different numbers of days."], "aside"));
    }
    byId("missing").replaceChildren(...shown);
    byId("all-missing").replaceChildren(
      ...(hidden.length ? [make("h3", {}, "More that is missing"), make("ul", { class: "all-missing" }, ...hidden.map((line) => item(line)))] : []),
    );
    return kinds.reduce((sum, lines) => sum + lines.length, 0);
  }

  function showReceived() {
    const expected = (table) => Math.min(filters.period, report.days - report.newest[table]);
    const days = (table) => ({
      label: `Days of ${table === METRICS_TABLE ? "metrics" : "posts"}`, isNumber: true, names: [`${table}_days`, `${table}_days_expected`],
      values: (row) => [row[table], expected(table)], cell: (row) => cell(figure(row[table], "count"), " of ", figure(expected(table), "count")),
    });
    const newest = (row) => (row.newest === Infinity ? null : dayOf(row.newest));
    fillTable(
      "received",
      [
        column.name("Instance", (row) => row.name),
        column.text("Newest day", newest, (row) => newest(row) === null ? [figure(null)] : [dayElement(row.newest), row.newest ? ` (${withUnit(row.newest, "day")} behind)` : ""]),
        ...TABLES.map(days),
        column.number("Invalid rows", "rows"),
      ],
      instances().map((instance) => ({
        name: report.instances[instance],
        newest: Math.min(...TABLES.map((table) => newestAge(table, instance) ?? Infinity)),
        rows: quarantined().filter((part) => part.instance === report.instances[instance]).reduce((sum, part) => sum + part.rows, 0),
        ...Object.fromEntries(TABLES.map((table) => [table, storedDays(table, instance)])),
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

  /** Returns the rows of a bar chart. `lane` separates the bars of a group; it is empty if each group has one bar. */
  function bars(groups) {
    const isOneEach = new Set(groups.map((bar) => bar.group)).size === groups.length;
    return groups.map((bar) => ({
      ...bar,
      lane: isOneEach ? "" : bar.channel,
      end: bar.high ?? 0,
      tooltip: `${bar.name ?? bar.group}, ${bar.channel}: ${bar.label}`,
    }));
  }

  const LINES = [["impressions", "count"], ["engagements", "count"], ["engagement_rate", "percent"]];

  /** Returns the days of the period for a scope, oldest first. */
  function daysIn(wantedScope) {
    const daily = report.daily[wantedScope];
    const first = report.newest[METRICS_TABLE];
    return Array.from({ length: filters.period }, (_, index) => {
      const age = first + filters.period - 1 - index;
      const measured = Object.entries(daily ?? {}).filter(([name]) => name !== "newest");
      return { age, ...Object.fromEntries(measured.map(([name, values]) => [name, values[age - daily.newest] ?? null])) };
    });
  }

  function showDays() {
    const days = daysIn(scope()).map((day) => ({
      ...day,
      missing: day.age < report.days ? instances().filter((instance) => !isStored(METRICS_TABLE, instance, day.age)) : [],
    }));
    for (const [measure, format] of LINES) {
      const series = (channel) => days.map((day) => day[`${channel}_${measure}`] ?? null);
      const values = (day) => CHANNELS.map((channel) => `${channel} ${formatted(day[`${channel}_${measure}`], format)}`).join(", ");
      const rows = CHANNELS.flatMap((channel) => series(channel).map((value, index, all) => ({
        day: NEWEST - days[index].age * DAY, channel, value,
        alone: value !== null && all.slice(Math.max(index - 1, 0), index + 2).filter((near) => near !== null).length === 1,
        incomplete: days[index].missing.length > 0,
        tooltip: `${dayOf(days[index].age)}: ${values(days[index])}${days[index].missing.length ? `, ${withUnit(days[index].missing.length, "instance")} missing` : ""}`,
      })));
      draw(measure, rows.every((each) => each.value === null) ? [] : rows, `Line chart of organic and paid ${readable(measure)} on each of ${filters.period} days. The numbers are in the table of days.`);
    }
    byId("incomplete-key").hidden = !days.some((day) => day.missing.length);
    const missingNames = (day) =>
      day.age >= report.days ? "before the first day" : day.missing.length === report.instances.length ? "all instances" : listed(day.missing.map((instance) => report.instances[instance]), "instance", "instances");
    fillTable("days", [column.name("Day (UTC)", (day) => dayOf(day.age)), ...RESULTS, column.text("Missing", missingNames)], [...days].reverse());
  }

  function showRates() {
    const rows = rowsOf("content_results", scope()).map((row) => ({ ...row, names: report.contents[row.content] }))
      .sort((left, right) => (left.names.at(-1) === null) - (right.names.at(-1) === null) || descending(left.impressions, right.impressions) || left.content - right.content);
    const [platforms, types] = [1, 2].map((length) => rows.filter((row) => row.names.length === length));
    const drawn = (groups) =>
      bars(groups.flatMap((row) => CHANNELS.map((channel) => {
        const rate = row[`${channel}_engagement_rate`];
        return { group: readable(row.names.at(-1)), channel, low: rate, high: rate, label: rate === null && channel === "paid" && isUnpaid(row) ? NO_PAID_ACTIVITY : formatted(rate, "percent") };
      })));
    draw("platform_rates", drawn(platforms), "Bar chart of organic and paid engagement rates by platform. The numbers are in the table below.");
    draw("content_rates", drawn(types), "Bar chart of organic and paid engagement rates by content type. The numbers are in the table below.");
    fillTable(
      "rates",
      [column.name("Platform, content type", (row) => readable(row.names.at(-1))), ...RESULTS_AND_LIFT],
      platforms.flatMap((row) => [row, ...types.filter((type) => type.names[0] === row.names[0])]),
      { kind: (row) => (row.names.length === 1 ? "of-platform" : "of-type") },
    );
  }

  /** Returns a small line chart of a campaign's impressions by day, with gaps where nothing is available. */
  function sparkline(campaign) {
    const [width, height] = [120, 28];
    const days = daysIn(scopeOfCampaign(campaign));
    const maximum = Math.max(1, ...days.flatMap((day) => CHANNELS.map((channel) => day[`${channel}_impressions`] ?? 0)));
    const svg = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const chart = svg("svg", { class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Impressions by day. Choose the campaign in the filter to see the numbers." });
    for (const channel of CHANNELS) {
      let pen = "M";
      const path = days.map((day, index) => {
        const value = day[`${channel}_impressions`] ?? null;
        const step = value === null ? "" : `${pen}${((index + 0.5) / days.length * width).toFixed(1)} ${(height - 2 - value / maximum * (height - 4)).toFixed(1)}h.1`;
        pen = value === null ? "M" : "L";
        return step;
      });
      chart.append(svg("path", { class: channel, d: path.join("") }));
    }
    return chart;
  }

  function showCampaigns() {
    const rows = campaigns().flatMap((campaign) => rowsOf("kpis", scopeOfCampaign(campaign)).map((row) => ({ ...row, campaign })))
      .filter((row) => row.posts)
      .sort((left, right) => descending(left.impressions, right.impressions) || left.campaign - right.campaign);
    const trend = { label: "Impressions by day", names: [], values: () => [], cell: (row) => make("td", {}, sparkline(row.campaign)) };
    fillTable("campaigns", [column.campaign((row) => campaignName(row.campaign)), ...RESULTS_AND_LIFT, column.lift("Same-post lift", "same_post_lift"), trend], rows);
  }

  const KNOWN = "Known: spend and return", KNOWN_TRACKING = "Known: tracking links", KNOWN_AFFILIATE = "Known: affiliate links";
  const BOUNDED = "Bounded: lifetime of posts";
  // Each total: group, label, measure, format.
  const CAMPAIGN_TOTALS = [
    [KNOWN, "Ad spend", "paid_ad_spend", "money"],
    [KNOWN, "Content cost", "estimated_content_cost", "money"],
    [KNOWN, "Value generated", "estimated_value_generated", "money"],
    [KNOWN, "ROI", "estimated_roi", "ratio"],
    [KNOWN, "ROAS", "paid_return_on_ad_spend", "ratio"],
    [KNOWN, "Cost per click", "cost_per_click", "money"],
    [KNOWN_TRACKING, "Conversions", "tracking_links_conversions", "count"],
    [KNOWN_TRACKING, "Value", "tracking_links_conversion_value", "money"],
    [KNOWN_AFFILIATE, "Conversions", "affiliate_links_conversions", "count"],
    [KNOWN_AFFILIATE, "Sales", "affiliate_links_sales", "plain"],
  ];

  /** Returns the campaigns that have totals or published posts: highest ad spend first, unknown ad spend last. */
  function totalsOfCampaigns() {
    return campaigns().flatMap((campaign) => {
      const known = rowOf("campaign_totals", scopeOfCampaign(campaign));
      const published = rowOf("spend", scopeOfCampaign(campaign));
      return known || published ? [{ campaign, known: known ?? {}, published: published ?? {} }] : [];
    }).sort((left, right) => descending(left.known.paid_ad_spend, right.known.paid_ad_spend) || left.campaign - right.campaign);
  }

  /** Returns the limits of the paid spend on a campaign's published posts, or the reason why there are none. */
  const limitsOf = ({ published }) =>
    published.paid_spend_minimum == null && isUnpaid(published) ? [note(NO_PAID_ACTIVITY)] : range(published.paid_spend_minimum, published.paid_spend_maximum, "money");

  const postsWithLimits = ({ published }) =>
    published.posts == null ? [note("no posts")] : [figure(published.paid_spend_posts, "count"), " of ", figure(published.posts, "count")];

  function showTotals() {
    byId("no-totals").hidden = report.campaign_totals !== null;
    byId("known-totals").hidden = byId("campaign-figures").hidden = report.campaign_totals === null;
    if (report.campaign_totals === null) return;
    const rows = totalsOfCampaigns();
    const totals = CAMPAIGN_TOTALS.map(([group, label, name, format]) =>
      ({ group, label, isNumber: true, names: [name], values: ({ known }) => [known[name]], cell: ({ known }) => cell(figure(known[name], format)) }));
    const statusOf = ({ campaign }) => report.campaigns[campaign][3];
    fillTable("totals", [
      column.campaign((row) => campaignName(row.campaign)),
      column.text("Status", statusOf, (row) => [statusOf(row) === null ? figure(null) : make("bdi", {}, statusOf(row))]),
      ...totals,
      {
        group: BOUNDED, label: "Paid spend", isNumber: true, names: ["paid_spend_minimum", "paid_spend_maximum"],
        values: ({ published }) => [published.paid_spend_minimum, published.paid_spend_maximum], cell: (row) => cell(...limitsOf(row)),
      },
      {
        group: BOUNDED, label: "Posts with limits", isNumber: true, names: ["paid_spend_posts", "posts"],
        values: ({ published }) => [published.paid_spend_posts, published.posts], cell: (row) => cell(...postsWithLimits(row)),
      },
    ], rows, { most: MAXIMUM_TOTALS });
    const days = report.campaign_days[filters.period] ?? 0;
    const unassigned = report.unassigned_campaigns[filters.period] ?? [];
    const shown = filters.campaign === null ? unassigned : unassigned.filter((id) => id === report.campaigns[filters.campaign][1]);
    const coverage = days < filters.period ? [`Known totals cover ${days} of ${filters.period} days; the other days are not in the lake.`] : [];
    const unassignedNote = shown.length ? [`${withUnit(shown.length, "campaign has", "campaigns have")} totals that are not shown, because ${shown.length === 1 ? "its number belongs" : "their numbers belong"} to several instances or to none that is known: ${listed(shown.map(String), "number", "numbers")}.`] : [];
    byId("totals-notes").replaceChildren(...[
      ...coverage,
      ...(rows.length > MAXIMUM_TOTALS ? [`The table shows the ${MAXIMUM_TOTALS} campaigns with the highest ad spend, of ${whole.format(rows.length)}; the CSV file has all.`] : []),
      ...unassignedNote,
    ].map((text) => make("li", {}, text)));
    showCampaignFigures(rows, [...coverage, ...unassignedNote]);
  }

  /** Shows the totals of the chosen campaign as key figures, with `notes` about what they lack. */
  function showCampaignFigures(rows, notes) {
    const container = byId("campaign-figures");
    container.hidden = filters.campaign === null;
    if (container.hidden) return;
    const row = rows[0] ?? { known: {}, published: {} };
    const item = (label, children) => make("div", {}, make("dt", {}, label), make("dd", {}, ...children));
    const block = (title, items) => make("div", {}, make("h4", {}, title), make("dl", {}, ...items));
    const known = (name, format) => [make("span", { id: `figure-${name}` }, figure(row.known[name], format))];
    container.replaceChildren(
      make("h3", {}, make("bdi", { dir: "ltr" }, campaignName(filters.campaign))),
      make("p", { class: "lead" }, ["Known totals are those recorded on the days of the period. Limits are those of the lifetime spend on the posts published in it.", ...notes].join(" ")),
      make("div", { class: "figures" },
        ...[KNOWN, KNOWN_TRACKING, KNOWN_AFFILIATE].map((group) =>
          block(group, CAMPAIGN_TOTALS.filter(([of]) => of === group).map(([, label, name, format]) => item(label, known(name, format))))),
        block(BOUNDED, [item("Paid spend", limitsOf(row)), item("Posts with limits", postsWithLimits(row))])),
    );
  }

  function showSpend() {
    const byCampaign = campaigns().flatMap((campaign) => rowsOf("spend", scopeOfCampaign(campaign)).map((row) => ({ ...row, name: campaignName(campaign), label: campaignName(campaign, LABEL_LENGTH) })))
      .sort((left, right) => descending(left.known_spend_maximum, right.known_spend_maximum) || left.scope - right.scope);
    const all = filters.campaign === null ? rowsOf("spend", scope()).map((row) => ({ ...row, name: "All campaigns" })) : [];
    const drawn = (measure) =>
      bars(byCampaign.slice(0, DRAWN_CAMPAIGNS).flatMap((row) => CHANNELS.map((channel) => {
        const [low, high] = [row[`${channel}_${measure}_minimum`], row[`${channel}_${measure}_maximum`]];
        return { group: row.label, name: row.name, channel, low, high, label: low === null && channel === "paid" && isUnpaid(row) ? NO_PAID_ACTIVITY : bounds(low, high) };
      })));
    draw("spend", drawn("spend"), "Bar chart of the lower and upper limits of organic and paid spend by campaign. The numbers are in the table below.");
    draw("cost", drawn("cpe"), "Bar chart of the lower and upper limits of the organic and paid cost per engagement by campaign. The numbers are in the table below.");
    byId("spend-note").textContent =
      byCampaign.length > DRAWN_CAMPAIGNS ? `The charts show the ${DRAWN_CAMPAIGNS} campaigns with the highest spend, of ${byCampaign.length}.` : "";
    const lines = [...all, ...byCampaign].flatMap((row) => [...CHANNELS, "both"].map((channel) => {
      const line = { name: row.name, channel, posts: row.posts, isUnpaid: channel === "paid" && isUnpaid(row) };
      for (const [name, value] of Object.entries(row)) if (name.startsWith(`${channel}_`)) line[name.slice(channel.length + 1)] = value;
      return line;
    }));
    const orUnpaid = (each) => ({ ...each, cell: (row) => (row.isUnpaid && row[each.names[0]] == null ? cell(note(NO_PAID_ACTIVITY)) : each.cell(row)) });
    const known = {
      label: "Posts with known spend", isNumber: true, names: ["spend_posts", "posts", "spend_contradictory_posts"],
      values: (row) => [row.spend_posts, row.posts, row.spend_contradictory_posts],
      cell: (row) => row.channel === "both" ? cell() : cell(figure(row.spend_posts, "count"), " of ", figure(row.posts, "count"),
        ...(row.spend_contradictory_posts ? [` (${withUnit(row.spend_contradictory_posts, "contradiction")})`] : [])),
    };
    fillTable("spend", [
      column.campaign((row) => row.name),
      column.text("Channel", (row) => row.channel, (row) => row.channel === "both" ? ["both"] : [make("span", { class: `key ${row.channel}` }), row.channel]),
      known,
      ...[column.range("Spend", "spend"), column.number("Engagements", "cpe_units"), column.range("Cost per engagement", "cpe"),
        column.number("Impressions", "cpm_units"), column.range("Cost per 1000 impressions", "cpm")].map(orUnpaid),
    ], lines, { empty: "No posts published for this selection.", kind: (row) => (row.channel === "organic" ? "" : "same-campaign") });
    fillTable("value", [
      column.campaign((row) => row.name), column.number("Estimated value", "organic_estimated_value", "money"),
      column.number("Value of posts with known spend", "value_of_spend", "money"), column.range("Spend on these", "valued_spend"),
      column.range("Value per USD", "organic_value_per_spend", "ratio"),
    ], [...all, ...byCampaign], { empty: "No posts published for this selection." });
  }

  /** Returns a creator's profiles, linked if the link is a web address. If all profiles have the same handle, it is shown once. */
  function profileLinks(profiles) {
    const handles = new Set(profiles.map((profile) => profile.handle));
    const isShared = handles.size === 1 && profiles.length > 1 && profiles.every((profile) => profile.handle && profile.network);
    const links = profiles.map((profile) => {
      const label = `${profile.handle ?? "profile"}${profile.network ? ` on ${profile.network}` : ""}`;
      const shown = make("bdi", {}, isShared ? profile.network : label);
      if (!/^https?:\/\//i.test(profile.link ?? "")) return shown;
      return make("a", { href: profile.link, rel: "noopener noreferrer", target: "_blank", "aria-label": label }, shown);
    });
    return isShared ? [make("bdi", {}, profiles[0].handle), ...links] : links;
  }

  /** Returns the value by which a creator is sorted. A lift without an interval counts as not available. */
  const sortedBy = (row) => (filters.sort === "paid_lift" && row.paid_lift_low === null ? null : row[filters.sort]);

  function showCreators() {
    const scopes = filters.instance === null && filters.campaign === null ? report.instances.map((_, index) => scopeOfInstance(index)) : [scope()];
    const ranked = scopes.flatMap((each) => rowsOf("creator_results", each))
      .sort((left, right) => descending(left.impressions, right.impressions) || left.creator - right.creator).slice(0, MAXIMUM_CREATORS)
      .map((row) => ({ ...row, ...report.creators[row.creator] }))
      .sort((left, right) => {
        const [one, other] = [sortedBy(left), sortedBy(right)];
        return (filters.ascending && one !== null && other !== null ? one - other : descending(one, other)) || left.creator - right.creator;
      })
      .map((row, index) => ({ ...row, rank: index + 1 }));
    const shown = filters.showAllCreators ? ranked : ranked.slice(0, CREATORS_AT_FIRST);
    const name = (row) => row.name ?? (row.id === null ? "Unknown creator" : `Creator ${row.id}`);
    const below = (row) => {
      const instance = scopes.length > 1 ? [make("bdi", {}, report.instances[row.instance])] : [];
      const extra = [...profileLinks(row.profiles), ...instance];
      return extra.length ? [make("span", { class: "links" }, ...extra)] : [];
    };
    const columns = [
      { ...column.text("Rank", (row) => String(row.rank)), cell: (row) => make("td", { class: "rank" }, String(row.rank)) },
      column.name("Creator", name, below),
      column.number("All impressions", "impressions"),
      ...RESULTS_AND_LIFT,
    ].map((each) => ({ ...each, attributes: () => (each.sort && each.sort === filters.sort ? { "aria-sort": filters.ascending ? "ascending" : "descending" } : {}) }));
    const head = (each) =>
      each.sort ? [make("button", { type: "button", "data-sort": each.sort }, each.sort === filters.sort ? `${each.label} ${filters.ascending ? "↑" : "↓"}` : each.label)] : [each.label];
    fillTable("creators", columns, shown, { head, empty: "No results of any creator for this selection." });
    byId("creators-note").textContent = ranked.length < MAXIMUM_CREATORS ? `${whole.format(shown.length)} of ${withUnit(ranked.length, "creator")}.` : `${whole.format(shown.length)} of the ${MAXIMUM_CREATORS} creators with the most impressions.`;
    byId("all-creators").hidden = ranked.length <= CREATORS_AT_FIRST;
    byId("all-creators").textContent = filters.showAllCreators ? `Show the first ${CREATORS_AT_FIRST}` : "Show all";
  }

  function showCoverage() {
    const row = rowOf("coverage", scope());
    const published = row?.published ?? 0;
    const rows = report.metrics
      .map((metric) => ({ ...metric, reporting: row?.[metric.column] ?? 0, published }))
      .filter((metric) => metric.is_in_api_reference || metric.reporting);
    draw(
      "coverage",
      published ? bars(rows.map(({ label, channel, reporting }) => {
        const share = (100 * reporting) / published;  // for the length of the bar only; its label has the two counts
        return { group: label, channel, low: share, high: share, label: `${formatted(reporting, "count")} of ${formatted(published, "count")}` };
      })) : [],
      "Bar chart of how many published posts report each metric. The numbers are in the table below.",
    );
    fillTable("coverage", [column.name("Metric", (each) => each.label), column.number("Posts that report it", "reporting"), column.number("Posts published", "published")], rows);
  }

  const selection = () =>
    filters.campaign !== null ? `campaign ${campaignName(filters.campaign)}`
      : `${filters.instance === null ? "all instances" : report.instances[filters.instance]}, all campaigns`;

  function show() {
    const [newest, ofPosts] = TABLES.map((table) => report.newest[table]);
    const days = (first) => [dayElement(first + filters.period - 1), " to ", dayElement(first)];
    const comparison = isComparable() ? [", compared with ", ...days(newest + filters.period)] : [];
    const published = ofPosts === newest ? [] : ["; posts published ", ...days(ofPosts)];
    byId("dates").replaceChildren(...days(newest), ...comparison, ...published);
    const kpis = showKpis();
    const missing = showMissing(kpis);
    showDays();
    showRates();
    showCampaigns();
    showTotals();
    showSpend();
    showCreators();
    showCoverage();
    showReceived();
    return `The last ${filters.period} days, ${selection()}: organic impressions ${formatted(kpis.organic_impressions, "count")},` +
      ` paid impressions ${formatted(kpis.paid_impressions, "count")}. What is missing: ${missing ? withUnit(missing, "entry", "entries") : "nothing"}.`;
  }

  function setOptions(id, options, chosen) {
    byId(id).replaceChildren(
      ...options.map(([value, label]) => {
        const option = make("option", { value: String(value) }, label);
        option.selected = value === chosen;
        return option;
      }),
    );
  }

  const numberOrNull = (text) => (text === "" ? null : Number(text));

  /** Offers the campaigns of the chosen instance, or of all instances. */
  function setCampaignOptions() {
    const options = report.campaigns.map((_, index) => index).filter((index) => [null, instanceOf(index)].includes(filters.instance));
    if (!options.includes(filters.campaign)) filters.campaign = null;
    setOptions("campaign", [["", "All"], ...options.map((index) => [index, campaignName(index, OPTION_LENGTH)])], filters.campaign ?? "");
  }

  setOptions("period", report.periods.map((days) => [days, `Last ${days} days`]), filters.period);
  setOptions("instance", [["", "All"], ...report.instances.map((name, index) => [index, name])], "");
  setCampaignOptions();
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("change", () => {
    filters.period = Number(byId("period").value);
    filters.instance = numberOrNull(byId("instance").value);
    filters.campaign = numberOrNull(byId("campaign").value);
    setCampaignOptions();
    byId("announcement").textContent = show();
  });
  document.addEventListener("click", (event) => {
    const { csv, sort } = event.target.closest("button")?.dataset ?? {};
    if (csv) download(csv);
    if (!sort) return;
    filters.ascending = filters.sort === sort && !filters.ascending;
    filters.sort = sort;
    showCreators();
    document.querySelector(`[data-sort="${sort}"]`).focus();
  });
  byId("all-creators").addEventListener("click", () => {
    filters.showAllCreators = !filters.showAllCreators;
    showCreators();
  });
  show();
})();

"use strict";
// Shows the numbers for the chosen filters as tables and, with charts.js, as charts. All results are looked up in the
// embedded JSON. Data is inserted only as text, never as markup: do not use innerHTML.
addEventListener("error", ({ message }) => {
  const failed = document.getElementById("failed");
  failed.textContent = `This page has failed, and some of it may be missing or wrong. Please report: ${message}`;
  failed.hidden = false;
});

(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const [METRICS_TABLE] = Object.keys(report.tables);
  const DAY = 86400000;
  const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
  const DAYS_PER_POINT = 7;  // of a picture of more than LONGEST_BY_DAY days
  const LONGEST_BY_DAY = 90;
  const SHOWN_ROWS = matchMedia("(max-width: 36rem)").matches ? 5 : 6;  // of a table, until all are shown
  const DRAWN_NETWORKS = 8;
  const LISTED_FIRST = 3;
  const OPTION_LENGTH = 60;  // of a campaign's name in the filter
  const NAME_LENGTH = 200;
  const SILENT_DAYS = "7d";  // the window in which a network that used to report impressions should report some
  const UNLIKELY = 0.001;
  const filters = { window: report.window, instance: null, campaign: null };

  // Look-up. A row of a table is of a campaign, of an instance, or of all instances. Tables are stored by column, with
  // the rows in the order in which they are shown.

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
    const rowAt = (index) => Object.fromEntries(columns.map(([column, values]) => [column, values[index]]));
    return columns[0][1].map((_, index) => rowAt(index));
  }

  const scopeKey = (row) => `${row.time_window}/${row.instance}/${row.campaign}`;
  const byScope = (name) => new Map(rowsOf(name).map((row) => [scopeKey(row), row]));
  const [figures, published] = ["figures", "published"].map(byScope);
  const [parts, creators, posts, daily] = ["parts", "creators", "posts", "days"].map(rowsOf);
  const dailyByScope = groupedBy(daily, (row) => `${row.instance}/${row.campaign}`);

  const lookUp = (table, instance, campaign) =>
    table.get(scopeKey({ time_window: filters.window, instance, campaign })) ?? {};
  const chosen = (table) => lookUp(table, chosenInstance(), filters.campaign);
  const instanceOf = (campaign) => report.campaigns[campaign][0];
  const chosenInstance = () => (filters.campaign !== null ? instanceOf(filters.campaign) : filters.instance);
  const isChosen = (instance) => [null, instance].includes(chosenInstance());
  const inWindow = (rows) =>
    rows.filter((row) => row.time_window === filters.window && row.instance !== null && isChosen(row.instance));
  const instances = () => report.instances.map((_, index) => index).filter(isChosen);
  const windowDays = () => report.windows[filters.window].days;

  /** Compares two values: the larger first, null last. */
  const descending = (left, right) => (left == null || right == null ? (left == null) - (right == null) : right - left);

  // Formatting.

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
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
  const readable = (name) => (name ? name.replaceAll("_", " ") : "other");
  const dayOf = (age) => new Date(NEWEST - age * DAY).toISOString().slice(0, 10);
  const since = (age, days) => (days === 1 ? dayOf(age) : `${dayOf(age + days - 1)} to ${dayOf(age)}`);
  const withUnit = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;

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

  const shortened = (text, length = 120) =>
    text.length > length ? `${[...text].slice(0, length - 1).join("")}…` : text;
  const ofInstance = (instance) =>
    chosenInstance() === null && report.instances.length > 1 ? ` · ${isolated(report.instances[instance])}` : "";

  /** Returns a campaign's name and id, or only its id, with its instance if several instances are shown. */
  function campaignName(campaign, length = Infinity) {
    const [instance, id, name] = report.campaigns[campaign];
    return (name === null ? String(id) : `${isolated(shortened(name, length))} (${id})`) + ofInstance(instance);
  }

  // Elements.

  const byId = (id) => document.getElementById(id);

  /** Returns an element with a formatted number, and its exact value as an attribute; for null, a dash. */
  function figure(value, format) {
    if (value != null) return make("data", { value: String(value) }, formats[format](value));
    const dash = make("span", { "aria-hidden": "true" }, "–");
    return make("span", { class: "null" }, dash, make("span", { class: "unseen" }, NOT_AVAILABLE));
  }

  // Tables. A column has a label, a function that makes a row's cell, and the names and values of its CSV columns. The
  // columns of `more` are shown on demand. Another one without any value is not shown.

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
      cell: (row) => make("td", {}, text(row) == null ? figure(null) : make("bdi", { class: kind }, text(row))),
    }),
    number: (label, name, format = "count") => ({
      label, isNumber: true, sort: name, names: [name], values: (row) => [row[name]],
      cell: (row) => cell(figure(row[name], format)),
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
  const RESULTS = [
    column.number("Posts", "posts"),
    column.number("Organic impressions", "organic_impressions"), column.number("Paid impressions", "paid_impressions"),
    column.number("Organic rate", "organic_engagement_rate", "percent"),
    column.number("Paid rate", "paid_engagement_rate", "percent"),
    column.number("Rate ratio", "rate_ratio", "ratio"),
  ];

  // id -> its columns, rows and options, what it is sorted by, and whether all rows and columns are shown
  const tables = new Map();

  /** Fills a table. `limit` is the number of rows until all are shown; the CSV file has all. */
  function fillTable(id, columns, rows, options = {}) {
    const isFilled = (each) => rows.some((row) => each.values(row).some((value) => value != null && value !== ""));
    const shown = columns.filter((each, index) => !index || !rows.length || each.isMore || isFilled(each));
    const defaults = { empty: "No data for this selection.", limit: SHOWN_ROWS, kind: () => "" };
    tables.set(id, { ...tables.get(id), columns: shown, rows, options: { ...defaults, ...options } });
    showTable(id);
  }

  /** Adds the elements of a table to its container: head, body, buttons and a hint. */
  function addElements(container, id) {
    const { title } = container.dataset;
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title });
    const [caption, body] = [make("caption", { class: "unseen" }, title), make("tbody", { id })];
    scroll.append(make("table", {}, caption, make("thead", {}), body));
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

  function showTable(id) {
    const { columns: all, rows, options, sort, ascending, isWhole, isWide } = tables.get(id);
    const columns = all.filter((each) => isWide || !each.isMore);
    const container = byId(`table-${id}`);
    if (!container.firstChild) addElements(container, id);
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
      const label = isSorted ? `${each.label} ${ascending ? "↑" : "↓"}` : each.label;
      const button = make("button", { type: "button", "data-sort": each.sort, "data-table": id }, label);
      if (isSorted) attributes["aria-sort"] = ascending ? "ascending" : "descending";
      return make("th", attributes, button);
    };
    container.querySelector("thead").replaceChildren(make("tr", {}, ...columns.map(head)));
    byId(id).replaceChildren(
      ...(rows.length ? [] : [make("tr", {}, make("td", { colspan: String(columns.length) }, options.empty))]),
      ...visible.map((row) => make("tr", { class: options.kind(row) }, ...columns.map((each) => each.cell(row)))),
    );
    const [allRows, allColumns] = [".all", ".more"].map((name) => container.querySelector(name));
    allRows.hidden = rows.length <= options.limit;
    allRows.textContent = isWhole ? `Show the first ${options.limit}` : `Show all ${whole.format(rows.length)}`;
    allColumns.hidden = !rows.length || !all.some((each) => each.isMore);
    allColumns.textContent = isWide ? "Fewer columns" : "More columns";
  }

  /** Returns a value for a CSV file. A leading apostrophe keeps spreadsheets from running text as a formula. */
  function csvValue(value) {
    if (value == null || typeof value === "number") return String(value ?? "");
    return `"${value.replace(/^[=+\-@＝＋－＠\t\r]/, "'$&").replaceAll('"', '""')}"`;
  }

  let keyFigures = [];

  function download(id) {
    const { columns, rows } = tables.get(id) ?? {};
    const table = () => [
      columns.flatMap((each) => each.names), ...rows.map((row) => columns.flatMap((each) => each.values(row))),
    ];
    const lines = id === "kpis" ? keyFigures : table();
    const text = lines.map((values) => `${values.map(csvValue).join(",")}\r\n`).join("");
    const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    make("a", { href: url, download: `organic-paid-${id}-${report.as_of}-${filters.window}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Headline and key figures.

  // Each row: label, its measures (organic, paid, both), their formats, and a text below the third.
  const KPIS = [
    ["Impressions", ["organic_impressions", "paid_impressions", "paid_share_of_impressions"],
      ["headline", "headline", "share"], "paid share"],
    ["Engagements", ["organic_engagements", "paid_engagements", "paid_share_of_engagements"],
      ["headline", "headline", "share"], "paid share"],
    ["Engagements per 100 impressions", ["organic_engagement_rate", "paid_engagement_rate", "rate_ratio"],
      ["percent", "percent", "ratio"], "paid / organic"],
    ["Ad spend", [null, "ad_spend", "ad_spend_per_engagement"], [null, "money", "money"], "per paid engagement"],
    ["Return on ad spend", [null, "return_on_ad_spend", null], [null, "ratio", null]],
  ];

  /** Returns what each channel brought, for how much, and both rates, in words. */
  function headline(row) {
    const value = (name, format) => figure(row[name], format);
    const [organic, paid] = CHANNELS.map((channel) => row[`${channel}_engagement_rate`]);
    if (!row.paid_impressions && !row.paid_engagements) {
      const rate = organic == null ? [] : [", ", value("organic_engagement_rate", "rate"), " per 100 impressions"];
      return ["No paid results in this period. Organic posts brought ", value("organic_impressions", "headline"),
        " impressions and ", value("organic_engagements", "headline"), " engagements", ...rate, "."];
    }
    const hasNoShare = row.paid_share_of_impressions == null && row.paid_share_of_engagements == null;
    const [kind, of, names] = hasNoShare
      ? ["headline", " ", ["paid_impressions", "paid_engagements"]]
      : ["share", " of ", ["paid_share_of_impressions", "paid_share_of_engagements"]];
    const [impressions, engagements] = names.map((name) => value(name, kind));
    const brought = ["Ads brought ", impressions, `${of}impressions and `, engagements, `${of}engagements`];
    const cost = row.ad_spend_per_engagement;
    const price = cost == null ? [] : [" (", value("ad_spend_per_engagement", "money"), " per engagement)"];
    const spend = row.ad_spend == null ? [] : [" for ", value("ad_spend", "money"), " of ad spend", ...price];
    const known = [["ads ", paid], ["organic ", organic]].filter(([, rate]) => rate != null);
    const rates = known.flatMap(([channel, rate], index) =>
      [index ? ", " : " Per 100 impressions: ", channel, figure(rate, "rate"), index ? "" : " engagements"]);
    return [...brought, ...spend, ".", ...rates, ...(rates.length ? ["."] : [])];
  }

  function showKpis() {
    const row = chosen(figures);
    const isComparable = row.days === row.days_expected && row.previous_days === row.days_expected;
    byId("headline").replaceChildren(...headline(row));
    const kpi = (name, format, label) => make("td", { class: "number" }, ...(name === null ? [] : [
      make("span", { class: "value", id: `figure-${name}` }, figure(row[name], format)),
      ...(label ? [make("span", { class: "what" }, label)] : []),
      make("span", { class: "change", id: `change-${name}` }, ...(isComparable ? change(row, name, format) : [])),
    ]));
    const shown = KPIS.filter(([, names], index) => index < 3 || names.some((name) => row[name] != null));
    byId("kpis").replaceChildren(...shown.map(([label, names, kinds, what]) => {
      const cells = names.map((name, index) => kpi(name, kinds[index], index === 2 ? what : null));
      return make("tr", {}, make("th", { scope: "row" }, label), ...cells);
    }));
    byId("basis").replaceChildren("Rates are of posts that report both numbers.", ...basisOfSpend(row));
    const days = row.days_expected;
    byId("compared").textContent = isComparable ? `Changes are against the ${days} days before.` : missingDays(row);
    const measures = KPIS.flatMap(([, ofKpi]) => ofKpi).filter((name) => name !== null);
    const names = [...measures, "same_post_rate_ratio", "same_posts"];
    keyFigures = [["measure", "value", "previous"], ...names.map((name) => [name, row[name], row[`previous_${name}`]])];
    return row;
  }

  /** Returns what the ad spend is, and how exact. */
  function basisOfSpend(row) {
    if (row.ad_spend == null) return [];
    if (filters.campaign !== null) {
      return [" Ad spend and return are Later's own totals of the campaign in the period."];
    }
    const uncertainty = row.ad_spend_uncertainty;
    const range = uncertainty == null ? [] : [", ±\u00a0", figure(uncertainty, "percent")];
    return [" Ad spend is that of posts, by rounded unit costs", ...range, "."];
  }

  /** Returns why no changes are shown. */
  function missingDays(row) {
    if (row.days == null) return "";
    const lacking = [[row.days, "days"], [row.previous_days ?? 0, "days before"]]
      .filter(([days]) => days < row.days_expected)
      .map(([days, which]) => `${days} of the ${row.days_expected} ${which}`);
    return `No changes are shown: there are only ${lacking.join(" and ")}.`;
  }

  function change(row, name, format) {
    const [now, previous] = [row[name], row[`previous_${name}`]];
    if (now == null || previous == null || (format !== "percent" && !previous)) return [];
    const difference = format === "percent" ? now - previous : (100 * (now - previous)) / previous;
    const size = (format === "percent" ? decimal : tenth).format(Math.abs(difference));
    const sign = Number(size) === 0 ? "±" : difference > 0 ? "+" : "−";
    return [`${sign}${size}${format === "percent" ? " points" : "\u00a0%"}`];
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
      ranges: JSON.parse(members[0][0])[1],
      tables: members[0][1],
      instances: members.map(([key]) => JSON.parse(key)[0]),
    }));
  }

  function gapLine({ ranges, tables: names, instances: affected }) {
    const days = ranges.map(([from, to]) => (from === to ? dayOf(from) : `${dayOf(to)} to ${dayOf(from)}`)).reverse();
    const isOne = ranges.length === 1 && ranges[0][0] === ranges[0][1];
    const isAll = affected.length > 1 && affected.length === instances().length;
    const named = () => listed(affected.map((index) => report.instances[index]), "instance", "instances");
    const who = affected[0] === null ? [] : [" for ", bold(isAll ? `all ${affected.length} instances` : named())];
    const what = names.map((name) => report.tables[name]).join(", ");
    return [make("b", {}, listed(days, "gap", "gaps")), ` ${isOne ? "is" : "are"} missing`, ...who, ` (${what}).`];
  }

  function quarantined() {
    const names = new Set(instances().map((index) => report.instances[index]));
    return report.quarantined.filter(({ age, instance }) =>
      (age === null || age < windowDays()) && (instance === null || names.has(instance)));
  }

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

  /** Returns the networks of which no post reports impressions in the period, or none any more. */
  function networkLines() {
    const isNetwork = (row) => row.kind === "platform" && row.instance === chosenInstance();
    const ofWindow = (name) => parts.filter((row) => isNetwork(row) && row.time_window === name);
    const recent = new Map(ofWindow(SILENT_DAYS).map((row) => [row.platform, row]));
    return ofWindow(filters.window).flatMap((row) => {
      const network = bold(readable(row.platform));
      const number = (of) => withUnit(of.posts, "post");
      if (!row.organic_impressions_posts) {
        return [["No post of ", network, ` reports impressions (${number(row)}), so it has no rate.`]];
      }
      const last = recent.get(row.platform);
      if (!last || last.organic_impressions_posts) return [];
      const chance = (1 - row.organic_impressions_posts / row.posts) ** last.posts;
      const silence = ["No post of ", network, ` has reported impressions in the last 7 days (${number(last)}).`];
      return chance < UNLIKELY ? [silence] : [];
    });
  }

  /** Returns what is known of Later's totals of campaigns if they are of another period. */
  function totalsLines() {
    const others = inWindow([...figures.values()])
      .filter((row) => row.totals_age && [null, row.campaign].includes(filters.campaign));
    if (!others.length) return [];
    const days = [...new Set(others.map((row) => row.totals_age))].sort(descending).map(dayOf);
    const ends = ` end on ${listed(days, "day", "days")}, the posts on ${dayOf(0)}:`;
    const campaigns = make("b", {}, withUnit(others.length, "campaign"));
    return [["Later's totals of ", campaigns, ends, " their ad spend and return are left out."]];
  }

  /** Returns when the data begin, if that is in the period. */
  function beginLines(row) {
    const isLonger = report.oldest_age !== null && row.days < windowDays() && report.oldest_age < windowDays() - 1;
    const text = `: the period has ${row.days} of ${windowDays()} days.`;
    return isLonger ? [["The data begin on ", make("b", {}, dayOf(report.oldest_age)), text]] : [];
  }

  function showMissing(row) {
    const outdated = report.outdated.map((text) => [make("bdi", {}, text)]);
    const lines = [
      ...gaps().map(gapLine), ...outdated, ...totalsLines(), ...networkLines(),
      ...quarantineLines(), ...beginLines(row),
    ];
    const item = (line, kind = "") => make("li", kind ? { class: kind } : {}, ...line);
    const shown = lines.slice(0, 2 * LISTED_FIRST).map((line) => item(line));
    const hidden = lines.slice(2 * LISTED_FIRST);
    if (hidden.length) {
      const link = make("a", { href: "#received-part" }, `${whole.format(hidden.length)} more`);
      shown.push(item([link, ", in Data received."]));
    }
    if (!shown.length) shown.push(item(["Nothing."], "good"));
    const asides = [`Data as of ${report.as_of}.`];
    if (row.posts) {
      const [organic, paid] = CHANNELS.map((channel) => whole.format(row[`${channel}_impressions_posts`] ?? 0));
      asides.push(
        `Of ${withUnit(row.posts, "post")} with results, ${organic} report organic impressions and ${paid} paid ones,`
          + " some of them both.",
      );
    }
    byId("missing").replaceChildren(...shown, item([asides.join(" ")], "aside"));
    const others = [make("h3", {}, "More that is missing"), make("ul", {}, ...hidden.map((line) => item(line)))];
    byId("all-missing").replaceChildren(...(hidden.length ? others : []));
    return lines.length;
  }

  function showReceived() {
    const gapsOf = (table, instance) =>
      gaps().filter((gap) => gap.tables.includes(table) && gap.instances.includes(instance));
    // Not the days after the period, whose age is negative: `Days expected` does not count them either.
    const length = ([from, to]) => Math.max(0, to - Math.max(0, from) + 1);
    const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
    const missing = (table, instance) => sum(gapsOf(table, instance).flatMap((gap) => gap.ranges).map(length));
    const invalid = (name) => sum(quarantined().filter((part) => part.instance === name).map((part) => part.rows));
    const columns = [
      column.name("Instance", (row) => row.name),
      column.number("Days of results", "days"), column.number("Days expected", "days_expected"),
      ...Object.entries(report.tables).slice(0, 2).map(([table, label]) => column.number(`Missing ${label}`, table)),
      column.number("Invalid rows", "rows"),
    ];
    fillTable("received", columns, instances().map((instance) => ({
      name: report.instances[instance], days: 0, ...lookUp(figures, instance, null),
      rows: invalid(report.instances[instance]),
      ...Object.fromEntries(Object.keys(report.tables).map((table) => [table, missing(table, instance)])),
    })));
  }

  // Charts.

  const charts = new Map();  // container -> function that returns its chart for a width in pixels
  const widths = new ResizeObserver((entries) => entries.forEach(({ target }) => drawIn(target)));

  function drawIn(container) {
    const chart = charts.get(container);
    if (!chart || !container.clientWidth) return;
    container.querySelector("[aria-hidden]").replaceChildren(chart(container.clientWidth));
  }

  /** Draws a chart, or says that there is no data. Screen readers get `description` instead of its marks. */
  function draw(name, hasData, description, chart) {
    const container = byId(`chart-${name}`);
    charts.set(container, hasData ? chart : null);
    container.replaceChildren(hasData
      ? make("div", { role: "img", "aria-label": description }, make("div", { "aria-hidden": "true" }))
      : make("p", { class: "nothing" }, "No data for this selection."));
    drawIn(container);
    widths.observe(container);
  }

  /** Returns the days or weeks of the period, oldest first: counts, rates, and the instances that lack a file. */
  function points() {
    const rows = dailyByScope.get(`${chosenInstance()}/${filters.campaign}`) ?? [];
    const step = windowDays() > LONGEST_BY_DAY ? DAYS_PER_POINT : 1;
    const byPoint = groupedBy(rows.filter((row) => row.age < windowDays()), (row) => Math.floor(row.age / step));
    const length = Math.min(windowDays(), report.oldest_age + 1);
    const absent = report.missing.filter(({ table, instance }) => table === METRICS_TABLE && isChosen(instance));
    const add = (total, value) => (value == null ? total : (total ?? 0) + value);
    const sum = (members, name) => members.map((row) => row[name]).reduce(add, null);
    return Array.from({ length: Math.max(1, Math.floor(length / step)) }, (_, index) => {
      const members = byPoint.get(index) ?? [];
      const age = index * step;
      const lacking = absent.filter(({ ages }) => ages.some(([from, to]) => from < age + step && age <= to));
      const point = { age, days: step, missing: lacking.map(({ instance }) => report.instances[instance]) };
      for (const channel of CHANNELS) {
        for (const measure of ["impressions", "engagements"]) {
          point[`${channel}_${measure}`] = sum(members, `${channel}_${measure}`);
        }
        const ofRates = (measure) => sum(members, `${channel}_rate_${measure}`);
        const [engagements, impressions] = ["engagements", "impressions"].map(ofRates);
        point[`${channel}_engagement_rate`] = impressions > 0 ? (100 * engagements) / impressions : null;
      }
      return point;
    }).reverse();
  }

  function showTime() {
    const shown = points();
    const unit = shown[0].days === 1 ? "day" : "week";
    const CHARTS = [["impressions", "impressions", "count", 210], ["rates", "engagement_rate", "percent", 170]];
    for (const [name, measure, format, height] of CHARTS) {
      const number = (point, channel) => `${channel} ${formatted(point[`${channel}_${measure}`], format)}`;
      const numbers = (point) => CHANNELS.map((channel) => number(point, channel)).join(", ");
      const values = shown.map((point) => ({
        time: NEWEST - point.age * DAY, isIncomplete: point.missing.length > 0,
        ...Object.fromEntries(CHANNELS.map((channel) => [channel, point[`${channel}_${measure}`]])),
        tooltip: `${since(point.age, point.days)}: ${numbers(point)}`,
      }));
      const what = name === "rates" ? "engagements per 100 impressions" : "impressions";
      const hasData = values.some(({ organic, paid }) => organic !== null || paid !== null);
      const description = `Line chart of organic and paid ${what}, by ${unit}. The numbers are in the table over time.`;
      draw(name, hasData, description, (width) => lineChart(values, width, height));
    }
    document.querySelector(".each").textContent = `by ${unit}`;
    byId("incomplete-key").hidden = !shown.some((point) => point.missing.length);
    const label = { organic: "Organic", paid: "Paid" };
    const measures = [["impressions", "count"], ["engagements", "count"], ["engagement_rate", "percent"]];
    const heading = (channel, measure) => `${label[channel]} ${measure === "engagement_rate" ? "rate" : measure}`;
    const columns = measures.flatMap(([measure, format]) => CHANNELS.map((channel) =>
      column.number(heading(channel, measure), `${channel}_${measure}`, format)));
    fillTable("days", [
      column.name(unit === "day" ? "Day (UTC)" : "Week (UTC)", (point) => since(point.age, point.days)), ...columns,
      column.text("Missing", (point) => (point.missing.length ? listed(point.missing, "instance", "instances") : null)),
    ], [...shown].reverse(), { limit: Infinity });
  }

  function showNetworks() {
    const isNetwork = (row) => row.kind === "platform";
    const rows = parts.filter((row) => row.time_window === filters.window && row.instance === chosenInstance());
    const [networks, types] = [rows.filter(isNetwork), rows.filter((row) => !isNetwork(row))];
    const name = (row) => readable(isNetwork(row) ? row.platform : row.content_type);
    const groups = networks.slice(0, DRAWN_NETWORKS).map((row) => ({ name: name(row), bars: CHANNELS.map((channel) => {
      const value = row[`${channel}_engagement_rate`];
      const number = () => withUnit(row[`${channel}_engagements_posts`] ?? 0, "post");
      const label = value === null ? "–" : `${formatted(value, "percent")} · ${number()}`;
      return { channel, value, label, tooltip: `${name(row)}, ${channel}: ${value === null ? NOT_AVAILABLE : label}` };
    }) }));
    const description = "Bar chart of organic and paid engagements per 100 impressions by network. The numbers are in"
      + " the table below.";
    draw("network_rates", groups.length > 0, description, () => barChart(groups));
    const isCut = networks.length > DRAWN_NETWORKS;
    byId("drawn").textContent = isCut ? `The ${DRAWN_NETWORKS} with the most impressions are drawn.` : "";
    const ordered = networks.flatMap((row) => [row, ...types.filter((type) => type.platform === row.platform)]);
    fillTable("parts", [
      column.name("Network, content type", name), ...RESULTS,
      ...more(
        column.number("Same-post rate ratio", "same_post_rate_ratio", "ratio"),
        column.number("Posts with both rates", "same_posts"),
      ),
    ], ordered, { limit: Infinity, kind: (row) => (isNetwork(row) ? "of-platform" : "of-type") });
  }

  // Campaigns, posts and creators.

  const ofCampaigns = (table) => inWindow([...table.values()])
    .filter(({ campaign }) => campaign !== null && [null, campaign].includes(filters.campaign));

  function showCampaigns() {
    const rows = ofCampaigns(figures).map((row) => ({ ...row, status: report.campaigns[row.campaign][3] }));
    fillTable("campaigns", [
      column.name("Campaign", (row) => campaignName(row.campaign)),
      column.number("Ad spend", "ad_spend", "money"),
      column.number("Return on ad spend", "return_on_ad_spend", "ratio"),
      ...RESULTS.slice(1, 5), column.number("Conversions by links", "tracking_links_conversions"),
      ...more(
        column.text("Status", (row) => row.status), RESULTS[0],
        column.number("Ad spend per engagement", "ad_spend_per_engagement", "money"),
        column.number("Paid clicks", "paid_clicks"), RESULTS[5],
      ),
    ], rows.filter((row) => row.posts || row.ad_spend != null));
  }

  function showPublished() {
    const row = chosen(published);
    const detail = (name, texts) =>
      texts.length && row[name] != null ? [make("span", { class: "detail" }, ...texts)] : [];
    const value = (name, format, ...details) =>
      [make("span", { id: `figure-${name}` }, figure(row[name], format)), ...detail(name, details)];
    const shown = [
      ["Posts published", "published_posts", "count"],
      ["Content cost so far", "content_cost", "money", "±\u00a0", figure(row.content_cost_uncertainty, "percent")],
      ["Posts of unknown cost, not in it", "posts_without_cost", "count"],
      ["Content cost per organic engagement of posts with a known cost", "content_cost_per_engagement", "money"],
    ];
    byId("published-figures").replaceChildren(...shown.map(([label, name, ...others]) =>
      make("div", {}, make("dt", {}, label), make("dd", {}, ...value(name, ...others)))));
    fillTable("published", [
      column.name("Campaign", (each) => campaignName(each.campaign)),
      column.number("Posts published", "published_posts"),
      column.number("Content cost so far", "content_cost", "money"),
      column.number("Posts of unknown cost", "posts_without_cost"),
      column.number("Content cost per organic engagement", "content_cost_per_engagement", "money"),
    ], ofCampaigns(published).sort((left, right) => descending(left.content_cost, right.content_cost)));
  }

  function showPosts() {
    const kind = (row) => readable(row.content_type ?? row.platform);
    const name = (row) => `${row.name ?? `Post ${row.post_id}`} · ${kind(row)}${ofInstance(row.instance)}`;
    const rank = (value) =>
      value === 100 ? ["above\u00a0all\u00a0peers"] : ["above\u00a0", figure(value, "rank"), "\u00a0of\u00a0peers"];
    const percentile = (label, measure, format) =>
      column.pair(label, measure, format, `${measure}_percentile`, rank);
    const isShown = (row) =>
      isChosen(row.instance) && (filters.campaign === null || row.campaigns.includes(filters.campaign));
    fillTable("boost", [
      column.name("Post", name, (row) => row.link), column.text("Published", (row) => dayOf(row.age), "date"),
      percentile("Organic impressions", "organic_impressions", "count"),
      percentile("Organic rate", "organic_engagement_rate", "percent"), column.number("Peers", "peers"),
    ], posts.filter(isShown), { empty: "None, or fewer than 20 posts to compare with.", limit: 5 });
  }

  function showCreators() {
    const unnamed = (id) => (id === null ? "Unknown creator" : `Creator ${id}`);
    const name = (row) => (row.name ?? row.handle ?? unnamed(row.creator_id)) + ofInstance(row.instance);
    fillTable("creators", [column.name("Creator", name, (row) => row.link), ...RESULTS], inWindow(creators));
  }

  /** Returns the chosen campaign or instance in words. */
  function selection() {
    if (filters.campaign !== null) return `campaign ${campaignName(filters.campaign)}`;
    return filters.instance !== null ? report.instances[filters.instance] : "all instances";
  }

  /** Shows everything for the chosen filters, and returns what a screen reader says. */
  function show() {
    const { days, label } = report.windows[filters.window];
    const row = showKpis();
    const dataOf = row.days < days ? `: data of ${row.days} of ${days} days` : "";
    byId("dates").textContent = `${dayOf(days - 1)} to ${dayOf(0)}${dataOf}`;
    byId("of-instance").hidden = filters.campaign === null;
    const missing = showMissing(row);
    showCampaigns();
    showPosts();
    showCreators();
    showPublished();
    showTime();
    showNetworks();
    showReceived();
    const entries = missing ? withUnit(missing, "entry", "entries") : "nothing";
    return `${label}, ${selection()}: ${byId("headline").textContent} What is missing: ${entries}.`;
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
    const isOffered = (campaign) => [null, instanceOf(campaign)].includes(filters.instance);
    const options = report.campaigns.map((_, index) => index).filter(isOffered);
    if (!options.includes(filters.campaign)) filters.campaign = null;
    const labelled = options.map((index) => [index, campaignName(index, OPTION_LENGTH)]);
    setOptions("campaign", [["", "All"], ...labelled], filters.campaign ?? "");
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
    const { csv, sort, table, all, more: wide } = event.target.closest("button")?.dataset ?? {};
    if (csv) download(csv);
    if (all) {
      tables.get(all).isWhole = !tables.get(all).isWhole;
      showTable(all);
    }
    if (wide) {
      tables.get(wide).isWide = !tables.get(wide).isWide;
      showTable(wide);
    }
    if (!sort) return;
    const state = tables.get(table);
    Object.assign(state, { sort, ascending: state.sort === sort && !state.ascending });
    showTable(table);
    document.querySelector(`[data-table="${table}"][data-sort="${sort}"]`).focus();
  });
  show();
})();

"use strict";
// Looks up the figures of what is picked, writes them and draws them. It computes none: SQL did.
// What comes from the data reaches the page as text only: there is no innerHTML here.
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const CHANNELS = ["organic", "paid"];
  const TABLES = Object.keys(report.tables);
  const [METRICS_TABLE] = TABLES;
  const DAY = 86400000;
  const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
  const DRAWN_CAMPAIGNS = 12;
  const CREATORS = 100;
  const CREATORS_AT_FIRST = 20;
  const NAMED = 3;
  const picked = { period: report.period, instance: null, campaign: null, sort: "impressions", up: false, all: false };

  // Looking up: a scope is all instances, one of them, or one campaign.

  const scopeOfInstance = (instance) => 1 + instance;
  const scopeOfCampaign = (campaign) => 1 + report.instances.length + campaign;
  const scope = () =>
    picked.campaign !== null ? scopeOfCampaign(picked.campaign) : picked.instance !== null ? scopeOfInstance(picked.instance) : 0;
  const instanceOf = (campaign) => report.campaigns[campaign][0];
  const pickedInstance = () => (picked.campaign !== null ? instanceOf(picked.campaign) : picked.instance);
  const instances = () => report.instances.map((_, index) => index).filter((index) => [null, index].includes(pickedInstance()));
  const campaigns = () =>
    report.campaigns.map((_, index) => index)
      .filter((index) => (picked.campaign === null ? [null, instanceOf(index)].includes(picked.instance) : picked.campaign === index));

  const places = new Map();

  /** The rows of a table of a scope, in the picked period. */
  function rowsOf(name, of) {
    const table = report[name];
    const key = (row) => `${table.scope[row]}/${table.period[row]}`;
    if (!places.has(name)) places.set(name, groupedBy(table.scope.map((_, row) => row), key));
    const found = places.get(name).get(`${of}/${picked.period}`) ?? [];
    return found.map((row) => Object.fromEntries(Object.entries(table).map(([column, values]) => [column, values[row]])));
  }

  const rowOf = (name, of) => rowsOf(name, of)[0];

  function groupedBy(values, key) {
    const groups = new Map();
    for (const value of values) {
      const name = key(value);
      if (groups.has(name)) groups.get(name).push(value);
      else groups.set(name, [value]);
    }
    return groups;
  }

  /** Largest first, and what is not available last. */
  const descending = (left, right) =>
    left == null || right == null ? (left == null) - (right == null) : right - left;

  // Words.

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const NOT_AVAILABLE = "not available";
  const NO_PAID_ACTIVITY = "no paid activity";
  const TOO_FEW_POSTS = "too few posts";

  function twoDecimals(value) {
    if (value === 0) return "0";
    if (Math.abs(value) < 0.005) return value > 0 ? "<0.01" : ">-0.01";
    return decimal.format(value);
  }

  const forms = {
    count: (value) => whole.format(value),
    headline: (value) => (Math.abs(value) >= 1e9 ? `${decimal.format(value / 1e9)}\u00a0bn` : whole.format(value)),
    percent: (value) => `${twoDecimals(value)}\u00a0%`,
    ratio: (value) => `${twoDecimals(value)}\u00a0×`,
    factor: (value) => twoDecimals(value),
    money: (value) => `$${Math.abs(value) >= 1000 ? whole.format(value) : twoDecimals(value)}`,
  };

  const written = (value, form) => (value == null ? NOT_AVAILABLE : forms[form](value));

  function bounds(low, high) {
    if (low == null) return NOT_AVAILABLE;
    const [least, most] = [written(low, "money"), written(high, "money")];
    return least === most ? least : `${least} to ${most}`;
  }

  const named = (name) => (name === null ? "other" : name.replaceAll("_", " "));
  const dayOf = (age) => new Date(NEWEST - age * DAY).toISOString().slice(0, 10);
  const many = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;

  /** The first few of some names, and how many more there are. */
  function listed(names, one, more) {
    const rest = names.length - NAMED;
    if (rest <= 0) return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
    return `${names.slice(0, NAMED).join(", ")} and ${many(rest, `more ${one}`, `more ${more}`)}`;
  }

  /** A campaign by its id, and by its instance where several are shown. */
  const campaignName = (campaign) =>
    String(report.campaigns[campaign][1]) +
    (picked.instance === null && report.instances.length > 1 ? ` · ${report.instances[instanceOf(campaign)]}` : "");

  // Elements.

  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const isUnpaid = (of) =>
    !of.paid_impressions && !of.paid_engagements && (of.organic_impressions ?? of.organic_engagements ?? null) !== null;

  const inWords = (words) => make("span", { class: "null" }, words);

  /** A number with its exact value beside what people read; null is said in words, and is no number. */
  function figure(value, form, words = NOT_AVAILABLE) {
    return value == null ? inWords(words) : make("data", { value: String(value) }, forms[form](value));
  }

  /** The figure of a row. */
  const figureOf = (of, name, form) => figure(of[name], form, /paid/.test(name) && isUnpaid(of) ? NO_PAID_ACTIVITY : NOT_AVAILABLE);

  function range(low, high, form) {
    if (low == null) return [figure(null)];
    if (high == null) return ["at least ", figure(low, form)];
    const [least, most] = [figure(low, form), figure(high, form)];
    if (least.textContent === most.textContent) most.className = "unseen";
    else most.prepend(" to ");
    return [least, most];
  }

  const verdictOf = (of, name) => of[`${name}_verdict`]?.replaceAll("_", " ") ?? null;

  /** The interval of a lift with its verdict, or why there is none. */
  function interval(of, name) {
    if (of[name] == null || !(`${name}_low` in of)) return [];
    const [low, high] = [of[`${name}_low`], of[`${name}_high`]];
    const words = low == null ? [TOO_FEW_POSTS] : [...range(low, high, "factor"), `, ${verdictOf(of, name)}`];
    return [make("span", { class: low == null ? "interval few" : "interval" }, ...words)];
  }

  // Tables: each column has a heading, the cell of a row, and the names and values that a download has of it.

  const cell = (...children) => make("td", { class: "number" }, ...children);

  const column = {
    name: (label, text, further = () => []) => ({
      label, names: [label], values: (of) => [text(of)],
      cell: (of) => make("th", { scope: "row" }, make("bdi", {}, text(of)), ...further(of)),
    }),
    text: (label, text, shown = (of) => [make("bdi", {}, text(of) ?? "")]) =>
      ({ label, names: [label], values: (of) => [text(of)], cell: (of) => make("td", {}, ...shown(of)) }),
    number: (label, name, form = "count") => ({
      label, isNumber: true, sort: name, names: [name], values: (of) => [of[name]], cell: (of) => cell(figureOf(of, name, form)),
    }),
    range: (label, name, form = "money") => ({
      label, isNumber: true, names: [`${name}_minimum`, `${name}_maximum`], values: (of) => [of[`${name}_minimum`], of[`${name}_maximum`]],
      cell: (of) => cell(...range(of[`${name}_minimum`], of[`${name}_maximum`], form)),
    }),
    lift: (label, name) => ({
      label, isNumber: true, sort: name, names: [name, `${name}_low`, `${name}_high`, `${name}_verdict`],
      values: (of) => [of[name], of[`${name}_low`], of[`${name}_high`], verdictOf(of, name)],
      cell: (of) => cell(figureOf(of, name, "ratio"), ...interval(of, name)),
    }),
  };
  const RESULTS = [
    column.number("Organic impressions", "organic_impressions"), column.number("Paid impressions", "paid_impressions"),
    column.number("Organic engagements", "organic_engagements"), column.number("Paid engagements", "paid_engagements"),
    column.number("Organic rate", "organic_engagement_rate", "percent"), column.number("Paid rate", "paid_engagement_rate", "percent"),
  ];
  const COMPARED = [...RESULTS, column.lift("Paid lift", "paid_lift")];

  const downloads = new Map();

  /** Fills a table. `head` makes the heading of a column, and `kind` the class of a row. */
  function fill(id, columns, rows, { none = "Nothing was reported for this choice.", head = (each) => [each.label], kind = () => "" } = {}) {
    const place = byId(`table-${id}`);
    if (!place.firstChild) {
      const { title } = place.dataset;
      const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title });
      scroll.append(make("table", {}, make("thead", {}), make("tbody", { id })));
      const button = make("button", { type: "button", class: "csv", "data-csv": id, "aria-label": `Download ${title} as CSV` }, "Download CSV");
      place.append(make("p", { class: "above" }, make("span", { class: "hint" }, "Scroll sideways to see all columns →"), button), scroll);
      const sizes = new ResizeObserver(() => place.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth + 1));
      for (const each of [scroll, scroll.firstChild]) sizes.observe(each);
    }
    const heads = columns.map((each) => make("th", { scope: "col", ...(each.isNumber ? { class: "number" } : {}), ...(each.attributes?.() ?? {}) }, ...head(each)));
    place.querySelector("thead").replaceChildren(make("tr", {}, ...heads));
    byId(id).replaceChildren(
      ...(rows.length ? [] : [make("tr", {}, make("td", { colspan: String(columns.length) }, none))]),
      ...rows.map((of) => make("tr", { class: kind(of) }, ...columns.map((each) => each.cell(of)))),
    );
    downloads.set(id, [columns.flatMap((each) => each.names), ...rows.map((of) => columns.flatMap((each) => each.values(of)))]);
  }

  /** A value of a CSV file. A text that a spreadsheet would take for a formula is marked as text. */
  function inCsv(value) {
    if (value == null || typeof value === "number") return String(value ?? "");
    return `"${value.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  }

  function download(id) {
    const text = downloads.get(id).map((values) => `${values.map(inCsv).join(",")}\r\n`).join("");
    const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
    make("a", { href: url, download: `organic-paid-${id}-${report.as_of}-${picked.period}d.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Headline.

  const HEADLINE = [
    ["Impressions", "organic_impressions", "paid_impressions", "paid_share_of_impressions", "count", "percent", "paid share"],
    ["Engagements", "organic_engagements", "paid_engagements", "paid_share_of_engagements", "count", "percent", "paid share"],
    ["Engagement rate", "organic_engagement_rate", "paid_engagement_rate", "paid_lift", "percent", "ratio", "paid lift"],
    ["Estimated value", "organic_estimated_value", null, null, "money"],
  ];
  const isComparable = () => report.days >= 2 * picked.period;

  function showHeadline() {
    const of = rowOf("headline", scope()) ?? {};
    const shown = (name, form, what) =>
      name === null ? make("td", {}) : make(
        "td", {},
        make("span", { class: "value", id: `figure-${name}` }, figureOf(of, name, form === "count" ? "headline" : form)),
        ...(what ? [make("span", { class: "what" }, what)] : []),
        make("span", { id: `interval-${name}` }, ...interval(of, name)),
        make("span", { class: "change", id: `change-${name}` }, ...change(of, name, form)),
        ...(name === "paid_lift" ? lifts(of) : []),
      );
    byId("headline").replaceChildren(
      ...HEADLINE.map(([label, organic, paid, against, form, formAgainst, what]) =>
        make(
          "tr", {}, make("th", { scope: "row" }, label), shown(organic, form), shown(paid, form),
          shown(against, formAgainst, what),
        ),
      ),
    );
    const names = HEADLINE.flatMap(([, ...names]) => names.slice(0, 3)).filter((name) => name !== null);
    downloads.set("headline", [
      ["measure", "value", "previous", "change", "low", "high", "verdict"],
      ...[...names, "same_post_lift", "paid_lift_mix_adjusted"].map((name) =>
        [name, of[name], of[`previous_${name}`], of[`${name}_change`], of[`${name}_low`], of[`${name}_high`], verdictOf(of, name)]),
    ]);
    return of;
  }

  /** What stands below the paid lift: the comparisons that a choice of what to pay for moves less. */
  function lifts(of) {
    const line = (id, words, ...further) => make("span", { class: "what", id: `figure-${id}` }, ...words, ...further);
    const adjusted = of.paid_lift_mix_adjusted;
    return [
      ...(of.same_post_lift == null ? [] : [line("same_post_lift", ["same-post lift ", figure(of.same_post_lift, "ratio"), ", "], ...interval(of, "same_post_lift"))]),
      ...(adjusted == null ? [] : [line("paid_lift_mix_adjusted", ["lift with one mix of platforms ", figure(adjusted, "ratio")])]),
    ];
  }

  function change(of, name, form) {
    const [then, by] = [of[`previous_${name}`], of[`${name}_change`]];
    if (!isComparable()) return [];
    if (by == null) return [of[name] != null && then != null && of.are_alike ? "from " : "before: ", figure(then, form)];
    const sign = by > 0 ? "+" : by < 0 ? "−" : "±";
    const size = form === "count" || form === "money" ? `${tenth.format(Math.abs(by))} %` : `${twoDecimals(Math.abs(by))}${form === "percent" ? " points" : ""}`;
    return [make("b", {}, sign + size), " from ", figure(then, form)];
  }

  // What is missing.

  const hasLanded = (table, instance, age) =>
    report.landed[table][instance].some(([from, to]) => from <= age && age <= to);

  const newestAge = (table, instance) => report.landed[table][instance][0]?.[0] ?? null;

  /** How many days of an instance have landed in the period. */
  const daysOf = (table, instance) =>
    report.landed[table][instance].reduce(
      (days, [from, to]) => days + Math.max(0, Math.min(to, report.newest[table] + picked.period - 1) - from + 1), 0);

  const lacking = (instance, age) => TABLES.filter((table) => !hasLanded(table, instance, age));

  const onlyOf = (tables) => (tables.length < TABLES.length ? ` (${tables.map((table) => report.tables[table]).join(", ")})` : "");

  const dated = (age) => make("span", { class: "date" }, dayOf(age));

  const bold = (text) => make("b", {}, make("bdi", {}, text));

  function staleLines() {
    const lines = [];
    for (const instance of instances()) {
      const newest = TABLES.map((table) => newestAge(table, instance));
      const name = bold(report.instances[instance]);
      if (newest.every((age) => age === null)) {
        lines.push(["Nothing of ", name, " has landed."]);
        continue;
      }
      for (const [age, tables] of groupedBy(TABLES, (table) => newestAge(table, instance))) {
        if (age === 0) continue;
        const told = bold(report.instances[instance]);
        if (age === null) lines.push([told, `: nothing has landed${onlyOf(tables)}.`]);
        else lines.push([told, " is stale: its newest day is ", dated(age), `, ${many(age, "day")} behind${onlyOf(tables)}.`]);
      }
    }
    return lines;
  }

  /** Days of the period before an instance's newest that are not there. */
  function gaps() {
    const oldest = Math.min(picked.period, report.days) - 1;
    const found = new Map();
    for (const instance of instances()) {
      for (let age = 0; age <= oldest; age++) {
        const tables = lacking(instance, age).filter((table) => newestAge(table, instance) !== null && newestAge(table, instance) < age);
        if (!tables.length) continue;
        const key = JSON.stringify([age, tables]);
        found.set(key, [...(found.get(key) ?? []), instance]);
      }
    }
    return [...found].map(([key, of]) => ({ age: JSON.parse(key)[0], tables: JSON.parse(key)[1], instances: of }));
  }

  function gapLines() {
    const lines = [];
    const shared = groupedBy(gaps(), (gap) => JSON.stringify([gap.tables, gap.instances]));
    for (const alike of shared.values()) {
      const { tables, instances: of } = alike[0];
      const days = alike.map((gap) => dayOf(gap.age)).sort();
      const isAll = of.length > 1 && of.length === instances().length;
      const whom = isAll ? make("b", {}, `all ${of.length} instances`) : bold(listed(of.map((index) => report.instances[index]), "instance", "instances"));
      lines.push([make("b", {}, listed(days, "day", "days")), ` ${days.length === 1 ? "is" : "are"} missing for `, whom, `${onlyOf(tables)}.`]);
    }
    return lines;
  }

  const isPicked = (instance) => instance === null || instances().some((index) => report.instances[index] === instance);

  const unreadLines = () =>
    report.unread
      .filter((part) => part.age < picked.period && isPicked(part.instance))
      .map((part) => [make("b", {}, dayOf(part.age)), " of ", part.instance === null ? "all instances" : bold(part.instance), ` cannot be read (${report.tables[part.table]}).`]);

  const setAside = () =>
    report.set_aside.filter((part) => (part.age === null || part.age < picked.period) && isPicked(part.instance));

  function setAsideLines() {
    const lines = [];
    for (const [instance, parts] of groupedBy(setAside(), (part) => part.instance)) {
      const rows = parts.reduce((sum, part) => sum + part.rows, 0);
      const reasons = [...groupedBy(parts, (part) => part.reason)]
        .map(([reason, alike]) => [alike.reduce((sum, part) => sum + part.rows, 0), reason])
        .sort((left, right) => right[0] - left[0]);
      const more = reasons.length > 1 ? `, and ${many(reasons.length - 1, "other reason")}` : "";
      lines.push([
        make("b", {}, many(rows, "row")), " of ", instance === null ? "no known instance" : bold(instance),
        ` ${rows === 1 ? "is" : "are"} quarantined and in no figure: `, make("bdi", {}, shortened(reasons[0][1])), `${more}.`,
      ]);
    }
    return lines;
  }

  const shortened = (text) => (text.length > 120 ? `${text.slice(0, 119)}…` : text);

  function showMissing(headline) {
    const kinds = [staleLines(), gapLines(), unreadLines(), setAsideLines()];
    const item = (line, kind = "") => make("li", kind ? { class: kind } : {}, ...line);
    const shown = kinds.flatMap((lines) => lines.slice(0, NAMED).map((line) => item(line)));
    const hidden = kinds.flatMap((lines) => lines.slice(NAMED));
    if (hidden.length) {
      shown.push(item([make("a", { href: "#all-missing" }, `${whole.format(hidden.length)} more of these`), ", in Coverage and freshness."]));
    }
    const isWhole = !shown.length;
    if (isWhole) {
      shown.push(item(["Nothing: all days of the period that are to be there have landed, and no row is quarantined."], "good"));
    }
    shown.push(item([`Data as of ${report.as_of}, the newest day that has landed.`], "aside"));
    const of = rowOf("coverage", scope());
    if (of) {
      shown.push(item([
        `Of ${many(of.published, "post")} published, ${whole.format(of.impressions)} report organic impressions`,
        ` and ${whole.format(of.paid_impressions)} paid ones.`,
      ], "aside"));
    }
    if (report.days < picked.period) {
      shown.push(item([`The first day that has landed is ${report.first_day}: ${report.days} of the ${picked.period} days.`], "aside"));
    }
    if (!isComparable()) {
      shown.push(item([`The ${picked.period} days before have not all landed, so there is no change to show.`], "aside"));
    } else if (headline.are_alike === false) {
      shown.push(item(["The periods differ in how many days have landed, so they stand side by side without a change."], "aside"));
    }
    byId("missing").replaceChildren(...shown);
    byId("all-missing").replaceChildren(
      ...(hidden.length ? [make("h3", {}, "More that is missing"), make("ul", { class: "all-missing" }, ...hidden.map((line) => item(line)))] : []),
    );
    return kinds.reduce((sum, lines) => sum + lines.length, 0);
  }

  function showLanded() {
    const expected = () => Math.min(picked.period, report.days);
    const days = (table) => ({
      label: `Days of ${report.tables[table] === "daily metrics" ? "metrics" : "posts"}`, isNumber: true, names: [`${table}_days`, `${table}_days_expected`],
      values: (of) => [of[table], expected()], cell: (of) => cell(figure(of[table], "count"), " of ", figure(expected(), "count")),
    });
    const newest = (of) => (of.newest === Infinity ? null : dayOf(of.newest));
    fill(
      "landed",
      [
        column.name("Instance", (of) => of.name),
        column.text("Newest day", newest, (of) => newest(of) === null ? [figure(null)] : [dated(of.newest), of.newest ? ` (${many(of.newest, "day")} behind)` : ""]),
        ...TABLES.map(days),
        column.number("Rows set aside", "rows"),
      ],
      instances().map((instance) => ({
        name: report.instances[instance],
        newest: Math.min(...TABLES.map((table) => newestAge(table, instance) ?? Infinity)),
        rows: setAside().filter((part) => part.instance === report.instances[instance]).reduce((sum, part) => sum + part.rows, 0),
        ...Object.fromEntries(TABLES.map((table) => [table, daysOf(table, instance)])),
      })),
    );
  }

  // Pictures.

  const views = new Map();

  /** Draws a picture anew: `rows` are bound to it, and `told` says in words what it shows. */
  function draw(name, rows, told) {
    const place = byId(`picture-${name}`);
    let view = views.get(name);
    if (!view) {
      // To who hears it the picture is its words: marks have none of their own.
      const marks = make("div", { "aria-hidden": "true" });
      const inside = make("div", { role: "img" }, marks);
      const nothing = make("p", { class: "nothing", hidden: "" }, "Nothing was reported for this choice.");
      place.replaceChildren(inside, nothing);
      const { View, parse, expressionInterpreter } = laterVega;
      view = new View(parse(report.pictures[name], null, { ast: true }), { container: marks, renderer: "svg", expr: expressionInterpreter });
      views.set(name, view);
      new ResizeObserver(() => fit(view, place)).observe(place);
    }
    place.firstChild.hidden = !rows.length;
    place.firstChild.setAttribute("aria-label", told);
    place.lastChild.hidden = rows.length > 0;
    view.data("rows", rows);
    fit(view, place);
  }

  function fit(view, place) {
    const width = Math.floor(place.clientWidth);
    if (width) view.width(width).runAsync();
  }

  /** Rows of a picture of bars. */
  function bars(of) {
    const isOneEach = new Set(of.map((bar) => bar.group)).size === of.length;
    return of.map((bar) => ({
      ...bar,
      lane: isOneEach ? "" : bar.channel,
      end: bar.high ?? 0,
      tooltip: `${bar.group}, ${bar.channel}: ${bar.label}`,
    }));
  }

  const LINES = [["impressions", "count"], ["engagements", "count"], ["engagement_rate", "percent"]];

  /** The days of a scope, oldest first. */
  function daysIn(of) {
    const daily = report.daily[of];
    const first = report.newest[METRICS_TABLE];
    return Array.from({ length: picked.period }, (_, index) => {
      const age = first + picked.period - 1 - index;
      const measured = Object.entries(daily ?? {}).filter(([name]) => name !== "newest");
      return { age, ...Object.fromEntries(measured.map(([name, values]) => [name, values[age - daily.newest] ?? null])) };
    });
  }

  function showTime() {
    const oldest = report.newest[METRICS_TABLE] + report.days - 1;
    const days = daysIn(scope()).map((day) => ({
      ...day,
      absent: day.age <= oldest && day.age < report.days ? instances().filter((instance) => !hasLanded(METRICS_TABLE, instance, day.age)) : [],
    }));
    for (const [measure, form] of LINES) {
      const values = (channel) => days.map((day) => day[`${channel}_${measure}`] ?? null);
      const words = (day) => CHANNELS.map((channel) => `${channel} ${written(day[`${channel}_${measure}`], form)}`).join(", ");
      const rows = CHANNELS.flatMap((channel) => values(channel).map((value, place, all) => ({
        day: NEWEST - days[place].age * DAY, channel, value,
        alone: value !== null && all.slice(Math.max(place - 1, 0), place + 2).filter((near) => near !== null).length === 1,
        incomplete: days[place].absent.length > 0,
        tooltip: `${dayOf(days[place].age)}: ${words(days[place])}${days[place].absent.length ? `, ${many(days[place].absent.length, "instance")} missing` : ""}`,
      })));
      draw(measure, rows.every((each) => each.value === null) ? [] : rows, `Lines of organic and paid ${named(measure)} on each of ${picked.period} days. The table of days has the numbers.`);
    }
    byId("incomplete-key").hidden = !days.some((day) => day.absent.length);
    const absent = (day) =>
      day.age >= report.days ? "before the first day" : day.absent.length === report.instances.length ? "all instances" : listed(day.absent.map((instance) => report.instances[instance]), "instance", "instances");
    fill("days", [column.name("Day (UTC)", (day) => dayOf(day.age)), ...RESULTS, column.text("Not landed", absent)], [...days].reverse());
  }

  function showRates() {
    const rows = rowsOf("content", scope()).map((of) => ({ ...of, names: report.contents[of.content] }))
      .sort((left, right) => (left.names.at(-1) === null) - (right.names.at(-1) === null) || descending(left.impressions, right.impressions) || left.content - right.content);
    const [platforms, types] = [1, 2].map((length) => rows.filter((of) => of.names.length === length));
    const drawn = (groups) =>
      bars(groups.flatMap((of) => CHANNELS.map((channel) => {
        const rate = of[`${channel}_engagement_rate`];
        return { group: named(of.names.at(-1)), channel, low: rate, high: rate, label: rate === null && channel === "paid" && isUnpaid(of) ? NO_PAID_ACTIVITY : written(rate, "percent") };
      })));
    draw("platform_rates", drawn(platforms), "Bars of the organic and the paid engagement rate by platform. The table below has the numbers.");
    draw("content_rates", drawn(types), "Bars of the organic and the paid engagement rate by content type. The table below has the numbers.");
    fill(
      "rates",
      [column.name("Platform, content type", (of) => named(of.names.at(-1))), ...COMPARED],
      platforms.flatMap((of) => [of, ...types.filter((type) => type.names[0] === of.names[0])]),
      { kind: (of) => (of.names.length === 1 ? "of-platform" : "of-type") },
    );
  }

  /** A small picture of a campaign's impressions by day: a line a channel, broken where nothing is available. */
  function sparkline(campaign) {
    const [width, height] = [120, 28];
    const days = daysIn(scopeOfCampaign(campaign));
    const most = Math.max(1, ...days.flatMap((day) => CHANNELS.map((channel) => day[`${channel}_impressions`] ?? 0)));
    const svg = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    const picture = svg("svg", { class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Impressions by day. Pick the campaign to see the numbers." });
    for (const channel of CHANNELS) {
      let pen = "M";
      const path = days.map((day, place) => {
        const value = day[`${channel}_impressions`] ?? null;
        const step = value === null ? "" : `${pen}${((place + 0.5) / days.length * width).toFixed(1)} ${(height - 2 - value / most * (height - 4)).toFixed(1)}h.1`;
        pen = value === null ? "M" : "L";
        return step;
      });
      picture.append(svg("path", { class: channel, d: path.join("") }));
    }
    return picture;
  }

  function showCampaigns() {
    const rows = campaigns().flatMap((campaign) => rowsOf("headline", scopeOfCampaign(campaign)).map((of) => ({ ...of, campaign })))
      .filter((of) => of.posts)
      .sort((left, right) => descending(left.impressions, right.impressions) || left.campaign - right.campaign);
    const trend = { label: "Impressions by day", names: [], values: () => [], cell: (of) => make("td", {}, sparkline(of.campaign)) };
    fill("campaigns", [column.name("Campaign", (of) => campaignName(of.campaign)), ...COMPARED, column.lift("Same-post lift", "same_post_lift"), trend], rows);
  }

  function showSpend() {
    const byCampaign = campaigns().flatMap((campaign) => rowsOf("spend", scopeOfCampaign(campaign)).map((of) => ({ ...of, name: campaignName(campaign) })))
      .sort((left, right) => descending(left.known_spend_maximum, right.known_spend_maximum) || left.scope - right.scope);
    const all = picked.campaign === null ? rowsOf("spend", scope()).map((of) => ({ ...of, name: "All campaigns" })) : [];
    const drawn = (measure) =>
      bars(byCampaign.slice(0, DRAWN_CAMPAIGNS).flatMap((of) => CHANNELS.map((channel) => {
        const [low, high] = [of[`${channel}_${measure}_minimum`], of[`${channel}_${measure}_maximum`]];
        return { group: of.name, channel, low, high, label: low === null && channel === "paid" && isUnpaid(of) ? NO_PAID_ACTIVITY : bounds(low, high) };
      })));
    draw("spend", drawn("spend"), "Bars of the bounds of organic and paid spend by campaign. The table below has the numbers.");
    draw("cost", drawn("cpe"), "Bars of the bounds of the cost per organic and per paid engagement by campaign. The table below has the numbers.");
    byId("spend-note").textContent =
      byCampaign.length > DRAWN_CAMPAIGNS ? `Drawn are the ${DRAWN_CAMPAIGNS} of ${byCampaign.length} campaigns that spent most.` : "";
    const lines = [...all, ...byCampaign].flatMap((of) => [...CHANNELS, "both"].map((channel) => {
      const line = { name: of.name, channel, posts: of.posts, isUnpaid: channel === "paid" && isUnpaid(of) };
      for (const [name, value] of Object.entries(of)) if (name.startsWith(`${channel}_`)) line[name.slice(channel.length + 1)] = value;
      return line;
    }));
    const orUnpaid = (each) => ({ ...each, cell: (of) => (of.isUnpaid && of[each.names[0]] == null ? cell(inWords(NO_PAID_ACTIVITY)) : each.cell(of)) });
    const known = {
      label: "Posts with known spend", isNumber: true, names: ["spend_posts", "posts", "contradictory_posts"],
      values: (of) => [of.spend_posts, of.posts, of.spend_contradictory_posts],
      cell: (of) => of.channel === "both" ? cell() : cell(figure(of.spend_posts, "count"), " of ", figure(of.posts, "count"),
        ...(of.spend_contradictory_posts ? [` (${many(of.spend_contradictory_posts, "contradiction")})`] : [])),
    };
    fill("spend", [
      column.name("Campaign", (of) => of.name),
      column.text("Channel", (of) => of.channel, (of) => of.channel === "both" ? ["both"] : [make("span", { class: `key ${of.channel}` }), of.channel]),
      known,
      ...[column.range("Spend", "spend"), column.number("Engagements", "cpe_units"), column.range("Cost per engagement", "cpe"),
        column.number("Impressions", "cpm_units"), column.range("Cost per 1000 impressions", "cpm")].map(orUnpaid),
    ], lines, { none: "No post was published for this choice.", kind: (of) => (of.channel === "organic" ? "first-line" : "again") });
    fill("value", [
      column.name("Campaign", (of) => of.name), column.number("Estimated value", "organic_estimated_value", "money"),
      column.number("Value of posts with known spend", "value_of_spend", "money"), column.range("Spend on these", "valued_spend"),
      column.range("Value per USD", "organic_value_per_spend", "ratio"),
    ], [...all, ...byCampaign], { none: "No post was published for this choice." });
  }

  /** A creator's profiles: a link where it leads to the web, else just its words. A handle that all share is said once. */
  function links(profiles) {
    const handles = new Set(profiles.map((profile) => profile.handle));
    const isShared = handles.size === 1 && profiles.length > 1 && profiles.every((profile) => profile.handle && profile.network);
    const told = profiles.map((profile) => {
      const words = `${profile.handle ?? "profile"}${profile.network ? ` on ${profile.network}` : ""}`;
      const shown = make("bdi", {}, isShared ? profile.network : words);
      if (!/^https?:\/\//i.test(profile.link ?? "")) return shown;
      return make("a", { href: profile.link, rel: "noopener noreferrer", target: "_blank", "aria-label": words }, shown);
    });
    return isShared ? [make("bdi", {}, profiles[0].handle), ...told] : told;
  }

  /** By a lift those are ranked that have an interval. */
  const sortedBy = (of) => (picked.sort === "paid_lift" && of.paid_lift_low === null ? null : of[picked.sort]);

  function showCreators() {
    const scopes = picked.instance === null && picked.campaign === null ? report.instances.map((_, index) => scopeOfInstance(index)) : [scope()];
    const ranked = scopes.flatMap((of) => rowsOf("creators_of", of))
      .sort((left, right) => descending(left.impressions, right.impressions) || left.creator - right.creator).slice(0, CREATORS)
      .map((of) => ({ ...of, ...report.creators[of.creator] }))
      .sort((left, right) => {
        const [one, other] = [sortedBy(left), sortedBy(right)];
        return (picked.up && one !== null && other !== null ? one - other : descending(one, other)) || left.creator - right.creator;
      })
      .map((of, place) => ({ ...of, rank: place + 1 }));
    const shown = picked.all ? ranked : ranked.slice(0, CREATORS_AT_FIRST);
    const name = (of) => of.name ?? (of.id === null ? "Unknown creator" : `Creator ${of.id}`);
    const below = (of) => {
      const instance = scopes.length > 1 ? [make("bdi", {}, report.instances[of.instance])] : [];
      const further = [...links(of.profiles), ...instance];
      return further.length ? [make("span", { class: "links" }, ...further)] : [];
    };
    const columns = [
      { ...column.text("Rank", (of) => String(of.rank)), cell: (of) => make("td", { class: "rank" }, String(of.rank)) },
      column.name("Creator", name, below),
      column.number("All impressions", "impressions"),
      ...COMPARED,
    ].map((each) => ({ ...each, attributes: () => (each.sort && each.sort === picked.sort ? { "aria-sort": picked.up ? "ascending" : "descending" } : {}) }));
    const head = (each) =>
      each.sort ? [make("button", { type: "button", "data-sort": each.sort }, each.sort === picked.sort ? `${each.label} ${picked.up ? "↑" : "↓"}` : each.label)] : [each.label];
    fill("creators", columns, shown, { head, none: "No creator's posts earned anything for this choice." });
    byId("creators-note").textContent = ranked.length < CREATORS ? `${whole.format(shown.length)} of ${many(ranked.length, "creator")}.` : `${whole.format(shown.length)} of the ${CREATORS} creators with most impressions.`;
    byId("all-creators").hidden = ranked.length <= CREATORS_AT_FIRST;
    byId("all-creators").textContent = picked.all ? `Show the first ${CREATORS_AT_FIRST}` : "Show all";
  }

  function showCoverage() {
    const of = rowOf("coverage", scope());
    const published = of?.published ?? 0;
    const rows = report.metrics
      .map((metric) => ({ ...metric, reporting: of?.[metric.column] ?? 0, published }))
      .filter((metric) => metric.is_always_told || metric.reporting);
    draw(
      "coverage",
      published ? bars(rows.map(({ label, channel, reporting }) => {
        const share = (100 * reporting) / published;  // the length of a bar, which is written as the two counts
        return { group: label, channel, low: share, high: share, label: `${written(reporting, "count")} of ${written(published, "count")}` };
      })) : [],
      "Bars of how many of the posts published report each metric. The table below has the numbers.",
    );
    fill("coverage", [column.name("Metric", (each) => each.label), column.number("Posts that report it", "reporting"), column.number("Posts published", "published")], rows);
  }

  const choice = () =>
    picked.campaign !== null ? `campaign ${campaignName(picked.campaign)}`
      : `${picked.instance === null ? "all instances" : report.instances[picked.instance]}, all campaigns`;

  function show() {
    const [newest, ofPosts] = TABLES.map((table) => report.newest[table]);
    const days = (first) => [dated(first + picked.period - 1), " to ", dated(first)];
    const against = isComparable() ? [", against ", ...days(newest + picked.period)] : [];
    const published = ofPosts === newest ? [] : ["; posts published ", ...days(ofPosts)];
    byId("span").replaceChildren(...days(newest), ...against, ...published);
    const now = showHeadline();
    const missing = showMissing(now);
    showTime();
    showRates();
    showCampaigns();
    showSpend();
    showCreators();
    showCoverage();
    showLanded();
    return `The last ${picked.period} days, ${choice()}: organic impressions ${written(now.organic_impressions, "count")},` +
      ` paid impressions ${written(now.paid_impressions, "count")}. ${missing ? many(missing, "gap") : "Nothing"} to know of in What is missing.`;
  }

  function offer(id, choices, chosen) {
    byId(id).replaceChildren(
      ...choices.map(([value, words]) => {
        const option = make("option", { value: String(value) }, words);
        option.selected = value === chosen;
        return option;
      }),
    );
  }

  const numberOrNull = (text) => (text === "" ? null : Number(text));

  /** Campaigns of the instance that is picked, or of all. */
  function offerCampaigns() {
    const offered = report.campaigns.map((_, index) => index).filter((index) => [null, instanceOf(index)].includes(picked.instance));
    if (!offered.includes(picked.campaign)) picked.campaign = null;
    offer("campaign", [["", "All"], ...offered.map((index) => [index, campaignName(index)])], picked.campaign ?? "");
  }

  offer("period", report.periods.map((days) => [days, `Last ${days} days`]), picked.period);
  offer("instance", [["", "All"], ...report.instances.map((name, index) => [index, name])], "");
  offerCampaigns();
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("change", () => {
    picked.period = Number(byId("period").value);
    picked.instance = numberOrNull(byId("instance").value);
    picked.campaign = numberOrNull(byId("campaign").value);
    offerCampaigns();
    byId("told").textContent = show();
  });
  document.addEventListener("click", (event) => {
    const { csv, sort } = event.target.closest("button")?.dataset ?? {};
    if (csv) download(csv);
    if (!sort) return;
    picked.up = picked.sort === sort && !picked.up;
    picked.sort = sort;
    showCreators();
    document.querySelector(`[data-sort="${sort}"]`).focus();
  });
  byId("all-creators").addEventListener("click", () => {
    picked.all = !picked.all;
    showCreators();
  });
  show();
})();

"use strict";
// Narrows the report's sums to a period, an instance and a campaign, and shows what they come to.
// What comes from the data reaches the page as text only: there is no innerHTML here.
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const CHANNELS = ["organic", "paid"];
  const TABLES = Object.keys(report.tables);
  const [METRICS_TABLE] = TABLES;
  const DAY = 86400000;
  const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
  const DRAWN_CAMPAIGNS = 12;
  const RANKED_CREATORS = 20;
  const NAMED = 3;
  const picked = { period: report.period, instance: null, campaign: null, sort: "engagements", up: false, all: false };

  // Sums: what is not available adds nothing, and a sum of nothing available is null.

  const plus = (sum, value) => (value === null ? sum : sum === null ? value : sum + value);

  const quotient = (dividend, divisor, times = 1) =>
    dividend === null || divisor === null || divisor <= 0 ? null : (dividend * times) / divisor;

  const current = () => report.span_ends.map((end) => end <= picked.period);
  const before = () => report.span_ends.map((end) => end > picked.period && end <= 2 * picked.period);

  /** Sums of a table by `key`, of the rows of what is picked that `wanted` has. */
  function sums(table, wanted, key) {
    const groups = new Map();
    const names = Object.keys(table.sums);
    for (let row = 0; row < table.rows; row++) {
      if (picked.instance !== null && table.keys.instance[row] !== picked.instance) continue;
      if (picked.campaign !== null && table.keys.campaign[row] !== picked.campaign) continue;
      if (!wanted(row)) continue;
      const name = key(row);
      let group = groups.get(name);
      if (!group) groups.set(name, (group = Object.fromEntries(names.map((name) => [name, null]))));
      for (const name of names) group[name] = plus(group[name], table.sums[name][row]);
    }
    return groups;
  }

  function sumsIn(table, spans, key) {
    return sums(table, (row) => spans[table.keys.span[row]], key);
  }

  function total(table, spans) {
    const nothing = Object.fromEntries(Object.keys(table.sums).map((name) => [name, null]));
    return sumsIn(table, spans, () => "").get("") ?? nothing;
  }

  /** The sums of both channels, with the rates, shares and lift that the rollups make of them. */
  function compared(of) {
    const figures = {};
    for (const channel of CHANNELS) {
      figures[`${channel}_impressions`] = of[`${channel}_impressions`];
      figures[`${channel}_engagements`] = of[`${channel}_engagements`];
      figures[`${channel}_engagement_rate`] =
        quotient(of[`${channel}_rate_engagements`], of[`${channel}_rate_impressions`], 100);
    }
    for (const measure of ["impressions", "engagements"]) {
      const [organic, paid] = CHANNELS.map((channel) => of[`${channel}_${measure}`]);
      figures[`paid_share_of_${measure}`] =
        quotient(paid, organic === null || paid === null ? null : organic + paid, 100);
    }
    figures.paid_lift = quotient(figures.paid_engagement_rate, figures.organic_engagement_rate);
    figures.engagements = plus(figures.organic_engagements, figures.paid_engagements);
    figures.impressions = plus(figures.organic_impressions, figures.paid_impressions);
    return figures;
  }

  // Words.

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const decimal = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const tenth = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const NOT_AVAILABLE = "not available";

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
    money: (value) => (Math.abs(value) >= 1000 ? whole.format(value) : twoDecimals(value)),
  };

  const written = (value, form) => (value === null ? NOT_AVAILABLE : forms[form](value));

  function bounds(low, high) {
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

  // The page.

  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** A number with its exact value beside what people read; null is said in words, and is no number. */
  function figure(value, form) {
    if (value === null) return make("span", { class: "null" }, NOT_AVAILABLE);
    return make("data", { value: String(value) }, forms[form](value));
  }

  function range(low, high) {
    if (low === null || high === null) return [figure(null)];
    const [least, most] = [figure(low, "money"), figure(high, "money")];
    if (least.textContent === most.textContent) most.className = "unseen";
    else most.prepend(" to ");
    return [least, most];
  }

  const cell = (...children) => make("td", { class: "number" }, ...children);
  const rowHead = (...children) => make("th", { scope: "row" }, ...children);
  const row = (...cells) => make("tr", {}, ...cells);

  const isComparable = () => report.days >= 2 * picked.period;

  /** Whether as many days have landed of each instance in both periods: else what changed is how many. */
  const isLikeForLike = () =>
    instances().every((instance) => daysOf(METRICS_TABLE, instance, 0) === daysOf(METRICS_TABLE, instance, picked.period));

  function showHeadline() {
    const now = compared(total(report.by_content, current()));
    const then = compared(total(report.by_content, before()));
    const rows = [
      ["Impressions", ["organic_impressions", "count"], ["paid_impressions", "count"], ["paid_share_of_impressions", "percent", "paid share"]],
      ["Engagements", ["organic_engagements", "count"], ["paid_engagements", "count"], ["paid_share_of_engagements", "percent", "paid share"]],
      ["Engagement rate", ["organic_engagement_rate", "percent"], ["paid_engagement_rate", "percent"], ["paid_lift", "ratio", "paid lift"]],
    ];
    byId("headline").replaceChildren(
      ...rows.map(([label, ...cells]) =>
        row(
          rowHead(label),
          ...cells.map(([name, form, what]) =>
            make(
              "td",
              {},
              make("span", { class: "value", id: `figure-${name}` }, figure(now[name], form === "count" ? "headline" : form)),
              ...(what ? [make("span", { class: "what" }, what)] : []),
              make("span", { class: "change", id: `change-${name}` }, ...change(now[name], then[name], form)),
            ),
          ),
        ),
      ),
    );
    return now;
  }

  function change(now, then, form) {
    if (!isComparable()) return [];
    if (now === null || then === null || !isLikeForLike()) return ["before: ", figure(then, form)];
    const difference = now - then;
    const sign = difference > 0 ? "+" : difference < 0 ? "−" : "±";
    let by;
    if (form === "count") {
      if (then <= 0) return ["from ", figure(then, form)];
      by = `${sign}${tenth.format((Math.abs(difference) / then) * 100)} %`;
    } else {
      by = `${sign}${twoDecimals(Math.abs(difference))}${form === "percent" ? " points" : ""}`;
    }
    return [make("b", {}, by), " from ", figure(then, form)];
  }

  // What is missing.

  const instances = () => report.instances.map((_, index) => index).filter((index) => picked.instance === null || index === picked.instance);

  const hasLanded = (table, instance, age) =>
    report.landed[table][instance].some(([from, to]) => from <= age && age <= to);

  const newestAge = (table, instance) => report.landed[table][instance][0]?.[0] ?? null;

  /** How many days of an instance have landed in the period whose newest day has age `newest`. */
  const daysOf = (table, instance, newest) =>
    report.landed[table][instance].reduce(
      (days, [from, to]) => days + Math.max(0, Math.min(to, newest + picked.period - 1) - Math.max(from, newest) + 1), 0);

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

  function groupedBy(values, key) {
    const groups = new Map();
    for (const value of values) groups.set(key(value), [...(groups.get(key(value)) ?? []), value]);
    return groups;
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

  const isPicked = (instance) => instance === null || picked.instance === null || report.instances[picked.instance] === instance;

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

  function showMissing() {
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
    const of = total(report.published, current());
    if (of.published) {
      shown.push(item([
        `Of ${many(of.published, "post")} published, ${whole.format(of.reports_impressions)} report organic impressions`,
        ` and ${whole.format(of.reports_paid_impressions)} paid ones.`,
      ], "aside"));
    }
    if (report.days < picked.period) {
      shown.push(item([`The first day that has landed is ${report.first_day}: ${report.days} of the ${picked.period} days.`], "aside"));
    }
    if (!isComparable()) {
      shown.push(item([`The ${picked.period} days before have not all landed, so there is no change to show.`], "aside"));
    } else if (!isLikeForLike()) {
      shown.push(item(["The periods differ in how many days have landed, so they stand side by side without a change."], "aside"));
    }
    byId("missing").replaceChildren(...shown);
    byId("all-missing").replaceChildren(
      ...(hidden.length ? [make("h3", {}, "More that is missing"), make("ul", { class: "all-missing" }, ...hidden.map((line) => item(line)))] : []),
    );
    byId("landed").replaceChildren(
      ...instances().map((instance) => {
        const newest = Math.min(...TABLES.map((table) => newestAge(table, instance) ?? Infinity));
        const rows = setAside().filter((part) => part.instance === report.instances[instance]).reduce((sum, part) => sum + part.rows, 0);
        return row(
          rowHead(make("bdi", {}, report.instances[instance])),
          make("td", {}, ...(newest === Infinity ? [figure(null)] : [dated(newest), newest ? ` (${many(newest, "day")} behind)` : ""])),
          ...TABLES.map((table) => cell(figure(daysOf(table, instance, 0), "count"), " of ", figure(Math.min(picked.period, report.days), "count"))),
          cell(figure(rows, "count")),
        );
      }),
    );
    return kinds.reduce((sum, lines) => sum + lines.length, 0);
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

  function showTime() {
    const oldest = picked.period - 1;
    const byAge = sums(report.daily, (row) => report.daily.keys.age[row] <= oldest, (row) => report.daily.keys.age[row]);
    const ages = Array.from({ length: picked.period }, (_, index) => oldest - index);
    const none = { organic_impressions: null, paid_impressions: null };
    const days = ages.map((age) => {
      const absent = age < report.days ? instances().filter((instance) => !hasLanded(METRICS_TABLE, instance, age)) : [];
      return { age, absent, ...(byAge.get(age) ?? none) };
    });
    const rows = CHANNELS.flatMap((channel) =>
      days.map((day, place) => {
        const value = day[`${channel}_impressions`];
        const near = days.slice(Math.max(place - 1, 0), place + 2).filter((other) => other[`${channel}_impressions`] !== null);
        const told = CHANNELS.map((each) => `${each} ${written(day[`${each}_impressions`], "count")}`).join(", ");
        return {
          day: NEWEST - day.age * DAY,
          channel,
          value,
          alone: value !== null && near.length === 1,
          incomplete: day.absent.length > 0,
          tooltip: `${dayOf(day.age)}: ${told}${day.absent.length ? `, ${many(day.absent.length, "instance")} missing` : ""}`,
        };
      }),
    );
    const isEmpty = rows.every((each) => each.value === null);
    draw("impressions", isEmpty ? [] : rows, `Lines of organic and paid impressions on each of ${picked.period} days. The table below has the numbers.`);
    byId("incomplete-key").hidden = !days.some((day) => day.absent.length);
    byId("days").replaceChildren(
      ...[...days].reverse().map((day) =>
        row(
          rowHead(dayOf(day.age)),
          cell(figure(day.organic_impressions, "count")),
          cell(figure(day.paid_impressions, "count")),
          make("td", {}, day.age >= report.days ? "before the first day" : day.absent.length === report.instances.length ? "all instances" : listed(day.absent.map((instance) => report.instances[instance]), "instance", "instances")),
        ),
      ),
    );
  }

  /** Groups by most impressions; what has no name comes last. */
  function ordered(groups) {
    const seen = (of) => (of.organic_impressions ?? 0) + (of.paid_impressions ?? 0);
    return [...groups].sort(([left, of], [right, other]) => (left === null) - (right === null) || seen(other) - seen(of) || (left < right ? -1 : 1));
  }

  function showRates() {
    const content = (row) => report.contents[report.by_content.keys.content[row]];
    const platforms = ordered(sumsIn(report.by_content, current(), (row) => content(row)[0]));
    const types = ordered(sumsIn(report.by_content, current(), (row) => content(row)[1]));
    const ofPlatform = new Map(report.contents.map(([platform, type]) => [type, platform]));
    const drawn = (groups) =>
      bars(groups.flatMap(([name, of]) => CHANNELS.map((channel) => {
        const rate = compared(of)[`${channel}_engagement_rate`];
        return { group: named(name), channel, low: rate, high: rate, label: written(rate, "percent") };
      })));
    draw("platform_rates", drawn(platforms), "Bars of the organic and the paid engagement rate by platform. The table below has the numbers.");
    draw("content_rates", drawn(types), "Bars of the organic and the paid engagement rate by content type. The table below has the numbers.");
    const line = (kind) => ([name, of]) => {
      const figures = compared(of);
      const tr = row(
        rowHead(named(name)),
        cell(figure(figures.organic_impressions, "count")), cell(figure(figures.organic_engagement_rate, "percent")),
        cell(figure(figures.paid_impressions, "count")), cell(figure(figures.paid_engagement_rate, "percent")),
        cell(figure(figures.paid_lift, "ratio")),
      );
      tr.className = kind;
      return tr;
    };
    byId("rates").replaceChildren(
      ...platforms.flatMap(([platform, of]) => [
        line("of-platform")([platform, of]),
        ...types.filter(([type]) => ofPlatform.get(type) === platform).map(line("of-type")),
      ]),
    );
  }

  function showCampaigns() {
    const spent = (of) => CHANNELS.reduce((sum, channel) => sum + (of[`${channel}_spend_maximum`] ?? 0), 0);
    const campaigns = [...sumsIn(report.published, current(), (row) => report.published.keys.campaign[row])]
      .sort(([left, of], [right, other]) => spent(other) - spent(of) || left - right);
    const unit = (of, channel, cost, times) =>
      ["minimum", "maximum"].map((side) => quotient(of[`${channel}_${cost}_spend_${side}`], of[`${channel}_${cost}_units`], times));
    const drawn = (boundsOf) =>
      bars(campaigns.slice(0, DRAWN_CAMPAIGNS).flatMap(([campaign, of]) => CHANNELS.map((channel) => {
        const [low, high] = boundsOf(of, channel);
        return { group: String(report.campaigns[campaign]), channel, low, high, label: bounds(low, high) };
      })));
    const spend = (of, channel) => [of[`${channel}_spend_minimum`], of[`${channel}_spend_maximum`]];
    draw("spend", drawn(spend), "Bars of the bounds of organic and paid spend by campaign. The table below has the numbers.");
    draw("cost", drawn((of, channel) => unit(of, channel, "cpe", 1)), "Bars of the bounds of the cost per organic and per paid engagement by campaign. The table below has the numbers.");
    byId("campaigns-note").textContent =
      campaigns.length > DRAWN_CAMPAIGNS ? `Drawn are the ${DRAWN_CAMPAIGNS} of ${campaigns.length} campaigns that spent most.` : "";
    byId("campaigns").replaceChildren(
      ...(campaigns.length ? [] : [row(make("td", { colspan: "8" }, "No post was published for this choice."))]),
      ...campaigns.flatMap(([campaign, of]) => CHANNELS.map((channel, index) =>
        row(
          ...(index ? [] : [make("th", { scope: "rowgroup", rowspan: "2" }, String(report.campaigns[campaign]))]),
          make("td", { class: "channel" }, make("span", { class: `key ${channel}` }), channel),
          cell(...range(...spend(of, channel))),
          cell(figure(of[`${channel}_impressions`], "count")),
          cell(figure(of[`${channel}_engagements`], "count")),
          cell(...range(...unit(of, channel, "cpe", 1))),
          cell(...range(...unit(of, channel, "cpm", 1000))),
          cell(figure(of[`${channel}_spend_posts`] ?? 0, "count"), " of ", figure(of.published ?? 0, "count"),
            ...(of[`${channel}_contradictory`] ? [` (${many(of[`${channel}_contradictory`], "contradiction")})`] : [])),
        ),
      )),
    );
  }

  const CREATOR_COLUMNS = [
    ["engagements", "All engagements", "count"],
    ["organic_engagements", "Organic engagements", "count"],
    ["paid_engagements", "Paid engagements", "count"],
    ["organic_impressions", "Organic impressions", "count"],
    ["paid_impressions", "Paid impressions", "count"],
    ["organic_engagement_rate", "Organic rate", "percent"],
    ["paid_engagement_rate", "Paid rate", "percent"],
    ["paid_lift", "Paid lift", "ratio"],
  ];

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

  function showCreators() {
    byId("creator-heads").replaceChildren(
      make("th", { scope: "col", class: "rank" }, "Rank"),
      make("th", { scope: "col" }, "Creator"),
      ...CREATOR_COLUMNS.map(([name, label]) => {
        const isSorted = picked.sort === name;
        const button = make("button", { type: "button", "data-sort": name }, isSorted ? `${label} ${picked.up ? "↑" : "↓"}` : label);
        return make("th", { scope: "col", class: "number", ...(isSorted ? { "aria-sort": picked.up ? "ascending" : "descending" } : {}) }, button);
      }),
    );
    const ranked = [...sumsIn(report.by_creator, current(), (row) => report.by_creator.keys.creator[row])]
      .map(([creator, of]) => ({ creator: creator === null ? null : report.creators[creator], place: creator ?? Infinity, ...compared(of) }))
      .sort((left, right) => {
        const [one, other] = [left[picked.sort], right[picked.sort]];
        if (one === null || other === null) return (one === null) - (other === null) || left.place - right.place;
        return (picked.up ? one - other : other - one) || left.place - right.place;
      });
    const shown = picked.all ? ranked : ranked.slice(0, RANKED_CREATORS);
    byId("creators").replaceChildren(
      ...(ranked.length ? [] : [row(make("td", { colspan: String(CREATOR_COLUMNS.length + 2) }, "No creator's posts earned anything for this choice."))]),
      ...shown.map((each, index) => {
        const { creator } = each;
        const name = creator === null ? "Unknown creator" : creator.name ?? `Creator ${creator.id}`;
        const profiles = creator === null ? [] : links(creator.profiles);
        return row(
          make("td", { class: "rank" }, String(index + 1)),
          rowHead(make("bdi", {}, name), ...(profiles.length ? [make("span", { class: "links" }, ...profiles)] : [])),
          ...CREATOR_COLUMNS.map(([column, , form]) => cell(figure(each[column], form))),
        );
      }),
    );
    byId("creators-note").textContent = `${whole.format(shown.length)} of ${many(ranked.length, "creator")}.`;
    byId("all-creators").hidden = ranked.length <= RANKED_CREATORS;
    byId("all-creators").textContent = picked.all ? `Show the first ${RANKED_CREATORS}` : "Show all";
  }

  function showCoverage() {
    const of = total(report.published, current());
    const published = of.published ?? 0;
    const rows = report.metrics
      .map((metric) => ({ ...metric, reporting: of[`reports_${metric.column}`] ?? 0 }))
      .filter((metric) => metric.is_always_told || metric.reporting);
    draw(
      "coverage",
      published ? bars(rows.map(({ label, channel, reporting }) => {
        const share = quotient(reporting, published, 100);
        return { group: label, channel, low: share, high: share, label: `${written(reporting, "count")} of ${written(published, "count")}` };
      })) : [],
      "Bars of how many of the posts published report each metric. The table below has the numbers.",
    );
    byId("coverage").replaceChildren(
      ...rows.map(({ label, reporting }) => row(rowHead(label), cell(figure(reporting, "count")), cell(figure(published, "count")))),
    );
  }

  const choice = () =>
    [picked.instance === null ? "all instances" : report.instances[picked.instance],
      picked.campaign === null ? "all campaigns" : `campaign ${report.campaigns[picked.campaign]}`].join(", ");

  function show() {
    const against = isComparable() ? [", against ", dated(2 * picked.period - 1), " to ", dated(picked.period)] : [];
    byId("span").replaceChildren(dated(picked.period - 1), " to ", dated(0), ...against);
    const now = showHeadline();
    const missing = showMissing();
    showTime();
    showRates();
    showCampaigns();
    showCreators();
    showCoverage();
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

  offer("period", report.periods.map((days) => [days, `Last ${days} days`]), picked.period);
  offer("instance", [["", "All"], ...report.instances.map((name, index) => [index, name])], "");
  offer("campaign", [["", "All"], ...report.campaigns.map((id, index) => [index, String(id)])], "");
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("change", () => {
    picked.period = Number(byId("period").value);
    picked.instance = numberOrNull(byId("instance").value);
    picked.campaign = numberOrNull(byId("campaign").value);
    byId("told").textContent = show();
  });
  byId("creator-heads").addEventListener("click", (event) => {
    const name = event.target.closest("[data-sort]")?.dataset.sort;
    if (!name) return;
    picked.up = picked.sort === name && !picked.up;
    picked.sort = name;
    showCreators();
    byId("creator-heads").querySelector(`[data-sort="${name}"]`).focus();
  });
  byId("all-creators").addEventListener("click", () => {
    picked.all = !picked.all;
    showCreators();
  });
  show();
})();

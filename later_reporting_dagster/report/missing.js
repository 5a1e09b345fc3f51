"use strict";
// What is missing in the chosen period.

const SHOWN_LINES = 6;
const SILENT_DAYS = "7d";  // the window in which a network that used to report impressions should report some
const UNLIKELY = 0.001;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Returns the missing days of the period: ranges of ages, with the tables and the instances that lack them. */
function gaps() {
  const missing = report.missing
    .filter(({ instance }) => instance === null || isChosen(instance))
    .map((file) => ({ ...file, ranges: inPeriod(file.ages) }))
    .filter(({ ranges }) => ranges.length);
  const byInstance = groupedBy(missing, ({ instance, ranges }) => JSON.stringify([instance, ranges]));
  const ofInstances = [...byInstance.values()].map((files) =>
    ({ ...files[0], tables: files.map(({ table }) => table) }));
  const alike = groupedBy(ofInstances, ({ ranges, tables }) => JSON.stringify([ranges, tables]));
  return [...alike.values()].map((found) => ({ ...found[0], instances: found.map(({ instance }) => instance) }));
}

function gapLine({ ranges, tables: names, instances: affected }) {
  const days = ranges.map(([to, from]) => daysOf(to, from)).reverse();
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
    (age === null || isInPeriod(age)) && (instance === null || names.has(instance)));
}

function quarantineLines() {
  return [...groupedBy(quarantined(), ({ instance }) => instance)].map(([instance, members]) => {
    const rows = sum(members.map((part) => part.rows));
    const reasons = [...new Set(members.map(({ reason }) => reason))];
    const others = reasons.length > 1 ? `, and ${withUnit(reasons.length - 1, "other reason")}` : "";
    return [
      make("b", {}, withUnit(rows, "row")), " of ", instance === null ? "an unknown instance" : bold(instance),
      ` ${rows === 1 ? "is" : "are"} invalid and not counted: `, make("bdi", {}, shortened(reasons[0])), `${others}.`,
    ];
  });
}

/** Returns the networks of which no post reports impressions in the period, or none any more. */
function networkLines() {
  const networks = (window) => partsOf(window, null).filter((row) => row.kind === "platform");
  const recent = new Map(networks(SILENT_DAYS).map((row) => [row.platform, row]));
  return networks(filters.window).flatMap((row) => {
    const network = bold(readable(row.platform));
    const number = (of) => withUnit(of.posts, "post");
    if (!row.organic_impressions_posts) {
      return [["No post of ", network, ` reports impressions (${number(row)}), so it has no rate.`]];
    }
    const last = recent.get(row.platform);
    if (period().last || !last || last.organic_impressions_posts) return [];
    const chance = (1 - row.organic_impressions_posts / row.posts) ** last.posts;
    const silence = ["No post of ", network, ` has reported impressions in the last 7 days (${number(last)}).`];
    return chance < UNLIKELY ? [silence] : [];
  });
}

/** Returns a line for each reason why Later's totals of campaigns are withheld. */
function totalsLines() {
  const byReason = groupedBy(ofCampaigns(figures).filter(withheld), withheld);
  return [...byReason].map(([reason, rows]) => {
    const campaigns = make("b", {}, withUnit(rows.length, "campaign"));
    return ["Ad spend, return, reach, clicks and conversions of ", campaigns, ` are left out: ${reason}.`];
  });
}

/** Returns when the data begin, if that is in the period. */
function beginLines(row) {
  const days = lengthOf(period());
  const isLonger = report.oldest_age !== null && row.days < days && report.oldest_age < period().first;
  const text = `: the period has ${row.days} of ${days} days.`;
  return isLonger ? [["The data begin on ", make("b", {}, dayOf(report.oldest_age)), text]] : [];
}

/** Shows what is missing, and returns how many entries that are. */
function showMissing(row) {
  const lines = [
    ...gaps().map(gapLine), ...report.outdated.map((text) => [make("bdi", {}, text)]), ...totalsLines(),
    ...networkLines(), ...quarantineLines(), ...beginLines(row),
  ];
  const item = (line, kind = "") => make("li", kind ? { class: kind } : {}, ...line);
  const items = lines.map((line) => item(line));
  const [shown, hidden] = [items.slice(0, SHOWN_LINES), items.slice(SHOWN_LINES)];
  const link = make("a", { href: "#received-part" }, `${whole.format(hidden.length)} more`);
  if (hidden.length) shown.push(item([link, ", in Data received."]));
  if (!shown.length) shown.push(item(["Nothing."], "good"));
  byId("missing").replaceChildren(...shown, item([`Data as of ${report.as_of}.${whatIsReported(row)}`], "aside"));
  byId("all-missing").replaceChildren(
    ...(hidden.length ? [make("h3", {}, "More that is missing"), make("ul", {}, ...hidden)] : []));
  return lines.length;
}

function whatIsReported(row) {
  if (!row.posts) return "";
  const [organic, paid] = CHANNELS.map((channel) => whole.format(row[`${channel}_impressions_posts`] ?? 0));
  return ` Of ${withUnit(row.posts, "post")} with results, ${organic} report organic impressions and ${paid} paid ones,`
    + " some of them both.";
}

function showReceived() {
  const tableNames = Object.keys(report.tables);
  // Not the days after the newest one, which `Days expected` does not count either.
  const length = ([to, from]) => Math.max(0, from - Math.max(0, to) + 1);
  const missing = (table, instance) => sum(gaps()
    .filter((gap) => gap.tables.includes(table) && gap.instances.includes(instance))
    .flatMap((gap) => gap.ranges).map(length));
  const columns = [
    column.name("Instance", (row) => row.name),
    column.number("Days of results", "days"), column.number("Days expected", "days_expected"),
    ...tableNames.slice(0, 2).map((table) => column.number(`Missing ${report.tables[table]}`, table)),
    column.number("Invalid rows", "rows"),
  ];
  fillTable("received", columns, instances().map((instance) => ({
    name: report.instances[instance], days: 0, ...lookUp(figures, instance, null),
    rows: sum(quarantined().filter((part) => part.instance === report.instances[instance]).map((part) => part.rows)),
    ...Object.fromEntries(tableNames.map((table) => [table, missing(table, instance)])),
  })));
}

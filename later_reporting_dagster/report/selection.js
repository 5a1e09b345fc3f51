"use strict";
// Looks up the results for the chosen filters in the embedded JSON.

const byId = (id) => document.getElementById(id);
addEventListener("error", ({ message }) => {
  const failed = byId("failed");
  failed.textContent = `This page has failed, and some of it may be missing or wrong. Please report: ${message}`;
  failed.hidden = false;
});

const report = JSON.parse(byId("report-data").textContent);
const CHANNELS = ["organic", "paid"];
const filters = { window: report.window, instance: null, campaign: null };

// Days, as ages: days before the newest one.

const DAY = 86400000;
const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
const period = () => report.windows[filters.window];
const lengthOf = ({ first, last }) => first - last + 1;
const isMonth = () => ["this_month", "last_month"].includes(filters.window);
const lastAge = () => period().last || -Infinity; // a period that ends with the newest day has the days after it, too
const isInPeriod = (age) => lastAge() <= age && age <= period().first;
/** Returns the parts of ranges of ages that are in the period. */
const inPeriod = (ranges) =>
  ranges
    .map(([to, from]) => [Math.max(to, lastAge()), Math.min(from, period().first)])
    .filter(([to, from]) => to <= from);

// Look-up. A row of a table is of a campaign, of an instance, or of all instances. Tables are stored by column, with
// the rows in the order in which they are shown.

function groupedBy(values, key) {
  const groups = new Map();
  for (const value of values) {
    if (!groups.has(key(value))) groups.set(key(value), []);
    groups.get(key(value)).push(value);
  }
  return groups;
}

/** Returns the values of a column; one of texts has each text once, and by row its index. */
const valuesOf = (column) => (Array.isArray(column) ? column : column.rows.map((index) => column.texts[index] ?? null));

function rowsOf(name) {
  const columns = Object.entries(report[name]).map(([column, values]) => [column, valuesOf(values)]);
  const rowAt = (index) => Object.fromEntries(columns.map(([column, values]) => [column, values[index]]));
  return columns[0][1].map((_, index) => rowAt(index));
}

const scopeKey = ({ time_window: window, instance, campaign = null }) => `${window}/${instance}/${campaign}`;
const byScope = (name) => groupedBy(rowsOf(name), scopeKey);
// Their campaign is what they are about: they are of all instances or of one.
const byInstance = (name) => groupedBy(rowsOf(name), (row) => scopeKey({ ...row, campaign: null }));
const [results, networks, comparisons, silent] = ["results", "networks", "later", "silent"].map(byScope);
const [makers, peaks] = ["who", "peaks"].map(byInstance);
const [creators, book, posts, months, newestPosts, daily] = [
  "creators",
  "book",
  "posts",
  "months",
  "newest_posts",
  "days",
].map(rowsOf);
const dailyByScope = groupedBy(daily, (row) => `${row.instance}/${row.campaign}`);

const instanceOf = (campaign) => report.campaigns[campaign][0];
const chosenInstance = () => (filters.campaign !== null ? instanceOf(filters.campaign) : filters.instance);
const isChosen = (instance) => [null, instance].includes(chosenInstance());
const rowsAt = (table, instance, campaign) =>
  table.get(scopeKey({ time_window: filters.window, instance, campaign })) ?? [];
const lookUp = (table, instance, campaign) => rowsAt(table, instance, campaign)[0] ?? {};
/** Returns the rows of the chosen campaign, or of the chosen instance, or of all. */
const chosenRows = (table) => rowsAt(table, chosenInstance(), filters.campaign);
const chosen = (table) => chosenRows(table)[0] ?? {};
const instances = () => report.instances.map((_, index) => index).filter(isChosen);
const ofCampaigns = () =>
  [...results.values()]
    .flat()
    .filter(
      (row) =>
        row.time_window === filters.window &&
        row.campaign !== null &&
        isChosen(row.instance) &&
        [null, row.campaign].includes(filters.campaign),
    );

// Names.

const labelOf = (instance) => report.labels[instance];
const DETAIL_LENGTH = 40; // of an instance, so that a campaign's id has room beside it
const isOneInstance = () => report.instances.length === 1;
/** Returns a campaign's name, or its id. */
const campaignName = (campaign) => {
  const [, id, name] = report.campaigns[campaign];
  return name === null ? `Campaign ${id}` : isolated(name);
};
/** Returns a campaign's id, with its instance if several instances are shown. */
const campaignDetail = (campaign) => {
  const [instance, id] = report.campaigns[campaign];
  const of = chosenInstance() === null && !isOneInstance() ? [isolated(shortened(labelOf(instance), DETAIL_LENGTH))] : [];
  return [...of, id].join(" · ");
};
/** Returns the chosen campaign or instance, or all, in words. */
function selection() {
  if (filters.campaign !== null) return campaignName(filters.campaign);
  if (filters.instance !== null) return isolated(labelOf(filters.instance));
  return isOneInstance() ? isolated(labelOf(0)) : `all ${report.instances.length} instances`;
}

// The selection in the address: #period=28d&instance=…&campaign=…

/** Returns the fragment of a selection, without what is as the page opens. */
function fragmentOf({ window = filters.window, instance = filters.instance, campaign = null }) {
  const parts = new URLSearchParams();
  if (window !== report.window) parts.set("period", window);
  const owner = campaign === null ? instance : instanceOf(campaign);
  if (owner !== null && !(isOneInstance() && campaign === null)) parts.set("instance", report.instances[owner]);
  if (campaign !== null) parts.set("campaign", report.campaigns[campaign][1]);
  return `#${parts}`;
}

/** Chooses what the address says; what the page does not know is left as the page opens. */
function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const indexOf = (index) => (index < 0 ? null : index);
  filters.window = parts.get("period") in report.windows ? parts.get("period") : report.window;
  filters.instance = indexOf(report.instances.indexOf(parts.get("instance")));
  filters.campaign = indexOf(
    report.campaigns.findIndex(
      ([instance, id]) => String(id) === parts.get("campaign") && [null, instance].includes(filters.instance),
    ),
  );
}

"use strict";
// Looks up the results for the chosen filters in the embedded JSON.

const byId = (id) => document.getElementById(id);
addEventListener("error", ({ message }) => {
  const failed = byId("failed");
  failed.textContent = `This page has failed, and some of it may be missing or wrong. Please report: ${message}`;
  failed.hidden = false;
});

const report = JSON.parse(byId("report-data").textContent);
const DAY = 86400000;
const NEWEST = Date.parse(`${report.as_of}T00:00:00Z`);
const filters = { window: report.window, instance: null, campaign: null };

// Days, as ages: days before the newest one.

const period = () => report.windows[filters.window];
const lengthOf = ({ first, last }) => first - last + 1;
const lastAge = () => period().last || -Infinity;  // a period that ends with the newest day has the days after it, too
const isInPeriod = (age) => lastAge() <= age && age <= period().first;
/** Returns the parts of ranges of ages that are in the period. */
const inPeriod = (ranges) => ranges
  .map(([to, from]) => [Math.max(to, lastAge()), Math.min(from, period().first)])
  .filter(([to, from]) => to <= from);
const dayOf = (age) => new Date(NEWEST - age * DAY).toISOString().slice(0, 10);
const daysOf = (last, first) => (first === last ? dayOf(last) : `${dayOf(first)} to ${dayOf(last)}`);

/** Returns the ages of the first and the last day of the period before. */
const before = ({ previous_first_age: first, previous_last_age: last }) => ({ first, last });
/** Returns whether both periods are complete. */
const isComparable = (row) => row.days === row.days_expected && row.previous_days === lengthOf(before(row));
/** Returns whether sums of both periods can be compared, too: not those of months, which may have other lengths. */
const hasSameLength = (row) => filters.window !== "last_month" && row.days_expected === lengthOf(before(row));

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

function rowsOf(name) {
  const columns = Object.entries(report[name]);
  const rowAt = (index) => Object.fromEntries(columns.map(([column, values]) => [column, values[index]]));
  return columns[0][1].map((_, index) => rowAt(index));
}

const scopeKey = (row) => `${row.time_window}/${row.instance}/${row.campaign}`;
const byScope = (name) => new Map(rowsOf(name).map((row) => [scopeKey(row), row]));
const [figures, accounts, published] = ["figures", "accounts", "published"].map(byScope);
const [parts, creators, posts, daily] = ["parts", "creators", "posts", "days"].map(rowsOf);
const dailyByScope = groupedBy(daily, (row) => `${row.instance}/${row.campaign}`);

const lookUp = (table, instance, campaign) =>
  table.get(scopeKey({ time_window: filters.window, instance, campaign })) ?? {};
const chosen = (table) => lookUp(table, chosenInstance(), filters.campaign);
const instanceOf = (campaign) => report.campaigns[campaign][0];
const chosenInstance = () => (filters.campaign !== null ? instanceOf(filters.campaign) : filters.instance);
const isChosen = (instance) => [null, instance].includes(chosenInstance());
const isChosenCampaign = (campaign) => [null, campaign].includes(filters.campaign);
const inWindow = (rows) =>
  rows.filter((row) => row.time_window === filters.window && row.instance !== null && isChosen(row.instance));
const ofCampaigns = (table) =>
  inWindow([...table.values()]).filter(({ campaign }) => campaign !== null && isChosenCampaign(campaign));
/** Returns the networks and content types of a campaign, or without one those of the chosen instance. */
const partsOf = (window, campaign) => parts.filter((row) =>
  row.time_window === window && row.instance === chosenInstance() && row.campaign === campaign);
const instances = () => report.instances.map((_, index) => index).filter(isChosen);

/**
 * Returns why Later's totals of a campaign or an account are withheld, if they are.
 * What the API totals stands beside the lake only if both cover the same days.
 */
function withheld({ instance, totals_first_age: first, totals_last_age: last }) {
  if (last == null) return undefined;
  if (first !== period().first || last !== period().last) return `Later's totals are of ${daysOf(last, first)}`;
  const { days = 0, days_expected: expected = lengthOf(period()) } = lookUp(figures, instance, null);
  return days < expected ? `Later's totals cover ${expected} days, and the lake has ${days} of them` : undefined;
}

// Names.

const ofInstance = (instance) =>
  chosenInstance() === null && report.instances.length > 1 ? ` · ${isolated(report.instances[instance])}` : "";

/** Returns a campaign's name and id, or only its id, with its instance if several instances are shown. */
function campaignName(campaign, length = Infinity) {
  const [instance, id, name] = report.campaigns[campaign];
  return (name === null ? String(id) : `${isolated(shortened(name, length))} (${id})`) + ofInstance(instance);
}

/** Returns the chosen campaign or instance in words. */
function selection() {
  if (filters.campaign !== null) return `campaign ${campaignName(filters.campaign)}`;
  return filters.instance !== null ? report.instances[filters.instance] : "all instances";
}

"use strict";
// Results over time: the chart, who made a large part of it, and the table of days.

const DAYS_PER_WEEK = 7;
const WEEKS_FROM = 91; // the age from which on the page has weeks
const sumOf = (values) => values.reduce((total, value) => (value == null ? total : (total ?? 0) + value), null);
const isSingleDay = () => lengthOf(period()) === 1;
const [METRICS_TABLE] = Object.keys(report.tables);
const MEASURES = ["impressions", "engagements", "rate_impressions", "rate_engagements"];

/** Returns sums of the chosen results over ages, and the rates that follow from them; null over nothing. */
function resultsOf(rows) {
  const names = [...CHANNELS.flatMap((channel) => MEASURES.map((each) => `${channel}_${each}`)), "ad_spend"];
  const sums = Object.fromEntries(names.map((name) => [name, sumOf(rows.map((row) => row[name]))]));
  const rates = CHANNELS.map((channel) => {
    const impressions = sums[`${channel}_rate_impressions`];
    return [
      `${channel}_engagement_rate`,
      impressions > 0 ? (100 * sums[`${channel}_rate_engagements`]) / impressions : null,
    ];
  });
  return { ...sums, ...Object.fromEntries(rates) };
}

const dailyRows = () => dailyByScope.get(`${chosenInstance()}/${filters.campaign}`) ?? [];
/** Returns a point of `days` days, whose newest one is `age`. */
const pointAt = (byAge, age, days) => ({
  age,
  days,
  ...resultsOf(Array.from({ length: days }, (_, index) => byAge.get(age + index)?.[0]).filter(Boolean)),
});

/** Returns the number of days of a point of the chart: days are by week from a certain age on. */
const stepOfChart = () => (period().first >= WEEKS_FROM ? DAYS_PER_WEEK : 1);

/** Returns the days or weeks of the period, oldest first, with those before, and the instances that lack files. */
function pointsOf(row) {
  const { first, last } = period();
  const step = stepOfChart();
  const byAge = groupedBy(dailyRows(), ({ age }) => age);
  const absent = report.missing.filter(({ table, instance }) => table === METRICS_TABLE && isChosen(instance));
  const days = Math.min(first, report.oldest_age ?? first) - last + 1;
  const { first: firstBefore, last: lastBefore } = before(row);
  const hasBefore = row.comparison && step === 1 && firstBefore < WEEKS_FROM;
  return Array.from({ length: Math.max(1, Math.floor(days / step)) }, (_, index) => {
    const age = last + index * step;
    const lacking = absent.filter(({ ages }) => ages.some(([to, from]) => to < age + step && age <= from));
    const ageBefore = firstBefore - (first - age);
    const earlier = hasBefore && ageBefore >= lastBefore ? pointAt(byAge, ageBefore, 1) : null;
    const sumBefore = (name) => earlier && (sumOf(CHANNELS.map((channel) => earlier[`${channel}_${name}`])) ?? 0);
    return {
      ...pointAt(byAge, age, step),
      lacking: lacking.map(({ instance }) => instance),
      ageBefore,
      impressions_before: sumBefore("impressions"),
      engagements_before: sumBefore("engagements"),
      ad_spend_before: earlier && (earlier.ad_spend ?? 0),
    };
  }).reverse();
}

/** Returns the whole weeks of the period, oldest first. */
function weeksOf() {
  const { first, last } = period();
  const byWeek = groupedBy(
    dailyRows().filter(({ age }) => last <= age && age <= first),
    ({ age }) => Math.floor((age - last) / DAYS_PER_WEEK),
  );
  const length = Math.floor(lengthOf(period()) / DAYS_PER_WEEK);
  return Array.from({ length }, (_, index) => resultsOf(byWeek.get(index) ?? [])).reverse();
}

function showTime(row) {
  const points = pointsOf(row);
  const total = sumOf(points.map(totalOf));
  byId("time").hidden = points.length < 2 || !total; // one day is a row, not a picture
  const unit = points[0].days === 1 ? "day" : "week";
  for (const each of document.querySelectorAll(".unit")) each.textContent = unit;
  const hasBefore = points.every((point) => point.impressions_before != null);
  const whatIsBefore = isMonth() ? monthOf(before(row).first) : `the ${lengthOf(before(row))} days before`;
  byId("time-note").replaceChildren(
    "stacked",
    ...(hasBefore ? [`; grey: ${whatIsBefore}, in all`] : []),
    ...(points.some(({ lacking }) => lacking.length) ? ["; hatched: data are missing"] : []),
    span(
      "in-cards",
      ...CHANNELS.flatMap((channel) => [
        span(`key ${channel}`, `${channelName[channel]} ${formats.count(row[`${channel}_impressions`] ?? 0)} `),
      ]),
    ),
  );
  const drawn = points.map((point) => ({
    ...point,
    before: point.impressions_before,
    isLacking: point.lacking.length > 0,
    label: shortDay(point.age + point.days - 1),
    tip: tipOf(point),
  }));
  const value = (name, format) => (row[name] == null ? null : formats[format](row[name]));
  const ends = {
    organic: value("organic_impressions", "count"),
    paid: value("paid_impressions", "count"),
    spend: value("ad_spend", "money") ?? "",
    before:
      hasBefore && row.previous_impressions != null
        ? `${isMonth() ? monthOf(before(row).first) : `${lengthOf(before(row))} days before`} ${formats.count(row.previous_impressions)}`
        : null,
    spendTitle: `Ad spend by ${unit}`,
  };
  const description = `Impressions by ${unit}, organic and paid, and ad spend. Arrow keys read the days; the table by ${unit} has all numbers.`;
  byId("chart").setAttribute("role", "img");
  byId("chart").setAttribute("aria-label", description);
  chart.draw = byId("time").hidden ? null : (width) => dailyChart(drawn, { peak: peakOf(points), highestSpend: highestSpendOf(points), ends }, width);
  drawChart();
  showMaker(row);
}

/** Returns the values of a point, a line each. */
function tipOf(point) {
  const line = (label, value, format) => (value == null ? [] : [`${label} ${exact[format](value)}`]);
  const earlier = point.impressions_before;
  return [
    daysOf(point.age, point.age + point.days - 1),
    ...line("Impressions", totalOf(point), "count"),
    ...line("Organic", point.organic_impressions, "count"),
    ...line("Paid", point.paid_impressions, "count"),
    ...line("Ad spend", point.ad_spend, "money"),
    ...(earlier == null ? [] : line(`${shortDay(point.ageBefore)}, before:`, earlier, "count")),
    ...(point.lacking.length ? [`Missing: ${listed(point.lacking.map(labelOf), "instance", "instances")}`] : []),
  ].join("\n");
}

/** Returns the index of the first of the points with the highest value. */
function highestOf(points, valueOf) {
  return points.reduce((best, point, at) => ((valueOf(point) ?? 0) > (valueOf(points[best]) ?? 0) ? at : best), 0);
}

/** Returns the label of the day with the highest ad spend; null without ad spend. */
function highestSpendOf(points) {
  const index = highestOf(points, (point) => point.ad_spend);
  const spend = points[index].ad_spend;
  return spend ? { index, title: formats.money(spend) } : null;
}

/** Returns the label of the day with the most impressions, and with the campaign that made a large part of it. */
function peakOf(points) {
  const index = highestOf(points, totalOf);
  const point = points[index];
  const { age, campaign, campaign_impressions: part } = chosen(peaks);
  return {
    index,
    title: `${formats.count(totalOf(point))} on ${daysOf(point.age, point.age + point.days - 1, false)}`,
    detail:
      point.days === 1 && age === point.age
        ? `${formats.count(part)} of it in one campaign: ${shortened(campaignName(campaign), 50)}`
        : null,
  };
}

const METRIC_WORDS = { paid_impressions: "paid impressions", organic_impressions: "organic impressions" };

/** Shows which creator or campaign had a large part of the period, and what the change is without it. */
function showMaker(row) {
  const found = filters.campaign === null ? chosen(makers) : {};
  byId("who").replaceChildren(...(found.share == null ? [] : madeBy(row, found)));
}

function madeBy(row, found) {
  const what = METRIC_WORDS[found.measure];
  const isCreator = found.kind === "creator";
  const ads =
    found.share_of_ad_spend == null ? [] : [" and ", figure(found.share_of_ad_spend, "share"), " of ad spend"];
  const part = found.is_of_period ? ["had ", figure(found.share, "share"), ` of ${what}`, ...ads] : ofChange(found, what);
  const claim = bold(`One ${found.kind} `, ...part, ":");
  const { name } = isCreator ? creatorName(found) : { name: campaignName(found.campaign) };
  const link = isCreator ? found.link : fragmentOf({ campaign: found.campaign });
  const shown = link ? make("a", linkTo(link), named(name)) : named(name);
  const where = isCreator && found.campaign !== null ? [", in ", named(campaignName(found.campaign))] : [];
  const peak =
    found.peak_value == null
      ? []
      : [
          ", ",
          figure(found.peak_value, "count"),
          " of ",
          figure(found.value, "count"),
          ` on ${shortDay(found.peak_age)}`,
        ];
  return [claim, " ", shown, ...where, ...peak, ".", ...withoutMaker(row, found, what)];
}

/** Returns which part of a change a creator or a campaign has made: above all of it, if others changed the other way. */
function ofChange({ change, share_of_change: part }, what) {
  const all = `the ${change < 0 ? "fall" : "rise"} of ${what}`;
  return part > 100 ? [`made more than ${all}`] : ["made ", figure(part, "share"), ` of ${all}`];
}

/** Returns what the change would be without a creator or a campaign, in both periods. */
function withoutMaker(row, { kind, change, change_without: without }, what) {
  if (!row.comparison || change == null || without == null) return [];
  const size = (value) => `${tenth.format(Math.abs(value))}${THIN}%`;
  const word = (value) => `${value < 0 ? "fell" : "rose"} ${size(value)}`;
  const now = change < 0 === without < 0 ? `, not ${size(change)}` : `; with it, they ${word(change)}`;
  return [` Without this ${kind}, ${what} ${word(without)}${now}${isPerDay(row) ? " a day" : ""}.`];
}

// The table.

function showDays(row) {
  const points = [...pointsOf(row)].reverse();
  byId("days-note").textContent = withUnit(points.length, "row");
  const dates = (point) => daysOf(point.age, point.age + point.days - 1);
  const measures = [
    ["impressions", "count"],
    ["engagements", "count"],
    ["engagement_rate", "percent"],
  ];
  const columns = measures.flatMap(([measure, format]) =>
    CHANNELS.map((channel) =>
      column.number(
        `${channelName[channel]} ${measure === "engagement_rate" ? "rate" : measure}`,
        `${channel}_${measure}`,
        format,
      ),
    ),
  );
  const missing = (point) =>
    point.lacking.length ? listed(point.lacking.map(labelOf), "instance", "instances") : null;
  fillTable(
    "days",
    [
      column.csv("First day", (point) => isoDay(point.age + point.days - 1)),
      column.csv("Last day", (point) => isoDay(point.age)),
      { ...column.name(points[0].days === 1 ? "Day" : "Week", dates, (point) => rowHeading(dates(point))), csv: {} },
      ...columns,
      column.number("Ad spend", "ad_spend", "money"),
      ...(points.some((point) => point.lacking.length)
        ? [column.text("Missing", missing)]
        : [column.csv("Missing", missing)]),
    ],
    points,
    { isLong: true, isFixed: true },
  );
}

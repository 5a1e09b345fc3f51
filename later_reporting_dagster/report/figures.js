"use strict";
// The title, the sentence and the five figures.

// Title and sentence.

function showTitle(row) {
  const { first, last } = period();
  const name =
    filters.campaign === null
      ? [`Organic and paid results of ${selection()}`]
      : [selection(), " ", span("muted", campaignDetailInFull(filters.campaign))];
  byId("title").replaceChildren(...name);
  const days = withUnit(lengthOf(period()), "day");
  const when = isWholeMonth() ? `${monthOf(first)} ${yearOf(first)}, ${days}.` : `${daysOf(last, first)}, ${days}.`;
  const link = filters.campaign === null ? [] : [" ", make("a", { href: fragmentOf({}) }, "All campaigns")];
  byId("dates").replaceChildren(`${when} ${whatIsCompared(row)}`.trim(), ...link);
}

const isWholeMonth = () => filters.window === "last_month";
const campaignDetailInFull = (campaign) => {
  const [instance, id] = report.campaigns[campaign];
  return isOneInstance() ? String(id) : `${isolated(labelOf(instance))} · ${id}`;
};
const before = ({ previous_first_age: first, previous_last_age: last }) => ({ first, last });

/** Returns against which days all changes are, or why there are none. */
function whatIsCompared(row) {
  if (row.days == null) return "";
  const { first, last } = before(row);
  if (row.comparison === "per_day") {
    return `Changes are per day, against ${monthOf(first)}: ${row.days_expected} against ${row.previous_days_expected} days.`;
  }
  if (row.comparison) return `Changes are against ${daysOf(last, first, yearOf(first) !== yearOf(period().last))}.`;
  const lacking = [
    [row.days, row.days_expected, "days"],
    [row.previous_days ?? 0, row.previous_days_expected, "days before"],
  ]
    .filter(([days, expected]) => days < expected)
    .map(([days, expected, which]) => `${days} of the ${expected} ${which}`);
  return lacking.length ? `No changes: only ${lacking.join(" and ")} are in the lake.` : "";
}

/** Returns the change of a sum or a rate, if both periods can be compared. Last month, sums are compared per day. */
function changeIn(row, name, isRate = false) {
  if (!row.comparison) return null;
  const perDay = (value, days) => (value == null || isRate || row.comparison !== "per_day" ? value : value / days);
  return changeOf(
    perDay(row[name], row.days_expected),
    perDay(row[`previous_${name}`], row.previous_days_expected),
    isRate,
  );
}

const isPerDay = (row) => row.comparison === "per_day";

/** Returns the words for the period, at the start of the sentence, for posts, and for results. */
function periodInWords() {
  const { first, last } = period();
  const length = lengthOf(period());
  if (isWholeMonth()) return [`In ${monthOf(first)} ${yearOf(first)}`, "in it", "in the month"];
  if (length === 1) return [`On ${longDay(last)}`, "on it", "on this day"];
  if (isMonth()) return [`From 1 to ${longDay(last)}`, "in these days", "in these days"];
  return [`In the ${length} days to ${longDay(last)}`, "in them", "in these days"];
}

/** Returns a number for the sentence: its unit after an ordinary no-break space, so that it can be pasted anywhere. */
function inWords(value, format, unit = "") {
  const element = figure(value, format);
  element.textContent = element.textContent.replaceAll(THIN, NO_BREAK);
  return bold(element, unit);
}

/** Returns what was spent on what, and what was recorded, in a sentence that can be pasted into a mail. */
function sentence(row) {
  const [when, published, recorded] = periodInWords();
  const who = make("bdi", { dir: "ltr" }, selection());
  const known = [];
  if (row.ad_spend != null) {
    const change = changeIn(row, "ad_spend");
    const size = change && isPerDay(row) ? " a day" : "";
    known.push([
      inWords(row.ad_spend, "money"),
      " on ads",
      ...(change ? [` (${signed(row, "ad_spend")}${size})`] : []),
    ]);
  }
  if (row.creators_cost != null) {
    const text = bold(...(row.is_cost_known ? [] : ["at least "]), inWords(row.creators_cost, "money"));
    known.push([text, ` on creators, for the posts published ${published}`]);
  }
  const spent = known.length ? [" spent ", ...known[0], ...(known[1] ? [" and ", ...known[1]] : [])] : [];
  const none = row.published_posts ? [] : [known.length ? "; it published no post" : " published no post"];
  const unknown =
    row.published_posts && row.creators_cost == null
      ? [known.length ? "; what creators cost is not known yet" : ": no cost is known yet"]
      : [];
  const opening = [`${when}, `, who, ...spent, ...none, ...unknown, ". "];
  const share = row.paid_share_of_impressions;
  const byAds = share == null || !row.paid_impressions ? [] : [" (", inShare(share), " by ads)"];
  return [
    ...opening,
    `Recorded ${recorded}: `,
    inWords(row.impressions, "count", " impressions"),
    ...byAds,
    " and ",
    inWords(row.engagements, "count", " engagements"),
    ".",
  ];
}

const inShare = (value) => figure(value, "share");

/** Returns a change in whole percent with its sign. */
function signed(row, name) {
  const days = isPerDay(row) ? row.previous_days_expected / row.days_expected : 1;
  const change = 100 * ((row[name] * days) / row[`previous_${name}`] - 1);
  const size = whole.format(Math.abs(change));
  return `${size === "0" ? "±" : change > 0 ? "+" : "−"}${size}${NO_BREAK}%`;
}

const atLeastOf = (isKnown) => (isKnown ? [] : [span("least", "≥"), THIN]);

/** Returns what creators cost, as at least if a part is not known. */
function creatorsCost(row) {
  if (row.creators_cost != null) return [...atLeastOf(row.is_cost_known), figure(row.creators_cost, "money")];
  return [span("null", row.published_posts ? "unknown" : "no post")];
}

// The five figures.

/** Returns a card: its label, figure, change, small line, parts and a line below, each on a row that all cards share. */
function card(id, label, { about, shown, change = [], line = [], parts = [], below = [] }) {
  const row = (kind, children) => make("div", { class: kind }, ...children);
  return make(
    "article",
    { class: `card ${id}`, "aria-label": label },
    make("h2", {}, `${label} `, mark(`About ${label}`, about)),
    row("figure", shown),
    row("change-line", change),
    row("small-line", line),
    row("parts", parts),
    row("below", below),
  );
}

function part(label, value, { channel = "", change = null } = {}) {
  const values = [span("", ...value), ...(change ? [change] : [])];
  return make("div", { class: "part" }, span(`key ${channel}`, label), ...values);
}

const channelName = { organic: "Organic", paid: "Paid" };

function showCards(row) {
  const points = pointsOf(row);
  byId("cards").replaceChildren(
    costCard(row, points),
    sumCard(row, points, "impressions"),
    sumCard(row, points, "engagements"),
    rateCard(row),
    returnCard(row),
  );
}

function costCard(row, points) {
  const value = (each) => make("span", { id: "figure-cost" }, figure(each, "money"));
  const change = changeIn(row, "cost");
  const waits = row.comparison && row.cost != null && !change;
  const known = row.published_posts && row.posts_of_known_cost < row.published_posts;
  const below =
    row.content_cost_total != null
      ? ["Posts of several campaigns in each"]
      : known
        ? [`Cost known of ${whole.format(row.posts_of_known_cost)} of ${withUnit(row.published_posts, "post")}`]
        : [];
  return card("cost", "Cost", {
    about: ABOUT.cost,
    shown: [...atLeastOf(row.cost == null || row.is_cost_known), value(row.cost)],
    change: change ? [change, ...aDay(row)] : waits ? [span("muted", "not compared: costs are still coming in")] : [],
    line: spark([...beforeLine(points, "ad_spend_before"), [points.map((point) => point.ad_spend), "line paid"]]),
    parts: [
      part("Creators", creatorsCost(row), { channel: "organic" }),
      part("Ads", [figure(row.ad_spend, "money")], {
        channel: "paid",
        change: changeIn(row, "ad_spend"),
      }),
    ],
    below,
  });
}

const beforeLine = (points, name) =>
  points.length && points.every((point) => point[name] != null)
    ? [[points.map((point) => point[name]), "before"]]
    : [];
const aDay = (row) => (isPerDay(row) ? [" ", span("muted", "a day")] : []);

function sumCard(row, points, name) {
  const label = capitalized(name);
  const change = changeIn(row, name);
  const total = points.map((point) => sumOf(CHANNELS.map((channel) => point[`${channel}_${name}`])));
  return card(name, label, {
    about: ABOUT[name],
    shown: [make("span", { id: `figure-${name}` }, figure(row[name], "count"))],
    change: change ? [change, ...aDay(row)] : [],
    line: spark([...beforeLine(points, `${name}_before`), [total, "line"]]),
    parts: CHANNELS.map((channel) =>
      part(channelName[channel], [figure(row[`${channel}_${name}`], "count")], {
        channel,
        change: changeIn(row, `${channel}_${name}`),
      }),
    ),
    below: name === "impressions" ? costOfImpressions(row) : costOfEngagements(row),
  });
}

function costOfImpressions(row) {
  return row.paid_cpm == null ? [] : ["Paid CPM ", figure(row.paid_cpm, "price")];
}

function costOfEngagements(row) {
  const known = [
    [row.content_cost_per_engagement, " organic"],
    [row.ad_spend_per_engagement, " paid"],
  ].filter(([value]) => value != null);
  if (!known.length) return [];
  const text = known.flatMap(([value, channel], index) => [index ? ", " : "Each: ", figure(value, "price"), channel]);
  return [...text, " ", mark("About costs per engagement", ABOUT.each(row))];
}

function rateCard(row) {
  const rate = (channel) => `${channel}_engagement_rate`;
  const changes = CHANNELS.map((channel) => [channel, changeIn(row, rate(channel), true)]);
  const weeks = weeksOf();
  const lines = ["paid", "organic"].map((channel) => [weeks.map((week) => week[rate(channel)]), `line ${channel}`]);
  return card("rate", "Engagement rate", {
    about: ABOUT.rate,
    shown: [
      span(
        "two",
        ...CHANNELS.map((channel) =>
          make("span", { id: `figure-${rate(channel)}` }, figure(row[rate(channel)], "percent")),
        ),
      ),
    ],
    change: changes.some(([, change]) => change)
      ? [span("two", ...changes.map(([channel, change]) => span(`key ${channel}`, change ?? "–")))]
      : [],
    line: weeks.length > 1 ? spark(lines) : [],
    parts: CHANNELS.map((channel) =>
      part(
        channelName[channel],
        [
          figure(row[`${channel}_rate_engagements`], "count"),
          " of ",
          figure(row[`${channel}_rate_impressions`], "count"),
        ],
        { channel },
      ),
    ),
    below: [weeks.length > 1 ? "By week, of posts that report both" : "Of posts that report both"],
  });
}

const SHOWN_MONTHS = 4;

function returnCard(row) {
  const now = row.return_on_ad_spend;
  const change = changeIn({ ...row, comparison: row.comparison && "whole" }, "return_on_ad_spend");
  const byMonth =
    filters.campaign !== null
      ? []
      : months
          .filter(
            ({ instance, is_whole: isWhole, return_on_ad_spend: value }) =>
              instance === filters.instance && isWhole && value != null,
          )
          .slice(0, SHOWN_MONTHS)
          .reverse();
  const digit = ({ month, return_on_ad_spend: value }) =>
    make("span", {}, bold(cents.format(value)), MONTHS[Number(month.slice(5, 7)) - 1].slice(0, 3));
  const isShown = byMonth.length > 1 && !isSingleDay();
  const revenue = [
    part(
      "Implied revenue",
      row.implied_revenue == null ? [span("muted", "–")] : ["≈ ", figure(row.implied_revenue, "round")],
    ),
    part(
      "Links + affiliates",
      row.links_and_affiliate_sales == null ? ["none"] : [figure(row.links_and_affiliate_sales, "money")],
    ),
  ];
  const clicks = row.paid_clicks
    ? [
        figure(row.paid_clicks, "count"),
        " clicks",
        ...(row.ad_spend_per_click == null ? [] : [", CPC ", figure(row.ad_spend_per_click, "price")]),
        ...(row.paid_click_rate == null ? [] : [", CTR ", figure(row.paid_click_rate, "percent")]),
      ]
    : null;
  return card("return", "Return on ad spend", {
    about: ABOUT.return,
    shown: [make("span", { id: "figure-return_on_ad_spend" }, figure(now, "ratio", row.withheld))],
    change: change ? [change, " ", span("muted", "from ", formats.ratio(row.previous_return_on_ad_spend))] : [],
    line: isShown ? [make("div", { class: "by-month", "aria-hidden": "true" }, ...byMonth.map(digit))] : [],
    parts: now == null ? [] : revenue,
    below: clicks ?? [row.withheld ? capitalized(row.withheld) : isShown ? "By month, as Later states it" : "As Later states it"],
  });
}

/** Returns the lines of the CSV file of the five figures. */
function figureLines(row) {
  const names = [
    "cost",
    "creators_cost",
    "published_posts",
    "posts_of_known_cost",
    "content_cost_per_engagement",
    "ad_spend",
    "paid_cpm",
    "ad_spend_per_engagement",
    "return_on_ad_spend",
    "implied_revenue",
    "links_and_affiliate_sales",
    ...CHANNELS.flatMap((channel) =>
      ["impressions", "engagements", "engagement_rate", "rate_engagements", "rate_impressions"].map(
        (name) => `${channel}_${name}`,
      ),
    ),
  ];
  return [["figure", "value", "previous"], ...names.map((name) => [name, row[name], row[`previous_${name}`]])];
}

"use strict";
// Campaigns, creators to book again, posts to boost, months, networks, and the folded tables.

// What campaigns, months and networks share.

/** Returns the columns of a rate by channel. */
const RATES = CHANNELS.map((channel, index) =>
  column.number(`${channelName[channel]} rate`, `${channel}_engagement_rate`, "percent", {
    channel,
    width: [74, 62][index],
  }),
);

/** Returns the columns of an instance's id and label for a CSV file. */
const instanceColumns = (of = ({ instance }) => instance) => [
  column.csv("Instance", (row) => (of(row) == null ? null : report.instances[of(row)])),
  column.csv("Instance label", (row) => (of(row) == null ? null : labelOf(of(row)))),
];

// Headings of costs that Later totals for the campaigns of a month.
const COST_SO_FAR = "Cost so far";
const CREATORS_AS_TOTALLED = "Creators, as Later totals";

/** Returns the number of posts of known cost of those published, unless all are known. */
const knownOf = (row) =>
  row.published_posts
    ? [" ", small(`${whole.format(row.posts_of_known_cost)} of ${whole.format(row.published_posts)}`)]
    : [];

/** Returns the column of what creators cost: at least, with the number of posts of known cost. */
function creatorColumn(label, { short = "Creators", channel = "organic", width = 166 } = {}) {
  return {
    label,
    sort: "creators_cost",
    channel,
    width,
    csv: {
      "Creators, known cost": (row) => row.content_cost,
      "Posts published": (row) => row.published_posts,
      "Posts of known cost": (row) => row.posts_of_known_cost,
    },
    cell: (row) => cell(short, ...creatorsCost(row), ...(row.content_cost_total == null ? knownOf(row) : [])),
  };
}

/**
 * Returns the column of impressions, which has the change in cards, and the column of the change. That is only in the
 * CSV file if no row has one: why is said at the top of the page.
 */
function impressionColumns(rows, label, change, unit = "") {
  const shown = (row) => change(row) ?? span("null", "–");
  const inCard = (row) => [span("inner-change", change(row) ?? "", change(row) ? unit : "")];
  const csv = { "Impressions before": (row) => row.previous_impressions };
  return [
    column.number("Impressions", "impressions", "count", { beside: inCard, width: 92 }),
    rows.every((row) => change(row) == null)
      ? { csv }
      : {
          label,
          width: 76,
          csv,
          cell: (row) => make("td", { class: "number change-column", role: "cell", "data-label": label }, shown(row)),
        },
  ];
}

/** Returns the column of a cost of two parts, with a bar. */
function costColumn(label, rows) {
  const max = Math.max(...rows.map((row) => row.cost ?? 0));
  return {
    label,
    sort: "cost",
    width: 146,
    csv: { [label]: (row) => row.cost, "Cost is known in full": (row) => String(row.is_cost_known) },
    cell: (row) => {
      const parts = row.isOnce || row.cost == null ? [] : [bar(row.creators_cost, row.ad_spend, max)];
      const value = span(
        "",
        ...atLeastOf(row.cost == null || row.is_cost_known),
        figure(row.cost, "money", row.cost_reason),
      );
      return make("td", { class: "number main", role: "cell", "data-label": "Cost" }, ...parts, value);
    },
  };
}

// Campaigns.

function showCampaigns(row) {
  byId("campaigns").hidden = filters.campaign !== null;
  const rows = ofCampaigns()
    .filter((each) => each.posts || each.ad_spend != null || each.published_posts)
    .sort((left, right) => descending(left.cost, right.cost));
  const name = (each) => (each.isOnce ? "All posts, each once" : campaignName(each.campaign));
  const heading = (each) =>
    each.isOnce
      ? rowHeading(name(each), null, null, mark("About all posts", ABOUT.once))
      : rowHeading(name(each), campaignDetail(each.campaign), fragmentOf({ campaign: each.campaign }));
  const reason = (each) => each.withheld;
  const change = (each) => changeIn(each, "impressions");
  const isTotalled = row.content_cost_total != null;
  const columns = [
    column.name("Campaign", name, heading),
    column.csv("Campaign id", (each) => (each.isOnce ? null : report.campaigns[each.campaign][1])),
    ...instanceColumns(),
    column.csv("Status", (each) => (each.isOnce ? null : report.campaigns[each.campaign][3])),
    costColumn(isTotalled ? COST_SO_FAR : "Known cost", rows),
    creatorColumn(isTotalled ? CREATORS_AS_TOTALLED : "Creators, posts of known cost"),
    column.number("Ads", "ad_spend", "money", { channel: "paid", width: 78 }),
    ...impressionColumns(rows, isPerDay(row) ? "Change a day" : "Change", change, isPerDay(row) ? " a day" : ""),
    column.number("Engagements", "engagements", "count", { width: 84 }),
    ...RATES,
    column.number("Return on ads", "return_on_ad_spend", "ratio", { width: 66, reason }),
    ...[
      "posts",
      "organic_impressions",
      "paid_impressions",
      "organic_engagements",
      "paid_engagements",
      "paid_clicks",
      "ad_spend_per_click",
      "paid_click_rate",
      "implied_revenue",
      "links_and_affiliate_sales",
    ].map((key) => column.csv(capitalized(key.replaceAll("_", " ")), (each) => each[key])),
  ];
  const all = rows.length > shownRows() ? `${shownRows()} of ${whole.format(rows.length)}, ` : "";
  const { first, last } = before(row);
  explain(
    "campaigns",
    ABOUT.campaigns(row.comparison ? `Change is of impressions, against ${daysOf(last, first, false)}. ` : ""),
  );
  fillTable("campaigns", columns, rows, {
    foot: [{ ...row, isOnce: true }],
    note: rows.length ? `${all}highest ${isTotalled ? "" : "known "}cost first` : "",
    sortedBy: "cost",
  });
}

// Creators and posts.

/** Returns a creator's name, else handle, else id; and what is beside it. */
function creatorName(row) {
  const handle = row.handle ? `@${row.handle.replace(/^@/, "")}` : null;
  const names = [row.name, handle].filter(Boolean);
  const name = names[0] ?? (row.creator_id == null ? "Unknown creator" : `Creator ${row.creator_id}`);
  return { name, detail: names[1] ?? (row.name || !handle ? null : "no name") };
}

const creatorColumns = () => [
  column.name(
    "Creator",
    (row) => creatorName(row).name,
    (row) => {
      const { name, detail } = creatorName(row);
      return rowHeading(name, detail, row.link);
    },
  ),
  column.csv("Creator id", (row) => row.creator_id),
  column.csv("Handle", (row) => row.handle),
  column.csv("Link", (row) => row.link),
  ...instanceColumns(),
];

/** Returns the cost of a number of posts in the columns of those that were published in a period. */
const costOfPosts = ({ posts: number, posts_of_known_cost: known, content_cost: cost }) => ({
  published_posts: number,
  creators_cost: cost,
  is_cost_known: known === number,
});

function showBook() {
  const rows = book
    .filter((row) => isChosen(row.instance) && row.campaign === filters.campaign)
    .map((row) => ({ ...row, ...costOfPosts(row) }));
  const median = {
    ...column.number("Median rank", "median_percentile", "rank", { width: 62 }),
    cell: (row) =>
      make(
        "td",
        { class: "number main", role: "cell", "data-label": "Median rank" },
        bold(figure(row.median_percentile, "rank")),
      ),
  };
  const ranks = {
    label: "Each post, 0 to 100",
    width: 146,
    heading: () => span("", ...["0", "each post", "100"].map((each) => make("i", {}, each))),
    csv: { "Rank of each post": (row) => row.percentiles.join(" ") },
    cell: (row) =>
      make(
        "td",
        { class: "ranks", role: "cell", "data-label": "Each post, 0 to 100" },
        strip(row.percentiles, row.median_percentile),
      ),
  };
  const cost = creatorColumn("Known cost, of their posts", { short: "Known cost", channel: null, width: 112 });
  explain("book", ABOUT.book);
  fillTable(
    "book",
    [
      ...creatorColumns(),
      median,
      ranks,
      cost,
      column.number("Per engagement", "content_cost_per_engagement", "price", {
        width: 78,
        reason: () => "not all costs are known",
      }),
    ],
    rows,
    { note: "posts of the last 90 days", empty: "No creator has five ranked posts.", sortedBy: "median_percentile" },
  );
}

function showBoost() {
  const kind = (row) => readable(row.content_type ?? row.platform);
  const name = (row) => row.name ?? `Post ${row.post_id}`;
  const top = (percentile) =>
    percentile == null ? [] : [" ", small(`top ${Math.max(1, Math.ceil(100 - percentile))}${THIN}%`)];
  const ranked = (label, key, format, short) =>
    column.number(label, key, format, {
      short,
      width: 122,
      csv: { [label]: (row) => row[key], [`${label}, percentile`]: (row) => row[`${key}_percentile`] },
      beside: (row) => top(row[`${key}_percentile`]),
    });
  const isShown = ({ instance, campaigns }) =>
    isChosen(instance) && (filters.campaign === null || campaigns.includes(filters.campaign));
  explain("boost", ABOUT.boost);
  fillTable(
    "boost",
    [
      column.name("Post", name, (row) => rowHeading(name(row), kind(row), row.link)),
      column.csv("Post id", (row) => row.post_id),
      column.csv("Network", (row) => row.platform),
      column.csv("Content type", (row) => row.content_type),
      column.csv("Link", (row) => row.link),
      ...instanceColumns(),
      column.csv("Published", (row) => isoDay(row.age)),
      { label: "Published", csv: {}, width: 74, cell: (row) => cell("Published", shortDay(row.age)) },
      ranked("Organic impressions", "organic_impressions", "count", "Impressions"),
      ranked("Organic rate", "organic_engagement_rate", "percent", "Rate"),
      column.number("Peers", "peers", "count", { width: 50 }),
    ],
    posts.filter(isShown),
    {
      note: "at most 14 days old, no ads yet",
      empty: "None, or fewer than 20 posts to compare with.",
      isFixed: true,
    },
  );
}

// Months and networks.

function showMonths() {
  byId("months").hidden = filters.campaign !== null;
  const reason = ({ days_in_month: all, days: some }) =>
    some < all ? "Later’s total is of the whole month, of which the lake has a part" : undefined;
  const rows = months
    .filter(({ instance }) => instance === filters.instance)
    .map((row) => ({ ...row, creators_cost: row.content_cost_total, is_cost_known: true, cost_reason: reason(row) }));
  const name = ({ month }) => `${MONTHS[Number(month.slice(5, 7)) - 1]} ${month.slice(0, 4)}`;
  const days = (row) => (row.is_whole ? null : `${row.days} of ${row.days_in_month} days`);
  const change = (row) =>
    row.previous_impressions == null
      ? null
      : changeOf(row.impressions / row.days_in_month, row.previous_impressions / row.previous_days_in_month);
  const cost = {
    label: CREATORS_AS_TOTALLED,
    channel: "organic",
    width: 166,
    csv: {
      "Creators, Later’s total": (row) => row.content_cost_total,
      "Posts in Later’s total": (row) => row.content_cost_total_posts,
    },
    cell: (row) =>
      cell(
        "Creators",
        figure(row.content_cost_total, "money", row.cost_reason),
        ...(row.content_cost_total == null ? [] : [" ", small(withUnit(row.content_cost_total_posts, "post"))]),
      ),
  };
  const newest = rows.find((row) => row.previous_impressions != null);
  const lengths = newest
    ? `change of impressions per day: ${newest.days_in_month} against ${newest.previous_days_in_month} days`
    : "";
  explain("months", ABOUT.months);
  fillTable(
    "months",
    [
      column.name("Month", name, (row) => rowHeading(name(row), days(row))),
      column.csv("Days", (row) => row.days),
      costColumn(COST_SO_FAR, rows),
      cost,
      column.number("Ads", "ad_spend", "money", { channel: "paid", width: 78 }),
      ...impressionColumns(rows, "Change per day", change, " a day"),
      column.number("Engagements", "engagements", "count", { width: 84 }),
      ...RATES,
      column.number("Return on ads", "return_on_ad_spend", "ratio", { width: 66 }),
      column.csv("Organic impressions", (row) => row.organic_impressions),
      column.csv("Paid impressions", (row) => row.paid_impressions),
    ],
    rows,
    { isFixed: true, isLong: true, kind: (row) => (row.is_whole ? null : "partial"), note: lengths },
  );
}

function showNetworks(row) {
  const rows = chosenRows(networks).map((each) => ({
    ...each,
    ...costOfPosts({ ...each, posts: each.published_posts }),
    comparison: each.previous_impressions == null ? null : row.comparison,
  }));
  const name = (each) => readable(each.platform);
  byId("networks-title").textContent = filters.campaign === null ? "Networks" : "Networks of this campaign";
  const share = {
    label: "Paid share of impressions",
    width: 146,
    csv: { "Paid share of impressions": (each) => each.paid_share_of_impressions },
    cell: (each) => {
      const of = each.paid_share_of_impressions;
      return cell(
        "Paid share",
        ...(of == null ? [] : [bar(100 - of, of, 100, "wide")]),
        span("", figure(of, "share")),
      );
    },
  };
  explain("networks", ABOUT.networks);
  fillTable(
    "networks",
    [
      column.name("Network", name, (each) =>
        rowHeading(name(each), each.posts == null ? null : withUnit(each.posts, "post")),
      ),
      column.csv("Posts", (each) => each.posts),
      creatorColumn("Creators, posts of known cost"),
      column.number("Ads", "ad_spend", "money", { channel: "paid", width: 92 }),
      ...impressionColumns(rows, "Change", (each) => changeIn({ ...row, ...each }, "impressions")),
      share,
      ...RATES,
      column.number("Paid CPM", "paid_cpm", "price", { width: 92 }),
      column.number("Per paid engagement", "ad_spend_per_engagement", "price", {
        short: "Per paid eng.",
        width: 112,
      }),
      column.csv("Organic impressions", (each) => each.organic_impressions),
      column.csv("Paid impressions", (each) => each.paid_impressions),
    ],
    rows,
    { isFixed: true, isLong: true, isLean: true, note: "each row by itself: networks count impressions differently" },
  );
}

// Folded: compared with Later's own page, and all creators.

// By figure: its name, and the format of its values.
const COMPARED = {
  organic_impressions: ["Organic impressions", "whole"],
  paid_impressions: ["Paid impressions", "whole"],
  organic_engagements: ["Organic engagements", "whole"],
  paid_engagements: ["Paid engagements", "whole"],
  posts: ["Posts with results", "whole"],
  paid_posts: ["Posts with paid impressions", "whole"],
  ad_spend: ["Ad spend", "price"],
  organic_engagement_rate: ["Organic engagement rate", "percent"],
  paid_engagement_rate: ["Paid engagement rate", "percent"],
  paid_cpm: ["Paid CPM", "price"],
  ad_spend_per_engagement: ["Cost per paid engagement", "price"],
  content_cost: ["Creators’ cost", "money"],
  content_cost_per_engagement: ["Content cost per organic engagement", "price"],
};

function showLater() {
  const rows = chosenRows(comparisons);
  const equal = rows.filter(({ is_equal: isEqual }) => isEqual).length;
  const name = ({ figure: id }) => COMPARED[id][0];
  const value = (label, key) => ({
    label,
    csv: { [label]: (row) => row[key] },
    cell: (row) => cell(label, figure(row[key], COMPARED[row.figure][1])),
  });
  const differ = rows.length - equal;
  byId("later-note").textContent = !rows.length
    ? ""
    : `${withUnit(equal, "figure is equal", "figures are equal")}, ${differ ? `${differ} differ, and why` : "none differs"}`;
  fillTable(
    "later",
    [
      column.name("Figure", name, (row) => rowHeading(name(row))),
      value("Here", "here"),
      value("Later", "later"),
      {
        label: "Why they differ",
        isText: true,
        csv: { "Why they differ": (row) => row.why },
        cell: (row) =>
          make("td", { class: "why", role: "cell", "data-label": "Why" }, row.why ?? span("muted", "Equal")),
      },
    ],
    rows,
    { isFixed: true, isLong: true, empty: "Later’s own totals of these days are not in the lake." },
  );
}

function showCreators() {
  byId("creators").closest("details").hidden = filters.campaign !== null;
  const rows = creators.filter((row) => row.time_window === filters.window && isChosen(row.instance));
  byId("creators-note").textContent = rows.length
    ? `the ${report.most_creators} of highest rank, and the ${report.most_creators} of most impressions`
    : "";
  fillTable(
    "creators",
    [
      ...creatorColumns(),
      column.number("Posts", "posts"),
      column.number("Organic impressions", "organic_impressions"),
      column.number("Paid impressions", "paid_impressions"),
      ...RATES,
      column.number("Median rank", "median_percentile", "rank"),
    ],
    rows,
    {},
  );
}

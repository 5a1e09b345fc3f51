"use strict";
// Shows the results for the chosen filters.

// Headline and key figures.

// Each row: its label and its cells (organic, paid, both), which are a measure, its format, and a text below it.
const KPIS = [
  ["Impressions", ["organic_impressions", "headline"], ["paid_impressions", "headline"],
    ["paid_share_of_impressions", "share", "paid share"]],
  ["Engagements", ["organic_engagements", "headline"], ["paid_engagements", "headline"],
    ["paid_share_of_engagements", "share", "paid share"]],
  ["Engagements per 100 impressions", ["organic_engagement_rate", "percent"], ["paid_engagement_rate", "percent"],
    ["rate_ratio", "ratio", "paid / organic"]],
  ["Ad spend", [], ["ad_spend", "money"], ["ad_spend_per_engagement", "money", "per paid engagement"]],
  ["Return on ad spend", [], ["return_on_ad_spend", "ratio"], []],
];
const ALWAYS_SHOWN = 3;

/** Returns what each channel brought, for how much, and both rates, in words. */
function headline(row) {
  const value = (name, format) => figure(row[name], format);
  if (!row.paid_impressions && !row.paid_engagements) {
    const rate = row.organic_engagement_rate == null
      ? [] : [", ", value("organic_engagement_rate", "rate"), " per 100 impressions"];
    return ["No paid results in this period. Organic posts brought ", value("organic_impressions", "headline"),
      " impressions and ", value("organic_engagements", "headline"), " engagements", ...rate, "."];
  }
  const hasNoShare = row.paid_share_of_impressions == null && row.paid_share_of_engagements == null;
  const number = (measure) => (hasNoShare
    ? [value(`paid_${measure}`, "headline"), ` ${measure}`]
    : [value(`paid_share_of_${measure}`, "share"), ` of ${measure}`]);
  const brought = ["Ads brought ", ...number("impressions"), " and ", ...number("engagements")];
  return [...brought, ...spendInWords(row), ".", ...ratesInWords(row)];
}

function spendInWords(row) {
  if (row.ad_spend == null) return [];
  const cost = row.ad_spend_per_engagement;
  const price = cost == null ? [] : [" (", figure(cost, "money"), " per engagement)"];
  return [" for ", figure(row.ad_spend, "money"), " of ad spend", ...price];
}

function ratesInWords(row) {
  const known = [["ads ", row.paid_engagement_rate], ["organic ", row.organic_engagement_rate]]
    .filter(([, rate]) => rate != null);
  const rates = known.flatMap(([channel, rate], index) =>
    [index ? ", " : " Per 100 impressions: ", channel, figure(rate, "rate"), index ? "" : " engagements"]);
  return rates.length ? [...rates, "."] : [];
}

function showKpis(row) {
  byId("headline").replaceChildren(...headline(row));
  const reason = withheld(row);
  const kpi = ([name, format, what]) => cell(...(name ? [
    make("span", { class: "value", id: `figure-${name}` }, figure(row[name], format, reason)),
    ...(what ? [make("span", { class: "what" }, what)] : []),
    make("span", { class: "change", id: `change-${name}` }, change(row, name, format)),
  ] : []));
  const isShown = ([, ...cells], index) => index < ALWAYS_SHOWN || reason || cells.some(([name]) => row[name] != null);
  byId("kpis").replaceChildren(...KPIS.filter(isShown).map(([label, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, label), ...cells.map(kpi))));
  byId("basis").replaceChildren("Rates and costs per engagement: of posts that report both.", ...basisOfSpend(row));
  byId("compared").textContent = whatIsCompared(row);
}

/** Returns the lines of the CSV file of the key figures. */
function keyFigures() {
  const row = chosen(figures);
  const measures = KPIS.flatMap(([, ...cells]) => cells.flatMap(([name]) => name ?? []));
  const names = [...measures, "same_post_rate_ratio", "same_posts"];
  return [["measure", "value", "previous"], ...names.map((name) => [name, row[name], row[`previous_${name}`]])];
}

/** Returns what the ad spend is, and how exact. */
function basisOfSpend(row) {
  if (withheld(row)) return [` Ad spend and return are left out: ${withheld(row)}.`];
  if (row.ad_spend == null) return [];
  if (filters.campaign !== null) return [" Ad spend and return are Later's own totals of the campaign in the period."];
  const uncertainty = row.ad_spend_uncertainty;
  const range = uncertainty == null ? [] : [", ±\u00a0", figure(uncertainty, "percent")];
  return [" Ad spend: of posts, from unit costs", ...range, "."];
}

/** Returns which days the changes are against, or why none are shown. */
function whatIsCompared(row) {
  if (row.days == null) return "";
  const { first, last } = before(row);
  const what = hasSameLength(row) ? "Changes" : "Changes of rates only, because months differ in length";
  if (isComparable(row)) return `${what}: against ${daysOf(last, first)}.`;
  const lacking = [[row.days, row.days_expected, "days"], [row.previous_days, lengthOf(before(row)), "days before"]]
    .filter(([days, expected]) => days < expected)
    .map(([days, expected, which]) => `${days} of the ${expected} ${which}`);
  return `No changes are shown: there are only ${lacking.join(" and ")}.`;
}

/** Returns the change from the previous period: of a rate in points, of anything else in percent. */
function change(row, name, format) {
  const [now, previous] = [row[name], row[`previous_${name}`]];
  const isRate = format === "percent";
  if (!isComparable(row) || !(isRate || hasSameLength(row))) return "";
  if (now == null || previous == null || (!isRate && !previous)) return "";
  const difference = isRate ? now - previous : (100 * (now - previous)) / previous;
  const size = (isRate ? decimal : tenth).format(Math.abs(difference));
  const sign = Number(size) === 0 ? "±" : difference > 0 ? "+" : "−";
  return `${sign}${size}${isRate ? " points" : "\u00a0%"}`;
}

// Over time.

const DAYS_PER_POINT = 7;  // of a picture of more than LONGEST_BY_DAY days
const LONGEST_BY_DAY = 90;
const [METRICS_TABLE] = Object.keys(report.tables);

/** Returns the days or weeks of the period, oldest first: counts, rates, and the instances that lack a file. */
function points() {
  const { first, last } = period();
  const step = lengthOf(period()) > LONGEST_BY_DAY ? DAYS_PER_POINT : 1;
  const rows = (dailyByScope.get(`${chosenInstance()}/${filters.campaign}`) ?? []).filter(({ age }) => isInPeriod(age));
  const byPoint = groupedBy(rows, ({ age }) => Math.floor((age - last) / step));
  const absent = report.missing.filter(({ table, instance }) => table === METRICS_TABLE && isChosen(instance));
  const days = Math.min(first, report.oldest_age) - last + 1;
  return Array.from({ length: Math.max(1, Math.floor(days / step)) }, (_, index) => {
    const age = last + index * step;
    const lacking = absent.filter(({ ages }) => ages.some(([to, from]) => to < age + step && age <= from));
    const results = CHANNELS.map((channel) => resultsOf(byPoint.get(index) ?? [], channel));
    const missing = lacking.map(({ instance }) => report.instances[instance]);
    return { age, days: step, missing, ...results[0], ...results[1] };
  }).reverse();
}

/** Returns the counts and the rate of a channel over days; null if no day has any. */
function resultsOf(days, channel) {
  const add = (total, value) => (value == null ? total : (total ?? 0) + value);
  const total = (name) => days.map((row) => row[`${channel}_${name}`]).reduce(add, null);
  const impressions = total("rate_impressions");
  return {
    [`${channel}_impressions`]: total("impressions"), [`${channel}_engagements`]: total("engagements"),
    [`${channel}_engagement_rate`]: impressions > 0 ? (100 * total("rate_engagements")) / impressions : null,
  };
}

const datesOf = ({ age, days }) => daysOf(age, age + days - 1);

function showTime() {
  const shown = points();
  const unit = shown[0].days === 1 ? "day" : "week";
  drawLines("impressions", "impressions", shown, unit, ["impressions", "count", 210]);
  drawLines("rates", "engagements per 100 impressions", shown, unit, ["engagement_rate", "percent", 170]);
  document.querySelector(".each").textContent = `by ${unit}`;
  byId("incomplete-key").hidden = !shown.some((point) => point.missing.length);
  const measures = [["impressions", "count"], ["engagements", "count"], ["engagement_rate", "percent"]];
  const columns = measures.flatMap(([measure, format]) => ["Organic", "Paid"].map((channel) => {
    const label = `${channel} ${measure === "engagement_rate" ? "rate" : measure}`;
    return column.number(label, `${channel.toLowerCase()}_${measure}`, format);
  }));
  fillTable("days", [
    column.name(unit === "day" ? "Day (UTC)" : "Week (UTC)", datesOf), ...columns,
    column.text("Missing", (point) => (point.missing.length ? listed(point.missing, "instance", "instances") : null)),
  ], [...shown].reverse(), { limit: Infinity });
}

function drawLines(name, what, shown, unit, [measure, format, height]) {
  const values = shown.map((point) => {
    const [organic, paid] = CHANNELS.map((channel) => point[`${channel}_${measure}`]);
    const numbers = `organic ${formatted(organic, format)}, paid ${formatted(paid, format)}`;
    const time = NEWEST - point.age * DAY;
    return { time, organic, paid, isIncomplete: point.missing.length > 0, tooltip: `${datesOf(point)}: ${numbers}` };
  });
  const hasData = values.some(({ organic, paid }) => organic !== null || paid !== null);
  const description = `Line chart of organic and paid ${what}, by ${unit}. The numbers are in the table over time.`;
  draw(name, hasData, description, (width) => lineChart(values, width, height));
}

// Networks, campaigns, posts and creators.

const DRAWN_NETWORKS = 8;
const RESULTS = [
  column.number("Posts", "posts"),
  column.number("Organic impressions", "organic_impressions"), column.number("Paid impressions", "paid_impressions"),
  column.number("Organic rate", "organic_engagement_rate", "percent"),
  column.number("Paid rate", "paid_engagement_rate", "percent"),
  column.number("Rate ratio", "rate_ratio", "ratio"),
];

function showNetworks() {
  const isNetwork = (row) => row.kind === "platform";
  const rows = partsOf(filters.window, filters.campaign);
  const [networks, types] = [rows.filter(isNetwork), rows.filter((row) => !isNetwork(row))];
  const groups = networks.slice(0, DRAWN_NETWORKS).map((row) => ({
    name: readable(row.platform), bars: CHANNELS.map((channel) => barOf(row, channel)),
  }));
  const description = "Bar chart of organic and paid engagements per 100 impressions by network. The numbers are in"
    + " the table below.";
  draw("network_rates", groups.length > 0, description, () => barChart(groups));
  const isCut = networks.length > DRAWN_NETWORKS;
  byId("drawn").textContent = isCut ? `The ${DRAWN_NETWORKS} with the most impressions are drawn.` : "";
  const ordered = networks.flatMap((row) => [row, ...types.filter((type) => type.platform === row.platform)]);
  fillTable("parts", [
    column.name("Network, content type", (row) => readable(isNetwork(row) ? row.platform : row.content_type)),
    ...RESULTS,
    ...more(
      column.number("Same-post rate ratio", "same_post_rate_ratio", "ratio"),
      column.number("Posts with both rates", "same_posts"),
    ),
  ], ordered, { limit: Infinity, kind: (row) => (isNetwork(row) ? "of-platform" : "of-type") });
}

/** Returns the bar of a rate, with the number of posts that it has, or of a campaign, of impressions. */
function barOf(row, channel) {
  const value = row[`${channel}_engagement_rate`];
  const unit = row.campaign === null ? "post" : "impression";
  const number = row[`${channel}_rate_${unit}s`];
  const rate = formatted(value, "percent");
  const label = value === null ? "–" : `${rate} · ${short.format(number)} ${unit}${number === 1 ? "" : "s"}`;
  const of = value === null ? "" : ` of ${withUnit(number, unit)}`;
  return { channel, value, label, tooltip: `${readable(row.platform)}, ${channel}: ${rate}${of}` };
}

/** Returns the row below the campaigns, in which a post of several counts once, as in the headline. */
const postsOnce = (table) => (filters.campaign === null ? [{ ...chosen(table), label: "Posts once" }] : []);

/** Returns the row of what Later totals for the chosen instance, or for all, if the lake has it. */
function account() {
  const row = lookUp(accounts, filters.instance, undefined);
  const isShown = filters.campaign === null && row.totals_last_age != null;
  return isShown ? [{ ...row, label: "Account, as Later totals it" }] : [];
}

function showCampaigns() {
  byId("withheld").replaceChildren(...totalsLines().flatMap((line) => [...line, " "]));
  const rows = ofCampaigns(figures).map((row) => ({ ...row, status: report.campaigns[row.campaign][3] }));
  fillTable("campaigns", [
    column.name("Campaign", (row) => row.label ?? campaignName(row.campaign)),
    column.number("Ad spend", "ad_spend", "money", withheld),
    column.number("Return on ad spend", "return_on_ad_spend", "ratio", withheld),
    column.number("Reach", "reach", "count", withheld),
    ...RESULTS.slice(1, 5), column.number("Conversions by links", "tracking_links_conversions", "count", withheld),
    ...more(
      column.text("Status", (row) => row.status), RESULTS[0],
      column.number("Ad spend per engagement", "ad_spend_per_engagement", "money"),
      column.number("Paid clicks", "paid_clicks", "count", withheld), RESULTS[5],
    ),
  ], rows.filter((row) => row.posts || row.ad_spend != null), {
    foot: [...postsOnce(figures), ...account()],
  });
}

function showPublished() {
  const row = chosen(published);
  const uncertainty = make("span", { class: "detail" }, "±\u00a0", figure(row.content_cost_uncertainty, "percent"));
  const value = (name, format) => make("span", { id: `figure-${name}` }, figure(row[name], format));
  const shown = [
    ["Posts published", value("published_posts", "count")],
    ["Content cost so far", value("content_cost", "money"), ...(row.content_cost == null ? [] : [uncertainty])],
    ["Posts of unknown cost, not in it", value("posts_of_unknown_cost", "count")],
    ["Content cost per organic engagement of posts with a known cost", value("content_cost_per_engagement", "money")],
  ];
  byId("published-figures").replaceChildren(
    ...shown.map(([label, ...values]) => make("div", {}, make("dt", {}, label), make("dd", {}, ...values))));
  fillTable("published", [
    column.name("Campaign", (each) => each.label ?? campaignName(each.campaign)),
    column.number("Posts published", "published_posts"),
    column.number("Content cost so far", "content_cost", "money"),
    column.number("Posts of unknown cost", "posts_of_unknown_cost"),
    column.number("Content cost per organic engagement", "content_cost_per_engagement", "money"),
  ], ofCampaigns(published).sort((left, right) => descending(left.content_cost, right.content_cost)), {
    foot: postsOnce(published),
  });
}

function showPosts() {
  const kind = (row) => readable(row.content_type ?? row.platform);
  const name = (row) => `${row.name ?? `Post ${row.post_id}`} · ${kind(row)}${ofInstance(row.instance)}`;
  const rank = (value) =>
    value === 100 ? ["above\u00a0all\u00a0peers"] : ["above\u00a0", figure(value, "rank"), "\u00a0of\u00a0peers"];
  const percentile = (label, measure, format) => column.pair(label, measure, format, `${measure}_percentile`, rank);
  const isShown = ({ instance, campaigns }) =>
    isChosen(instance) && (filters.campaign === null || campaigns.includes(filters.campaign));
  fillTable("boost", [
    column.name("Post", name, (row) => row.link), column.text("Published", (row) => dayOf(row.age), "date"),
    percentile("Organic impressions", "organic_impressions", "count"),
    percentile("Organic rate", "organic_engagement_rate", "percent"), column.number("Peers", "peers"),
  ], posts.filter(isShown), { empty: "None, or fewer than 20 posts to compare with.", limit: 5 });
}

function showCreators() {
  const unnamed = (id) => (id === null ? "Unknown creator" : `Creator ${id}`);
  const name = (row) => (row.name ?? row.handle ?? unnamed(row.creator_id)) + ofInstance(row.instance);
  const known = inWindow(creators);
  const shown = known.filter((row) => row.posts >= Number(byId("least-posts").value));
  const { creators: all = 0 } = lookUp(figures, chosenInstance(), null);
  const isCut = known.length < all;
  byId("creators-shown").textContent = `${whole.format(shown.length)} of ${withUnit(all, "creator")} are listed.`
    + (isCut ? ` The page has the ${report.most_creators} with the most impressions of each instance.` : "");
  fillTable("creators", [
    column.name("Creator", name, (row) => row.link), column.text("Handle", (row) => row.handle, "handle"), ...RESULTS,
  ], shown, { empty: "None with so many posts." });
}

// The page.

const OPTION_LENGTH = 60;  // of a campaign's name in the filter

/** Shows everything for the chosen filters, and returns what a screen reader says. */
function show() {
  const row = chosen(figures);
  const { label, first, last } = period();
  const days = lengthOf(period());
  byId("dates").textContent = daysOf(last, first) + (row.days < days ? `: data of ${row.days} of ${days} days` : "");
  byId("of-instance").hidden = filters.campaign === null;
  showKpis(row);
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

function setOptions(id, options, chosenValue) {
  byId(id).replaceChildren(...options.map(([value, label]) => {
    const option = make("option", { value: String(value) }, label);
    option.selected = value === chosenValue;
    return option;
  }));
}

/** Offers the campaigns of the chosen instance, or of all instances. */
function setCampaignOptions() {
  const isOffered = (campaign) => [null, instanceOf(campaign)].includes(filters.instance);
  const options = report.campaigns.map((_, index) => index).filter(isOffered);
  if (!options.includes(filters.campaign)) filters.campaign = null;
  const labelled = options.map((index) => [index, campaignName(index, OPTION_LENGTH)]);
  setOptions("campaign", [["", "All"], ...labelled], filters.campaign ?? "");
}

function choose() {
  const numberOrNull = (text) => (text === "" ? null : Number(text));
  filters.window = byId("period").value;
  filters.instance = numberOrNull(byId("instance").value);
  filters.campaign = numberOrNull(byId("campaign").value);
  setCampaignOptions();
  byId("announcement").textContent = show();
}

function press(event) {
  const { csv, sort, table, all, more: wide } = event.target.closest("button")?.dataset ?? {};
  if (csv) {
    const lines = csv === "kpis" ? keyFigures() : csvLines(tables.get(csv));
    download(`organic-paid-${csv}-${report.as_of}-${filters.window}.csv`, lines);
  }
  if (all) changeTable(all, ({ isWhole }) => ({ isWhole: !isWhole }));
  if (wide) changeTable(wide, ({ isWide }) => ({ isWide: !isWide }));
  if (sort) {
    changeTable(table, (state) => ({ sort, ascending: state.sort === sort && !state.ascending }));
    document.querySelector(`[data-table="${table}"][data-sort="${sort}"]`).focus();
  }
}

setOptions("period", Object.entries(report.windows).map(([name, { label }]) => [name, label]), filters.window);
setOptions("instance", [["", "All"], ...report.instances.map((name, index) => [index, name])], "");
setCampaignOptions();
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("change", choose);
byId("least-posts").addEventListener("change", showCreators);
document.addEventListener("click", press);
show();

"use strict";
// What the marks explain. "How to read this" has all of it, for print, too.

const ABOUT = {
  cost:
    "Ads: spent on the days of the period, each post once. Creators: what the posts published in the period cost, as" +
    " far as it is known. A post of unknown cost adds nothing, so this is the least that was spent. Last month has" +
    " Later’s total of its campaigns, in which a post of several campaigns counts in each. The small line: ads by day," +
    " dotted in the period before.",
  impressions:
    "Recorded on the days of the period, by posts of any age. Paid CPM: ad spend per 1,000 paid impressions, of" +
    " posts that have both.",
  engagements: "Recorded on the days of the period, by posts of any age.",
  each: (row) =>
    `Content cost per organic engagement of the ${whole.format(row.content_cost_per_engagement_posts ?? 0)} posts` +
    " published in the period that are at least 14 days old and of known cost: younger posts are too young to compare." +
    " Ad spend per paid engagement of posts that have both.",
  rate:
    "Engagements per 100 impressions, of posts that report both. Ads reach other people than organic posts do: the" +
    " difference is no effect of paying.",
  return:
    "As Later states it, rounded: revenue per USD of ad spend. The API does not say which revenue it counts: it is" +
    " not links plus affiliate sales.",
  campaigns: (against) =>
    "Recorded on the days of the period; creators’ cost is of the posts published in it, as far as it is" +
    ` known. ${against}Ads: of the posts. Return: as Later states it. A post of several campaigns counts in each.`,
  once: "A post of several campaigns counts in each of them, and here once: the rows add up to more.",
  book:
    "Rank: the median of the creator’s posts, each by engagement rate among posts of the same network, type and age: 86" +
    " is above 86 of 100. At least 5 ranked posts; each dot is one. Cost per engagement only where all costs are" +
    " known; it never sorts.",
  boost:
    "Above three quarters of posts of the same network, type and age (peers), by impressions and by rate. A part of it" +
    " is luck: such posts fall back afterwards, boosted or not. Stories and Facebook groups are left out.",
  months:
    "Impressions, engagements and ads: recorded in the month. Creators: what Later totals for its campaigns, of the" +
    " posts published in the month, so far. It has posts whose own cost is not known, and counts a post of several" +
    " campaigns in each. A month that is not whole has no change.",
  networks:
    "Rates: engagements per 100 impressions, of posts that report both. CPM and cost per engagement: of posts that" +
    " have both parts. Networks count impressions differently, so no network is compared with another. Ads: of posts whose" +
    " spend is known. Spend comes from Meta’s ad accounts alone, as far as known, so paid posts of TikTok and YouTube" +
    " without it are normal: there, ads are the least that was spent.",
};

const READING = [
  ["Cost", ABOUT.cost],
  [
    "Impressions and engagements",
    `${ABOUT.impressions} A dash means that no post reports a number; 0 is a measured zero.`,
  ],
  [
    "Engagement rate",
    `${ABOUT.rate} A rate is computed from totals; it is never an average of rates. To find out what` +
      " paying changes, boost a random half of the posts that you would boost.",
  ],
  ["Return on ad spend", ABOUT.return],
  [
    "Clicks",
    "Cost per click and click rate stand with a campaign that has clicks. For an account there are none: only the" +
      " campaigns that link to a shop report clicks, and their spend and impressions are not those of the account.",
  ],
  [
    "Changes",
    "A period is compared with the same number of days before it, this month with the same first days of the month" +
      " before. Last month is compared per day, because months differ in length. There is no change unless all days of both" +
      " periods are there.",
  ],
  ["Campaigns", `${ABOUT.campaigns("")} ${ABOUT.once} Ads follow from the paid unit costs of posts.`],
  ["Creators to book again", ABOUT.book],
  ["Posts to boost", ABOUT.boost],
  ["Months", ABOUT.months],
  ["Networks", ABOUT.networks],
];

function showExplanations() {
  byId("explanations").replaceChildren(
    ...READING.flatMap(([title, text]) => [make("h3", {}, title), make("p", {}, text)]),
  );
}

"use strict";
// What is missing in the chosen period, and what the lake has received.

const SHOWN_FACTS = 4;

/** Returns the missing days of the period: ranges of ages, with the tables and the instances that lack them. */
function gaps() {
  const missing = report.missing
    .filter(({ instance }) => instance === null || isChosen(instance))
    .map((file) => ({ ...file, ranges: inPeriod(file.ages) }))
    .filter(({ ranges }) => ranges.length);
  const byInstance = groupedBy(missing, ({ instance, ranges }) => JSON.stringify([instance, ranges]));
  const ofInstances = [...byInstance.values()].map((files) => ({
    ...files[0],
    tables: files.map(({ table }) => table),
  }));
  const alike = groupedBy(ofInstances, ({ ranges, tables: names }) => JSON.stringify([ranges, names]));
  return [...alike.values()].map((found) => ({ ...found[0], instances: found.map(({ instance }) => instance) }));
}

// A fact is what is missing, which is bold, and what follows from it.

function gapFact({ ranges, tables: names, instances: affected }) {
  const days = ranges.map(([to, from]) => daysOf(to, from)).reverse();
  const isOne = ranges.length === 1 && ranges[0][0] === ranges[0][1];
  const isAll = affected.length > 1 && affected.length === instances().length;
  const who =
    affected[0] === null
      ? ""
      : ` of ${
          isAll
            ? `all ${affected.length} instances`
            : listed(
                affected.map((index) => isolated(labelOf(index))),
                "instance",
                "instances",
              )
        }`;
  const what = names.map((name) => report.tables[name]).join(", ");
  return [`${listed(days, "gap", "gaps")}${who} ${isOne ? "is" : "are"} missing.`, capitalized(what), "."];
}

function quarantined() {
  const names = new Set(instances().map((index) => report.instances[index]));
  return report.quarantined.filter(
    ({ age, instance }) => (age === null || isInPeriod(age)) && (instance === null || names.has(instance)),
  );
}

function quarantineFacts() {
  return [...groupedBy(quarantined(), ({ instance }) => instance)].map(([instance, members]) => {
    const rows = sumOf(members.map((member) => member.rows));
    const reasons = [...new Set(members.map(({ reason }) => reason))];
    const others = reasons.length > 1 ? `, and ${withUnit(reasons.length - 1, "other reason")}` : "";
    const index = report.instances.indexOf(instance);
    const whose = instance === null ? "an unknown instance" : isolated(index < 0 ? instance : labelOf(index));
    return [
      `${withUnit(rows, "row")} of ${whose} ${rows === 1 ? "is" : "are"} invalid and not counted.`,
      make("bdi", {}, capitalized(shortened(reasons[0]))),
      `${others}.`,
    ];
  });
}

/** Returns that costs of posts are not known yet, or that Later's total of the month still rises. */
function costFacts(row) {
  const [published, known] = [row.published_posts ?? 0, row.posts_of_known_cost ?? 0];
  if (row.content_cost_total != null) {
    const total = row.content_cost_total_posts;
    const each =
      row.content_cost == null
        ? ""
        : ` Each once, ${whole.format(known)} of ${whole.format(published)} are known, ${formats.money(row.content_cost)}.`;
    return [
      [
        `Creators’ cost of ${monthOf(period().first)} still rises.`,
        `Later’s total counts a post of several campaigns in each: ${withUnit(total, "post")}, where ${whole.format(published)}` +
          ` ${published === 1 ? "was" : "were"} published.${each}`,
      ],
    ];
  }
  if (known === published) return [];
  const unknownBefore = (row.previous_published_posts ?? 0) - (row.previous_posts_of_known_cost ?? 0);
  const earlier =
    row.comparison && unknownBefore
      ? `, and is not compared: of the ${isMonth() ? "" : `${lengthOf(before(row))} `}days before,` +
        ` ${whole.format(unknownBefore)} of ${whole.format(row.previous_published_posts)} are still unknown`
      : "";
  return [
    [
      `The cost of ${whole.format(published - known)} of ${withUnit(published, "post")} is not known yet.`,
      `So what creators cost is the least it can be${earlier}.`,
    ],
  ];
}

/** Returns a fact for each reason why Later's totals of campaigns are withheld. */
function totalsFacts() {
  const byReason = groupedBy(
    ofCampaigns().filter((row) => row.withheld),
    (row) => row.withheld,
  );
  return [...byReason].map(([reason, rows]) => [
    `Return of ${withUnit(rows.length, "campaign")} is left out.`,
    `${capitalized(reason)}.`,
  ]);
}

/** Returns when the data begin, if that is in the period. */
function beginFacts(row) {
  const days = lengthOf(period());
  const isLonger = report.oldest_age !== null && row.days < days && report.oldest_age < period().first;
  return isLonger
    ? [[`The data begin on ${dayOf(report.oldest_age)}.`, `The period has ${row.days} of ${days} days.`]]
    : [];
}

/** Returns the networks of which no post reports impressions, or none any more. */
function silentFacts() {
  const found = instances().flatMap((instance) => rowsAt(silent, instance, null));
  return [...groupedBy(found, ({ platform, kind }) => `${kind}/${platform}`).values()].map((rows) => {
    const [{ platform, kind }] = rows;
    const number = withUnit(sumOf(rows.map((row) => row.posts)), "post");
    const whose =
      rows.length === instances().length
        ? ""
        : ` of ${listed(
            rows.map((row) => isolated(labelOf(row.instance))),
            "instance",
            "instances",
          )}`;
    return kind === "stopped"
      ? [
          `No post of ${readable(platform)}${whose} has reported impressions in the last 7 days.`,
          `${number} did before.`,
        ]
      : [`No post of ${readable(platform)}${whose} reports impressions.`, `${number} without a rate.`];
  });
}

/** Returns the networks whose newest posts are older than those of others, with their days. */
function lateNetworks() {
  const newest = groupedBy(
    newestPosts.filter(({ instance }) => isChosen(instance)),
    ({ platform }) => platform,
  );
  const ages = [...newest].map(([platform, rows]) => [platform, Math.min(...rows.map((row) => row.newest_age))]);
  const least = Math.min(...ages.map(([, age]) => age));
  return ages.filter(([, age]) => age > least).map(([platform, age]) => `${readable(platform)} to ${shortDay(age)}`);
}

/** Returns what the lake has, in a line: days, networks, and posts that report impressions. */
function coverage(row) {
  const parts = [];
  if (!gaps().length && row.days === row.days_expected) {
    parts.push(
      chosenInstance() === null && !isOneInstance() ? "All days of all instances are there." : "All days are there.",
    );
  }
  const late = filters.campaign === null && !period().last ? lateNetworks() : [];
  if (late.length)
    parts.push(`Posts are there of ${listed(late, "network", "networks")}; those of other networks are newer.`);
  if (row.posts) {
    const [organic, paid] = [row.organic_impressions_posts ?? 0, row.paid_posts ?? 0].map((number) =>
      whole.format(number),
    );
    parts.push(
      `Of ${withUnit(row.posts, "post")} with results, ${organic} report organic impressions, and ${paid} have paid ones.`,
    );
  }
  return parts.join(" ");
}

/** Shows what is missing, and returns how many facts that are. */
function showMissing(row) {
  const facts = [
    ...gaps().map(gapFact),
    ...report.outdated.map((text) => [text]),
    ...costFacts(row),
    ...totalsFacts(),
    ...silentFacts(),
    ...quarantineFacts(),
    ...beginFacts(row),
  ];
  const line = ([fact, ...what]) => make("p", {}, bold(fact), " ", ...what);
  const shown = facts.slice(0, SHOWN_FACTS).map(line);
  const hidden = facts.slice(SHOWN_FACTS);
  const more = hidden.length
    ? [make("p", {}, make("a", { href: "#received-part" }, `and ${hidden.length} more`))]
    : [];
  const nothing = facts.length ? [] : [make("p", {}, "Nothing is missing.")];
  const box = byId("missing");
  box.className = facts.length ? "missing" : "missing good";
  const icon = make("span", { class: "icon", "aria-hidden": "true" }, facts.length ? "!" : "✓");
  box.replaceChildren(icon, ...nothing, ...shown, ...more, make("p", { class: "aside" }, coverage(row)));
  byId("all-missing").replaceChildren(...hidden.map((fact) => make("li", {}, ...line(fact).childNodes)));
  return facts.length;
}

/** Returns when the newest file was fetched. */
function fetchedAt() {
  const [day, time] = report.fetched_at.split("T");
  return `${dayOf((NEWEST - Date.parse(`${day}T00:00:00Z`)) / DAY)}, ${time.slice(0, 5)} UTC`;
}

function showReceived() {
  const tableNames = Object.keys(report.tables);
  // Not the days after the newest one, which `Days expected` does not count either.
  const length = ([to, from]) => Math.max(0, from - Math.max(0, to) + 1);
  const missing = (table, instance) =>
    sumOf(
      gaps()
        .filter((gap) => gap.tables.includes(table) && gap.instances.includes(instance))
        .flatMap((gap) => gap.ranges)
        .map(length),
    ) ?? 0;
  const rows = instances().map((instance) => ({
    instance,
    days: 0,
    ...lookUp(results, instance, null),
    rows:
      sumOf(
        quarantined()
          .filter((each) => each.instance === report.instances[instance])
          .map((each) => each.rows),
      ) ?? 0,
    ...Object.fromEntries(tableNames.map((table) => [table, missing(table, instance)])),
  }));
  const isComplete = rows.every((row) => row.days === row.days_expected && !tableNames.some((table) => row[table]));
  const fetched = report.fetched_at ? [`fetched ${fetchedAt()}`] : [];
  byId("received-note").textContent = [
    withUnit(rows.length, "instance"),
    isComplete ? "complete" : "not complete",
    ...fetched,
  ].join(", ");
  fillTable(
    "received",
    [
      {
        ...column.name(
          "Instance",
          (row) => labelOf(row.instance),
          (row) => rowHeading(isolated(labelOf(row.instance))),
        ),
        csv: {},
      },
      ...instanceColumns(),
      column.number("Days of results", "days"),
      column.number("Days expected", "days_expected"),
      ...tableNames.slice(0, 2).map((table) => column.number(`Missing ${report.tables[table]}`, table)),
      column.number("Invalid rows", "rows"),
    ],
    rows,
    { isLong: true, isFixed: true },
  );
}

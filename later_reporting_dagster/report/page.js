"use strict";
// Shows everything for the chosen filters.

const OPTION_LENGTH = 60; // of a campaign's name in the filter

/** Shows everything for the chosen filters, and returns what a screen reader says. */
function show() {
  const row = chosen(results);
  showTitle(row);
  byId("sentence").replaceChildren(...sentence(row));
  showCards(row);
  const missing = showMissing(row);
  showTime(row);
  showCampaigns(row);
  showBook();
  showBoost();
  showMonths();
  showNetworks(row);
  showLater();
  showCreators();
  showDays(row);
  showReceived();
  const facts = missing ? withUnit(missing, "entry", "entries") : "nothing";
  return `${period().label}, ${selection()}: ${byId("sentence").textContent} What is missing: ${facts}.`;
}

function setOptions(id, options, chosenValue) {
  byId(id).replaceChildren(
    ...options.map(([value, label]) => {
      const option = make("option", { value: String(value) }, label);
      option.selected = value === chosenValue;
      return option;
    }),
  );
}

/** Shows the selection in the filters: campaigns of the chosen instance, or of all instances. */
function setFilters() {
  const isOffered = (campaign) => [null, instanceOf(campaign)].includes(filters.instance);
  const campaigns = report.campaigns.map((_, index) => index).filter(isOffered);
  if (!campaigns.includes(filters.campaign)) filters.campaign = null;
  const nameOf = (index) => {
    const [, id, name] = report.campaigns[index];
    return name === null ? String(id) : `${shortened(isolated(name), OPTION_LENGTH)} (${campaignDetail(index)})`;
  };
  setOptions(
    "period",
    Object.entries(report.windows).map(([name, { label }]) => [name, label]),
    filters.window,
  );
  const all = isOneInstance() ? [] : [["", `All ${report.instances.length}`]];
  setOptions(
    "instance",
    [...all, ...report.instances.map((_, index) => [index, isolated(labelOf(index))])],
    filters.instance ?? "",
  );
  byId("instance").disabled = isOneInstance();
  const every = campaigns.length ? `All ${whole.format(campaigns.length)}` : "None";
  setOptions("campaign", [["", every], ...campaigns.map((index) => [index, nameOf(index)])], filters.campaign ?? "");
}

/** Follows a change of the filters, and writes it into the address, so that it can be sent and gone back to. */
function choose() {
  const numberOrNull = (text) => (text === "" ? null : Number(text));
  filters.window = byId("period").value;
  filters.instance = isOneInstance() ? null : numberOrNull(byId("instance").value);
  filters.campaign = numberOrNull(byId("campaign").value);
  setFilters();
  history.pushState(null, "", fragmentOf(filters));
  byId("announcement").textContent = show();
}

/** Follows a change of the address: a link, or going back. */
function follow() {
  if (document.querySelector("details[id]")?.id === location.hash.slice(1)) return;
  readAddress();
  setFilters();
  byId("announcement").textContent = show();
}

function press({ target }) {
  const { csv, sort, table, all, fold } = target.closest("button")?.dataset ?? {};
  if (csv) {
    const demo = report.is_demo ? "demo-" : "";
    const lines = csv === "figures" ? figureLines(chosen(results)) : csvLines(tables.get(csv));
    download(`${demo}organic-paid-${csv}-${report.as_of}-${filters.window}.csv`, lines);
  }
  if (all) changeTable(all, ({ isWhole }) => ({ isWhole: !isWhole }));
  if (fold) {
    const isOpen = byId(fold).classList.toggle("unfolded");
    target.setAttribute("aria-expanded", String(isOpen));
    target.textContent = isOpen ? "Hide" : "Show";
  }
  if (sort) {
    const isUpwards = (state) => (state.sort ?? state.options.sortedBy) === sort && !state.ascending;
    changeTable(table, (state) => ({ sort, ascending: isUpwards(state) }));
    document.querySelector(`[data-table="${table}"][data-sort="${sort}"]`).focus();
  }
  const part = target.closest("a[href='#received-part']");
  if (part) byId("received-part").open = true;
}

byId("demo").hidden = !report.is_demo;
showExplanations();
readAddress();
setFilters();
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("change", choose);
addEventListener("hashchange", follow);
document.addEventListener("click", press);
byId("chart").addEventListener("keydown", (event) => {
  const text = moveInChart(event);
  if (text) byId("announcement").textContent = text;
});
show();

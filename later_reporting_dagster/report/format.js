"use strict";
// Elements, text, dates, numbers and changes. Data is inserted only as text, never as markup: do not use innerHTML.

const maker =
  (namespace) =>
  (tag, attributes = {}, ...children) => {
    const element = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value != null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
const make = maker("http://www.w3.org/1999/xhtml");
const shape = maker("http://www.w3.org/2000/svg");
const span = (kind, ...children) => make("span", { class: kind }, ...children);
const small = (...children) => make("small", {}, ...children);

// Text.

const NAME_LENGTH = 200;
const LISTED_FIRST = 3;
const NO_BREAK = "\u00a0";
const THIN = "\u202f"; // a narrow no-break space, before a unit
const bold = (...children) => make("b", {}, ...children);
const shortened = (text, length = 120) =>
  text.length > length ? `${[...text].slice(0, length - 1).join("")}…` : text;
const capitalized = (text) => text[0].toUpperCase() + text.slice(1);

/** Joins the first names, and adds the number of the others. */
function listed(names, one, more) {
  const rest = names.length - LISTED_FIRST;
  if (rest <= 0) return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  return `${names.slice(0, LISTED_FIRST).join(", ")} and ${withUnit(rest, `more ${one}`, `more ${more}`)}`;
}

/** Returns untrusted text that cannot change the direction of the text around it: without controls, or isolated. */
function isolated(text) {
  const plain = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
  const isRightToLeft = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\ud802\ud803\ud83a\ud83b]/.test(plain);
  return isRightToLeft ? `\u2068${plain}\u2069` : plain;
}

const NETWORKS = { tiktok: "TikTok", youtube: "YouTube", linkedin: "LinkedIn", x: "X", twitter: "X", other: "Other" };

/** Returns how people write the name of a network or a content type, such as TikTok or Instagram Reel. */
function readable(name) {
  const words = (name || "other").split("_");
  const isType = (word) => ["reel", "reels", "short", "shorts"].includes(word);
  return words
    .map((word, index) => NETWORKS[word] ?? (index === 0 || isType(word) ? capitalized(word || " ") : word))
    .join(" ")
    .trim();
}

/** Returns a button that explains what is beside it. */
const mark = (label, text) =>
  make("button", { type: "button", class: "mark", "aria-label": label, "data-tip": text }, "?");

// Dates.

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const dateAt = (age) => new Date(NEWEST - age * DAY);
const isoDay = (age) => dateAt(age).toISOString().slice(0, 10);
const yearOf = (age) => dateAt(age).getUTCFullYear();
const monthOf = (age) => MONTHS[dateAt(age).getUTCMonth()];
const shortDay = (age) => `${dateAt(age).getUTCDate()}${NO_BREAK}${monthOf(age).slice(0, 3)}`;
const longDay = (age) => `${dateAt(age).getUTCDate()} ${monthOf(age)} ${yearOf(age)}`;
const dayOf = (age) => `${shortDay(age)}${NO_BREAK}${yearOf(age)}`;

/** Returns the first and the last day, such as 4 Nov – 1 Dec 2026: with their year once, or without it. */
function daysOf(last, first, hasYear = true) {
  const end = hasYear ? dayOf(last) : shortDay(last);
  if (first === last) return end;
  return `${hasYear && yearOf(first) !== yearOf(last) ? dayOf(first) : shortDay(first)}${NO_BREAK}– ${end}`;
}

// Numbers.

const digits = (count) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: count, maximumFractionDigits: count });
const [whole, tenth, cents] = [0, 1, 2].map(digits);
const withUnit = (number, one, more = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : more}`;
const NOT_AVAILABLE = "not available";

/** Returns a number in full; from a million on, and with `isRound` from a thousand on, three digits and a unit. */
function threeDigits(value, isRound = false) {
  const units = [[1e9, "bn"], [1e6, "M"], ...(isRound ? [[1e3, "K"]] : [])];
  const [size, unit] = units.find(([each]) => Math.abs(value) >= each) ?? [1, ""];
  if (!unit) return atLeast(value, 0);
  const shown = Math.abs(value) / size;
  const count = shown < 9.995 ? 2 : shown < 99.95 ? 1 : 0;
  return `${digits(count).format(value / size)}${THIN}${unit}`;
}

/** Returns a number with so many decimals. What would be rounded to 0 is less than the least number. */
function atLeast(value, count) {
  const least = 10 ** -count;
  if (value === 0) return "0";
  if (Math.abs(value) < least / 2) return value > 0 ? `<${least.toFixed(count)}` : `>-${least.toFixed(count)}`;
  return digits(count).format(value);
}

const dollars = (text) => text.replace(/^([<>]?)(-?)/, "$1$2$");
const formats = {
  count: (value) => threeDigits(value),
  percent: (value) => `${value === 0 ? "0.0" : atLeast(value, 1)}${THIN}%`,
  share: (value) => `${atLeast(value, 0)}${THIN}%`,
  ratio: (value) => `${value === 0 ? "0.00" : value < 1000 ? atLeast(value, 2) : threeDigits(value, true)}${THIN}×`,
  money: (value) => dollars(threeDigits(value)),
  round: (value) => dollars(threeDigits(value, true)),
  price: (value) => dollars(value === 0 ? "0.00" : atLeast(value, 2)),
  whole: (value) => whole.format(value),
  rank: (value) => whole.format(Math.floor(value)),
};
const exact = {
  count: (value) => whole.format(value),
  money: (value) => dollars(whole.format(value)),
  round: (value) => dollars(whole.format(value)),
};

/** Returns an element with a formatted number, and its exact value as an attribute; for null, a dash and the reason. */
function figure(value, format, reason) {
  if (value == null) {
    const why = reason ?? NOT_AVAILABLE;
    const dash = make("span", { "aria-hidden": "true" }, "–");
    return make("span", { class: "null", "data-tip": capitalized(why) }, dash, span("unseen", why));
  }
  const text = formats[format](value);
  const full = exact[format]?.(value) ?? text;
  return make("data", { value: String(value), "data-tip": full === text ? null : full }, text);
}

/** Compares two values: the larger first, null last. */
const descending = (left, right) => (left == null || right == null ? (left == null) - (right == null) : right - left);

// Changes.

const MANY_TIMES = 3;

/** Returns an arrow and the size of a change from the previous value, in percent, in times or in points. */
function changeOf(now, previous, isRate = false) {
  if (now == null || previous == null || (!isRate && previous <= 0)) return null;
  const difference = isRate ? now - previous : (100 * (now - previous)) / previous;
  const isMany = !isRate && now / previous >= MANY_TIMES;
  const size = tenth.format(isMany ? now / previous : Math.abs(difference));
  const unit = isRate ? `${NO_BREAK}pts` : `${THIN}${isMany ? "×" : "%"}`;
  const [arrow, word] = difference > 0 ? ["↑", "up "] : ["↓", "down "];
  const sign = Number(size) === 0 ? [] : [make("i", { "aria-hidden": "true" }, arrow), span("unseen", word)];
  return span("change", ...sign, size + unit);
}

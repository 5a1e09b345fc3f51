"""Render the report as one HTML file that makes no network requests and treats data as text, never as markup.

The page has the report's results as JSON. Its script looks up the results for the chosen filters. Its content security
policy allows only that script and its style sheet, by their hashes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from html import escape
from importlib.resources import files
from operator import itemgetter
from string import Template
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import contiguous_ranges
from later_reporting_dagster.lake.file_metadata import MADE_FROM, MadeFrom, parse_key_values
from later_reporting_dagster.lake.tables import MONTH_WINDOWS, WINDOWS
from later_reporting_dagster.report.report_data import FETCHED_TABLES, MOST_CREATORS, ReportData

# The page's script, in the order in which its parts use each other.
_SCRIPTS = (
    *("selection.js", "format.js", "charts.js", "tables.js", "explanations.js"),
    *("figures.js", "time.js", "sections.js", "missing.js", "page.js"),
)
# Columns of the tables that the page does not show.
_NOT_SHOWN = ("place", "first_day", "last_day", "campaign_name", "campaign_status", "oldest_age")
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"
)
# In HTML, `<` may begin the end tag of the script or a comment; `>` and `&` have meanings in markup, too. U+2028 and
# U+2029 end a line in older versions of JavaScript. In JSON, all of them can be escaped.
_ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


# The version of the page. Raise it with a change of what the page shows: it is then written again.
REPORT_DEFINITION = 15
_MADE_FROM = re.compile(rb"<!-- made_from (.*) -->\n\Z")


def with_made_from(page: bytes, made_from: MadeFrom) -> bytes:
    """Return the page with a comment, which nobody sees, that says what it was made from."""
    return b"%s\n<!-- made_from %s -->\n" % (page.rstrip(), made_from.key_values[MADE_FROM].encode())


def made_from_of_page(page: bytes) -> MadeFrom | None:
    """Return what a page was made from; None if it does not say so, or is damaged there."""
    found = _MADE_FROM.search(page[-1_000:])
    with suppress(ValueError):  # also if it is no text
        return parse_key_values({MADE_FROM: found[1].decode()})[MADE_FROM] if found else None
    return None


def report_page(data: ReportData) -> bytes:
    """Return the report as an HTML page. The same data gives the same bytes."""
    style, script = _read("page.css"), "".join(map(_read, _SCRIPTS))
    content = page_data(data)
    page = Template(_read("page.html")).substitute(
        demo="DEMO – " if content["is_demo"] else "",
        policy=_POLICY.format(scripts=_hash(script), styles=_hash(style)),
        as_of=data.as_of.isoformat(),
        style=style,
        script=script,
        data=json_for_html(content),
    )
    return page.encode()


def empty_report_page(message: str) -> bytes:
    """Return a page for a lake without results, whose message says what to do."""
    style = _read("page.css")
    policy = _POLICY.format(scripts="'none'", styles=_hash(style))
    return Template(_read("empty.html")).substitute(policy=policy, style=style, message=escape(message)).encode()


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def page_data(data: ReportData) -> dict[str, Any]:
    """Return the data of the page's script, as JSON values.

    A table is a dict of columns of equal length. Instances and campaigns are given by their index in the lists of the
    page, a day by its age: the number of days before `as_of`. A column of texts has each text once, and by row the
    index of its text: links and names repeat in each window, and were a quarter of the page.
    """
    campaigns = {(row["instance_id"], row["campaign_id"]): row for row in data.tables["campaigns"].to_pylist()}
    index: dict[str, dict[Any, int]] = {
        "instance_id": {instance_id: position for position, instance_id in enumerate(data.instances)},
        "campaign_id": {campaign: position for position, campaign in enumerate(sorted(campaigns))},
    }
    return {
        "as_of": data.as_of.isoformat(),
        "windows": {
            name: {"label": _label(name, first), "first": (data.as_of - first).days, "last": (data.as_of - last).days}
            for name, (first, last) in data.windows.items()
        },
        "window": data.initial_window,
        "oldest_age": data.oldest_age,
        "is_demo": data.is_demo,
        "fetched_at": data.fetched_at and f"{data.fetched_at:%Y-%m-%dT%H:%M:%SZ}",
        "most_creators": MOST_CREATORS,
        "tables": FETCHED_TABLES,
        "instances": list(data.instances),
        "labels": [data.labels.get(instance_id, instance_id) for instance_id in data.instances],
        "campaigns": [
            [
                index["instance_id"][instance_id],
                campaign_id,
                *(_single_spaced(known[name]) for name in ("campaign_name", "campaign_status")),
            ]
            for (instance_id, campaign_id), known in sorted(campaigns.items(), key=itemgetter(0))
        ],
        **{
            name: _columns(_shown(rows, data.windows), index)
            for name, rows in data.tables.items()
            if name != "campaigns"
        },
        "missing": [
            {"table": table, "instance": index["instance_id"].get(instance_id), "ages": _ranges(days, data.as_of)}
            for table, by_instance in data.missing.items()
            for instance_id, days in sorted(by_instance.items(), key=repr)
        ],
        "quarantined": [
            {
                "table": quarantined.table,
                "age": None if quarantined.day is None else (data.as_of - quarantined.day).days,
                "instance": quarantined.instance_id,
                "reason": quarantined.reason,
                "rows": quarantined.rows,
            }
            for quarantined in data.quarantined
        ],
        "outdated": [*data.outdated],
    }


def _label(window: str, first_day: date) -> str:
    """Return what the page calls a window, such as Last 28 days, This month, or October."""
    if window in WINDOWS:
        return f"Last {WINDOWS[window]} days"
    return "This month" if window == MONTH_WINDOWS[0] else f"{first_day:%B}"


def _shown(rows: pa.Table, windows: Iterable[str]) -> pa.Table:
    if "time_window" in rows.column_names:
        rows = rows.filter(pc.is_in(rows["time_window"], pa.array([*windows])))
    return rows.drop_columns([name for name in _NOT_SHOWN if name in rows.column_names])


def _columns(rows: pa.Table, index: Mapping[str, Mapping[Any, int]]) -> dict[str, Any]:
    """Return a table as columns, with indexes instead of ids, and only web links."""
    columns: dict[str, list[Any]] = rows.to_pydict()
    instances = columns["instance_id"]
    # A row of all instances may name a campaign of one of them.
    owners = columns.get("of_instance", instances)
    if "campaign_id" in columns:
        pairs = zip(owners, columns.pop("campaign_id"), strict=True)
        columns["campaign"] = [index["campaign_id"].get(pair) for pair in pairs]
    if "campaign_ids" in columns:
        lists = zip(instances, columns.pop("campaign_ids"), strict=True)
        found = [[index["campaign_id"].get((name, campaign_id)) for campaign_id in ids] for name, ids in lists]
        columns["campaigns"] = [[position for position in of_post if position is not None] for of_post in found]
    if "of_instance" in columns:
        columns["of_instance"] = [index["instance_id"][instance_id] for instance_id in owners]
    columns["instance"] = [index["instance_id"].get(instance_id) for instance_id in columns.pop("instance_id")]
    if "link" in columns:
        columns["link"] = [web_link(link) for link in columns["link"]]
    return {name: _texts(values) or [_number(value) for value in values] for name, values in columns.items()}


def _texts(values: Iterable[Any]) -> dict[str, list[Any]] | None:
    """Return a column of texts as its different texts and, by row, the index of one; None if it has no text."""
    texts = [*dict.fromkeys(value for value in values if isinstance(value, str))]
    index = {text: position for position, text in enumerate(texts)}
    return {"texts": texts, "rows": [index.get(value) for value in values]} if texts else None


def _single_spaced(text: str | None) -> str | None:
    """Return text with its line breaks and runs of spaces as single spaces; None if nothing else remains."""
    return " ".join((text or "").split()) or None


def _number(value: Any) -> Any:
    """Return a value for JSON.

    Fractions are rounded, but keep at least 7 significant digits and 2 decimals, which is all that the page shows.
    """
    if isinstance(value, float | Decimal):
        number = float(value)
        short = float(f"{number:.7g}") if abs(number) < 100_000 else round(number, 2)
        return int(short) if short.is_integer() else short
    return [*map(_number, value)] if isinstance(value, list) else value


def web_link(link: str | None) -> str | None:
    """Return the link if it is an http or https address, else None. Other links can run code (`javascript:`)."""
    if link is None or re.search(r"[\x00-\x20\x7f\\]", link):
        return None
    try:
        parts = urlsplit(link)
        is_web = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return None
    return link if is_web else None


def json_for_html(value: Any) -> str:
    """Return JSON that is safe inside a script element, even if a text contains `</script>`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone surrogates cannot be encoded.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda found: _ESCAPED[found[0]], text)


def _ranges(days: Iterable[date], as_of: date) -> list[tuple[int, int]]:
    """Return days as ranges of ages, newest first: (age of the newest day, age of the oldest day)."""
    return [((as_of - last).days, (as_of - first).days) for first, last in reversed(contiguous_ranges(days))]


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"

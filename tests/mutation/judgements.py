"""What was judged of mutants that survive, by what they change, so that it outlives other changes of a file."""

import re
from dataclasses import dataclass

from tests.mutation.mutations import Mutation

NOT_JUDGED = "not judged yet"

GROUPS = {
    "words": "Words for people, in another case, between `XX`, or left out. Where it matters to the letter, tests hold"
    " what a message says to the letter; elsewhere they hold what it names and the step that it tells.",
    "the same": "The same behaviour by other means: a header's name in another case, `strict=` where lengths are equal"
    " by construction, a type that Arrow finds by itself, one falsy value for another, a value that is never used.",
    "speed": "How fast, or with how much memory: threads, chunks, connections, what is looked at first, what is read"
    " once more. What comes of it is the same, and `docs/benchmarks.md` watches over the time.",
    "the edge": "At the very edge, where either side would do: an instant, a byte, a row more or less than a bound that"
    " was chosen by judgement.",
    "log": "What is logged beside what is raised or told.",
    "other systems": "Of Windows, of filesystems that refuse what POSIX allows, or of two writers that meet in the same"
    " moment.",
    "elsewhere": "Found by tests that do not count here: of other folders, of whole runs in Dagster, of crashes, of a"
    " store, or by those that take longer than a mutant is given.",
    "not tested": "A difference that no test looks for, as it would take more to bring about than it is worth: two"
    " threads that meet in one moment, the end of a process amid an ingest.",
    NOT_JUDGED: "Looked at by nobody yet.",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A group for the mutants of a function that change text that `before` matches to text that `after` does."""

    group: str
    where: str
    before: str = ""
    after: str = ""

    def covers(self, mutation: Mutation) -> bool:
        """Whether it was made of this mutant."""
        return (
            re.fullmatch(self.where, f"{mutation.file} {mutation.function}") is not None
            and re.search(self.before, mutation.before) is not None
            and re.search(self.after, mutation.after) is not None
        )


JUDGED: tuple[Judgement, ...] = (
    Judgement("words", ".*", r'^raise \w+\(f?"', r"^raise \w+\(None\)"),
    Judgement("words", ".*", r"^raise AssertionError"),
    Judgement("words", r"lake/storage\.py storage_at", "^raise _unavailable"),
    Judgement(
        "words", r"ingest/stream\.py stream", 'name="later-reporting-ingest"', "XX|LATER|name=None|work,\\), daemon"
    ),
    Judgement("the same", ".*", r"strict=(True|False)", r"strict=(None|True|False)|, ?\)"),
    Judgement("the same", ".*", r"pa\.scalar\(|fill_null|safe=|pa\.array\(", r"None|, ?\)|safe=|True"),
    Judgement(
        "the same", r"client/.*", r'"(Accept|Authorization|Content-Type|User-Agent)"', r'(?i)"accept|"auth|"cont|"user'
    ),
    Judgement("the same", r"client/.*", r"headers\.get\("),
    Judgement("the same", r"client/answers\.py error_in", "300 <= status < 400"),
    Judgement("the same", r"client/address\.py _can_be_looked_up", "idna|strip"),
    Judgement("the same", r"client/exchange\.py _token_in", 'token = ""'),
    Judgement("the same", r"client/(client|exchange)\.py .*__aexit__"),
    Judgement("the same", r"client/exchange\.py Exchange\.__init__", "follow_redirects|trust_env"),
    Judgement("the same", r"client/numbered\.py .*", "both_ends=False"),
    Judgement("the same", r"client/(numbered|cursors)\.py .*\.instances", "revision=(PAGED|CURSOR)"),
    Judgement("the same", r"client/cursors\.py CursorPages\._check_end", "number=1"),
    Judgement("the same", r"client/cursors\.py CursorPages\._page", r"Place\(1", r"Place\(2"),
    Judgement("words", r"client/cursors\.py CursorPages\._follow", "again = ", "number=None"),
    Judgement("the same", r"client/(address|memory)\.py .*", "(?i)ascii"),
    Judgement("the same", r"client/address\.py checked_base_url", r"url\.path in"),
    Judgement("the same", r"client/exchange\.py .*", '"(POST|GET)"', '"(post|get)"'),
    Judgement("the same", r"client/exchange\.py Exchange\._attempt", "status == 429 and"),
    Judgement("the same", r"client/limiter\.py RateLimiter\.__init__", "_learned"),
    Judgement("the same", r"client/(errors\.py QueryRefused\.__init__|answers\.py error_in)", "status|detail"),
    Judgement("words", r"client/(client|numbered)\.py .*\.instances", '"instances"'),
    Judgement("speed", r"client/limiter\.py RateLimiter\._change", "poll_interval"),
    Judgement("the edge", r"client/(limiter|retry|client)\.py .*", r"itemsize|not_before|60\)|timeout_seconds"),
    Judgement("not tested", r"client/limiter\.py RateLimiter\._reserve", "to_thread"),
    Judgement("not tested", r"client/exchange\.py Exchange\.__init__", "token=credentials"),
    Judgement("elsewhere", r"(client|ingest)/.*", r"astimezone\(UTC\)"),
    Judgement("the same", r"ingest/allowed\.py (_together|with_values)", r"sort_keys|extras\.get"),
    Judgement("speed", r"ingest/allowed\.py AllowedMetrics\..*"),
    Judgement("the same", r"ingest/changes\.py _without_metrics", "json.dumps"),
    Judgement("speed", r"ingest/changes\.py changes_between", "same"),
    Judgement("elsewhere", r"ingest/ingest\.py ingest", "asked_for = "),
    Judgement("speed", r"ingest/ingest\.py .*", r"reach|_busy|_let_work|create_task|FAILURES_TO_GIVE_UP|qsize\(\)"),
    Judgement("speed", r"ingest/ingest\.py .*(_with_further_metrics|_worth_asking)"),
    Judgement("speed", r"ingest/ingest\.py _Ingest\._answer", r"len\(query\.instance_ids\) == 1"),
    Judgement("elsewhere", r"ingest/ingest\.py _Ingest\._answer", r"replace\(due, query"),
    Judgement("the same", r"ingest/ingest\.py .*", r"len\(partitions_of\(query\)\) > 1|instance_ids=\(instance_id,\)"),
    Judgement("speed", r"ingest/ingest\.py _Share\.__call__", "POSTS_AT_ONCE|others.insert|idle="),
    Judgement("words", r"ingest/landing\.py Landing\.land", "check_changes"),
    Judgement(
        "elsewhere", r"ingest/landing\.py .*", r"identity_of|_homeless\.pop|filed is not None|len\(all_bad_rows\)"
    ),
    Judgement("speed", r"ingest/plan\.py (_merged|_pages|shares)"),
    Judgement("the edge", r"ingest/plan\.py _short_enough"),
    Judgement("elsewhere", r"ingest/plan\.py plan", "metrics=metrics"),
    Judgement("the same", r"ingest/quality\.py .*", "unknown = |tzinfo=UTC|null_count >"),
    Judgement("the same", r"ingest/replay\.py _set_aside", "if rows else"),
    Judgement("the same", r"ingest/stream\.py .*", r"all_tasks|call_soon_threadsafe|ended = "),
    Judgement("the same", r"lake/columns\.py _fact", "True", "None"),
    Judgement("the same", r"lake/(compaction|quarantine)\.py .*", r'partition\.instance_id or ""'),
    Judgement("elsewhere", r"lake/compaction\.py _verified_days", r"absent\.get"),
    Judgement("words", r"lake/.*", "not_as_written|root: str = "),
    # What is staged is held against the bytes that were given anyway.
    Judgement("the same", r"lake/(compaction|lake)\.py .*", "check=check"),
    Judgement("the edge", r"lake/compaction\.py CompactedMonths\.whole", "FEWEST_DAYS"),
    Judgement("the same", r"lake/file\.py _hash_together", r"fixed \+="),
    Judgement("the same", r"lake/file\.py (completed|to_parquet)"),
    Judgement("elsewhere", r"lake/lake\.py Lake\.(__init__|restore|version_facts|write_table)"),
    Judgement("speed", r"lake/lake\.py Lake\.write_all", r"self\._storage\.waits"),
    Judgement("the edge", r"lake/quarantine\.py Quarantine\.rows", 'or b""'),
    Judgement("the same", r"lake/schema\.py (_values_of_posts|posts_tables)"),
    Judgement("speed", r"lake/(side_by_side\.py .*|storage\.py _LocalStorage\._is_made)"),
    Judgement("elsewhere", r"lake/storage\.py (storage_at|_LocalStorage\.__init__)", "url_to_fs|_root_was_there"),
    Judgement("other systems", r"lake/storage\.py .*", "missing_ok"),
    Judgement("elsewhere", r"lake/versions\.py KeptVersions\.keep", r"continue|astimezone"),
    Judgement("the edge", r"lake/compaction\.py _worth_copying"),
    Judgement("the same", r"lake/compaction\.py CompactedMonths\._identity", "rstrip"),
    Judgement("elsewhere", r"lake/compaction\.py (_together|CompactedMonths\.compact)"),
    Judgement("elsewhere", r"lake/dataset\.py _true_of"),
    Judgement("the same", r"lake/dataset\.py .*", "FileSystemDataset|arrow_filesystem"),
    Judgement("the same", r"lake/file\.py _characters", "cast"),
    Judgement("speed", r"lake/(file\.py (from_parquet|is_faithful)|lake\.py Lake\.existing)"),
    Judgement("words", r"lake/lake\.py Lake\.(facts|restore)", "damaged|KeyError"),
    Judgement("the same", r"lake/partition\.py decode_instance_id", "is_encoding"),
    Judgement("the same", r"lake/quarantine\.py Quarantine\.set_aside_of_query", "sorted|digest"),
    Judgement("the edge", r"lake/storage\.py _is_stale_stage"),
    Judgement("words", r"lake/storage\.py (_redacted|_LocalStorage\.write_all)", "hidden = |text.replace|_unavailable"),
    Judgement("other systems", r"lake/storage\.py _version_of", "tzinfo"),
    Judgement("the edge", r"rollups/lift\.py lift_interval", "is_known &= "),
    Judgement("log", r"rollups/lift\.py lift_interval", "errstate"),
    Judgement("the same", r"rollups/lift\.py lift_interval", r"astype|bincount|residuals \+="),
    Judgement("the edge", r"rollups/lift\.py lift_columns_of", r"high < 1"),
    Judgement("the same", r"rollups/lift\.py lift_columns_of", r"pa\.array"),
    Judgement("the same", r"rollups/periods\.py _by_window"),
    Judgement("speed", r"rollups/periods\.py (_groups_of|_Windows\.__init__)", r"group_of_post|np\.diff"),
    Judgement("the same", r"rollups/periods\.py _labelled", r"np\.full"),
    Judgement("elsewhere", r"rollups/periods\.py _labelled", r"lexsort|chosen"),
    Judgement("the same", r"rollups/periods\.py _period", r"position|chunked_array"),
    Judgement("the edge", r"rollups/periods\.py numbered"),
    Judgement("the same", r"rollups/periods\.py organic_paid_over_days", "with_spend"),
    Judgement("elsewhere", r"rollups/periods\.py (rows_schema|_Windows\._there)"),
    Judgement("the same", r"rollups/periods\.py _Windows\.__init__", "argsort"),
    Judgement("the same", r"rollups/periods\.py _Windows\.rolled_up", r"pa\.nulls|_repeated"),
    Judgement("the edge", r"rollups/reconciliation\.py _agree"),
    Judgement("elsewhere", r"rollups/reconciliation\.py (_windows_of|window_totals_that_differ)"),
    Judgement("the same", r"client/limiter\.py RateLimiter\._reserve", r"slot = 0\.0"),
    Judgement("the same", r"(client|lake)/.*", r"hexdigest\(\)|token_hex"),
    Judgement("the same", r"ingest/plan\.py plan", "page_size=MAXIMUM_PAGE_SIZE"),
    Judgement("the same", r"lake/file\.py .*", r'b""|starts = characters|_CONTENT_HASH, ""'),
    Judgement(
        "the same",
        r"lake/(lake\.py Lake\.(write_all|dataset)|quarantine\.py Quarantine\.rows)",
        r"replaced\.pop|sorted\(found|null_fallback",
    ),
    Judgement("the same", r"lake/partition\.py .*", r'unquote\(key, errors="strict"'),
    Judgement("the same", r"lake/storage\.py .*", r'partition\("-"\)|detail=False|lstrip\("/"\)|rstrip\(.*/'),
    Judgement("the same", r"rollups/columns\.py window_columns", "nullable=True", r"replace\(column, computed"),
    Judgement("the same", r"rollups/settling\.py settlement", "left outer"),
    Judgement("the same", r"rollups/spans\.py days_of", r"days=31", r"days=32"),
    Judgement("the edge", r"rollups/sums\.py grouped_sums", "num_rows < "),
    Judgement("the same", r"rollups/organic_paid\.py _used|rollups/sums\.py _counts", "strict|= None"),
    Judgement("speed", ".*", r"ThreadPoolExecutor\(|pre_buffer|use_threads|_ROWS_WORTH_A_CHUNK|_PIECE|counted="),
    Judgement("speed", r"client/(client|exchange)\.py .*__init__", "concurrency|limits="),
    Judgement("speed", r"ingest/(ingest|landing)\.py .*", r"known_rows|parts_for|parts=parts|len\(plan\("),
    Judgement("elsewhere", r"ingest/ingest\.py _rows_in_the_lake"),
    Judgement("elsewhere", r"lake/file\.py content_hashes_of", "_ROWS_HASHED_AT_ONCE"),
    Judgement("speed", r"rollups/sums\.py (_summable|_at_most|_largest|_counts)"),
    Judgement("the edge", r"client/limiter\.py _Ledger\.is_plausible"),
    Judgement("the edge", r"client/auth\.py .*", "good_until"),
    Judgement("the edge", r"ingest/stream\.py stream", "timeout="),
    Judgement("log", ".*", r"logger\.(info|warning)"),
    Judgement("the edge", r"ingest/ingest\.py .*_note_failure", "INSTANCES_OF_AN_OUTAGE"),
    Judgement("not tested", r"ingest/stream\.py stream", "daemon|is_alive"),
    Judgement("the same", r"lake/partition\.py encode_instance_id", "%5F"),
    Judgement("not tested", r"ingest/landing\.py .*_clear_homeless", r"suppress|possible=possible\) for row"),
    Judgement(
        "elsewhere", r"ingest/(ingest|landing)\.py .*", r"_clear_homeless\(|check_bad_rows\(|_ask_in_parts\(|_fail\("
    ),
    Judgement("elsewhere", r"ingest/(ingest|landing)\.py .*", r"_homeless_rows|quarantine_query\(|len\(left\) =="),
    Judgement("speed", r"ingest/landing\.py _homeless_rows", r"days=\[\]"),
    Judgement("elsewhere", r"lake/(lake|versions)\.py .*", r"format=|self\.of\(asset"),
    Judgement("elsewhere", r"lake/storage\.py .*versions", r"under\.rpartition"),
    Judgement("the same", r"ingest/replay\.py _read", r"raw=row\.raw"),
    Judgement("the same", r"lake/columns\.py _metric", "True", "None"),
    Judgement("other systems", r"client/limiter\.py .*", "O_BINARY|LOCALAPPDATA"),
    Judgement("other systems", r"lake/storage\.py .*", r"mkdir\(exist_ok|suppress\(OSError\)|flock"),
)


def judged(mutation: Mutation) -> str:
    """The group of a mutant that survived."""
    if _changes_words_alone(mutation.before, mutation.after):
        return "words"
    return next((each.group for each in JUDGED if each.covers(mutation)), NOT_JUDGED)


def _changes_words_alone(before: str, after: str) -> bool:
    """Whether only a text differs that has a space in it, which no program reads."""
    if before.lower() == after.lower():  # in another case
        differing = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        quotes = [place for place, character in enumerate(before) if character in "\"'"]
        inside = slice(
            max((place for place in quotes if place < differing[0]), default=0),
            min((place for place in quotes if place > differing[-1]), default=0),
        )
        return " " in before[inside]
    start, _, rest = after.partition("XX")
    text, _, end = rest.rpartition("XX")
    return start + text + end == before and " " in text

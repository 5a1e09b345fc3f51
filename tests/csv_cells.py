"""What a text is in a CSV file: the report's page and `later-reporting query` follow the same rule.

A leading apostrophe keeps spreadsheets from running a text as a formula. Numbers stay.
"""

CSV_CELLS: tuple[tuple[str, str], ...] = (
    *((f"{start}1+1", f"'{start}1+1") for start in (*"=+-@＝＋－＠", "\t", "\r")),
    *((start, f"'{start}") for start in "=@"),
    *((text, text) for text in ("", "1", "1=", "a,b", 'a "quoted" text', "a\nb", " =1", "\n=1", "'=1", "–1", "Zoë 😀")),
)

from tests.bench.tables import Table, with_section


def test_a_table_is_markdown_with_two_decimals_and_its_note() -> None:
    table = Table(title="Speed", columns=("by", "s", "requests"), rows=[("this", 1.0, 12)], note="Of one run.")

    assert table.markdown() == (
        "## Speed\n\n| by | s | requests |\n| --- | --- | --- |\n| this | 1.00 | 12 |\n\nOf one run."
    )


def test_a_section_is_replaced_alone_and_added_in_its_place() -> None:
    order = ("first", "second", "third")
    document = "# Benchmarks\n\nBy hand.\n"
    for name, text in (("third", "3"), ("first", "1"), ("gone", "0"), ("second", "2"), ("first", "one")):
        document = with_section(document, name, text, order=order)

    assert document == (
        "# Benchmarks\n\nBy hand.\n\n"
        "<!-- bench: first -->\n\none\n\n<!-- bench: second -->\n\n2\n\n<!-- bench: third -->\n\n3\n"
    )

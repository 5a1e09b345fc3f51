"""Which instances are fetched, expected and in the numbers, as one table of cases."""

import pytest

from later_reporting_dagster.contract.instances import Instances, Marks

# case: configured / listed / seen / stored / retired -> to_fetch / expected / in_numbers / of_all / only / not_expected
# Each letter is an instance; "-" is none, "?" a list that is not known.
CASES = {
    "first run": "- abc - - - -> abc abc - abc - -",
    "first run, two of three": "ab abc - - - -> ab ab - ab - -",
    "first run of one": "- a - - - -> a a - - a -",
    "usual day": "- abc abc abc - -> abc abc abc abc - -",
    "the list lacks c for an hour": "- ab abc abc - -> ab abc abc - - -",
    "a configured one is not listed": "abc ab ab ab - -> abc abc ab - - -",
    "c retired, still listed": "- abc abc abc c -> ab ab ab ab - -",
    "c retired, and configured": "abc abc abc abc c -> ab ab ab ab - -",
    "b of two retired": "- ab ab ab b -> a a a - a -",
    "all retired": "- ab ab ab ab -> - - - - - -",
    "the list is refused": "ab ? ab ab - -> ab ab ab ab - -",
    "the list is refused, and none configured": "- ? ab ab - -> - ab ab - - -",
    "listed again, or no longer retired": "- abc abc abc - -> abc abc abc abc - -",
    "narrowed": "ab abc abc abc - -> ab ab abc ab - c",
    "narrowed to one": "a abc abc abc - -> a a abc - a bc",
    "narrowed, and c retired": "ab abc abc abc c -> ab ab ab ab - -",
    "widened by d": "abcd abcd abcd abc - -> abcd abcd abc abcd - -",
    "d is new": "- abcd abc abc - -> abcd abcd abc abcd - -",
    "files of an instance that was never listed": "- ab ab abc - -> ab abc abc - - -",
    "a lake without the table of instances": "- ab - ab - -> ab ab ab ab - -",
}


def letters(text: str) -> frozenset[str]:
    return frozenset(text.strip("-"))


@pytest.mark.parametrize("case", CASES)
def test_each_set_of_instances_follows_from_setting_list_lake_and_marks(case: str) -> None:
    given, _, expected = CASES[case].partition(" -> ")
    configured, listed, seen, stored, retired = given.split()
    instances = Instances(
        configured=letters(configured),
        listed=None if listed == "?" else letters(listed),
        seen=letters(seen),
        stored=letters(stored),
        marks=Marks(letters(retired)),
    )
    found = (
        instances.to_fetch,
        instances.expected,
        instances.in_numbers,
        instances.of_all,
        frozenset(instances.only or ""),
        instances.not_expected,
    )
    assert found == tuple(map(letters, expected.split()))


def test_unlisted_are_expected_ones_that_a_known_list_lacks() -> None:
    known = Instances(listed=frozenset("ab"), seen=frozenset("abc"), marks=Marks(frozenset("d")))
    assert known.unlisted == {"c"}
    assert Instances(configured=frozenset("ab"), seen=frozenset("abc")).unlisted == frozenset()
    assert known.known == {*"abcd"}

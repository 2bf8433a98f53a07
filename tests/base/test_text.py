"""What comes from outside is shown in a message on one line, of a length that can be read."""

from __future__ import annotations

import pytest

from crayon_sdk._base.text import first_few, first_line, given_only, one_line, unknown_name, visible


def test_a_name_that_is_near_is_proposed_and_else_all_are_named():
    known = ["epochs", "lr"]
    assert unknown_name("epoch", known, "setting") == "there is no setting called 'epoch'; did you mean 'epochs'?"
    assert unknown_name("zzz", known, "setting").endswith("; known: epochs, lr")
    assert len(unknown_name("x" * 10_000, known, "setting")) < 250


def test_a_list_says_how_many_more_there_are():
    assert first_few(["a", 1]) == "'a', 1"
    assert first_few(range(7), 3) == "0, 1, 2 and 4 more"
    assert len(first_few(["x" * 10_000] * 9)) < 1200


@pytest.mark.parametrize(
    ("said", "line"),
    [("a\nb", "a"), ("", "ValueError"), ("\n  \n a  b ", "a b"), ("of:\n one\n two", "of: one; two")],
)
def test_an_error_of_a_library_in_one_line(said, line):
    assert first_line(ValueError(said)) == line


def test_what_a_terminal_would_obey_is_shown():
    assert visible("a\tb\n") == "a\tb\n"
    assert visible("\x1b[2J\ud800") == r"\u001b[2J\ud800"
    assert one_line("a\r\n\x1b[2J\u202eb") == "a [2J b"
    assert one_line("a" * 500) == f"{'a' * 87}...{'a' * 30}"


def test_a_repr_shows_what_is_not_at_its_default():
    class Field:
        default = 1

    assert repr(given_only({"a": Field, "b": Field}, [("a", 1), ("b", "x" * 90)])).startswith("[('b', 'xxx")

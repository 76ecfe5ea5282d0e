"""Tests of how much is printed."""

import io
import logging
import sys

import pytest

from lmac_sb.utils.console import (
    MOST_LINES,
    Loudness,
    NotesIfVerbose,
    progress,
    say,
    say_table,
    set_loudness,
)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        """It is one."""
        return True


@pytest.fixture(autouse=True)
def usual():
    """The usual amount after each test."""
    yield
    set_loudness(Loudness.USUAL)


@pytest.mark.parametrize(
    ("loudness", "printed"),
    [
        (Loudness.QUIET, ["result"]),
        (Loudness.USUAL, ["result", "epoch"]),
        (Loudness.VERBOSE, ["result", "epoch", "note"]),
    ],
)
def test_each_loudness_adds_lines(loudness, printed, capsys):
    set_loudness(loudness)
    say("result", Loudness.QUIET)
    say("epoch")
    say("note", Loudness.VERBOSE)
    assert capsys.readouterr().out.splitlines() == printed


@pytest.mark.parametrize("n_lines", [1, MOST_LINES, MOST_LINES + 1])
def test_long_tables_stay_in_their_files(n_lines, capsys):
    table = "row\n" * n_lines
    say_table(table, "x.md")
    short = capsys.readouterr().out
    assert "x.md" in short
    assert ("row" in short) == (n_lines <= MOST_LINES)
    set_loudness(Loudness.VERBOSE)
    say_table(table, "x.md")
    assert capsys.readouterr().out.count("row\n") == n_lines


@pytest.mark.parametrize(
    ("stream", "loudness", "shown"),
    [
        (Terminal, Loudness.USUAL, True),
        (Terminal, Loudness.QUIET, False),
        (io.StringIO, Loudness.USUAL, False),
        (io.StringIO, Loudness.VERBOSE, False),
    ],
)
def test_bars_are_for_terminals(stream, loudness, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    set_loudness(loudness)
    assert list(progress(range(3), mininterval=0)) == [0, 1, 2]
    assert ("3/3" in sys.stderr.getvalue()) == shown


def test_a_finished_bar_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress(range(3)))
    assert "\n" not in sys.stderr.getvalue()


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_notes_are_shown_if_more_is_wanted(level):
    record = logging.makeLogRecord({"levelno": getattr(logging, level)})
    assert NotesIfVerbose().filter(record) == (level in ("WARNING", "ERROR"))
    set_loudness(Loudness.VERBOSE)
    assert NotesIfVerbose().filter(record) == (level != "DEBUG")

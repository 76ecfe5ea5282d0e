"""How a script ends that cannot do what was asked for, or is stopped."""

import errno
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from lmac_sb.models.source import make_objects
from lmac_sb.utils import errors
from lmac_sb.utils.errors import (
    LMACError,
    exit_on_user_error,
    is_number,
    is_whole,
    kind_of,
)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LMACError("x.wav: empty"), 1, "error: x.wav: empty\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (
            OSError(errno.ENOSPC, "No space left", "x.wav"),
            1,
            f"error: [Errno {errno.ENOSPC}] No space left: 'x.wav'; free some "
            "space, then start again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.wav"),
            1,
            "error: x.wav: cannot be read or written to (Permission denied)\n",
        ),
    ],
)
@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_one_line(monkeypatch, capsys, error, code, said, rank):
    """Of several processes, all but the first leave it to that."""
    waited = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)

    @exit_on_user_error
    def main():
        """Fail."""
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == code
    assert capsys.readouterr() == ("", said)
    assert bool(waited) == (rank == "1")


def test_there_may_be_nowhere_to_print(monkeypatch):
    """So it is of a daemon, and after `>&-` and `2>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    @exit_on_user_error
    def main():
        """Print, and fail."""
        print("é")
        sys.stdout.write(sys.stdout.encoding)
        sys.stderr.write("a note")
        raise LMACError("x.wav: empty")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1


def test_a_full_disk_may_be_that_of_the_output(capsys):
    """What is printed has no name."""

    @exit_on_user_error
    def main():
        """Print."""
        with open("/dev/full", "w") as full:
            print("a line", file=full)

    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.startswith("error: [Errno 28] No space left on device; free ")
    assert "space where results or what is printed go, then start" in said


UNREAD = """
from lmac_sb.utils.errors import exit_on_user_error

@exit_on_user_error
def main():
    while True:
        print("a line", flush={flush})

main()
"""


@pytest.mark.parametrize("flush", [True, False])
def test_who_stops_reading_ends_it_without_a_word(flush):
    """As ``| head`` does, with or without something left to print."""
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD.format(flush=flush)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_a_broken_pipe_elsewhere_is_an_error(capsys):
    @exit_on_user_error
    def main():
        raise BrokenPipeError("of a worker")

    with pytest.raises(BrokenPipeError):
        main()


def test_others_are_no_mistake_of_the_user():
    @exit_on_user_error
    def main():
        """Have a fault."""
        return {}["key"]

    with pytest.raises(KeyError):
        main()


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (3, True, True),
        (np.int32(3), True, True),
        (np.float32(0.5), False, True),
        (True, False, False),
        (np.bool_(True), False, False),
        ("3", False, False),
        (None, False, False),
    ],
)
def test_numbers_of_any_type(value, whole, number):
    assert (is_whole(value), is_number(value)) == (whole, number)


def test_the_article_is_as_it_is_spoken():
    for value, name in (
        (3, "an int"),
        (np.zeros(1), "an ndarray"),
        (OrderedDict(), "an OrderedDict"),
        ({}, "a dict"),
        (np.uint8(3), "a uint8"),
        (None, "None"),
    ):
        assert kind_of(value) == name


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_stopped_while_a_yaml_is_loaded(stop, tmp_path, monkeypatch):
    """Python's `pydoc` makes errors of both."""
    (tmp_path / "stops.py").write_text(f"raise {stop.__name__}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(stop):
        make_objects("net: !new:stops.Net", "x.yaml")
    (tmp_path / "stops.py").write_text("raise OSError('of a module')\n")
    with pytest.raises(LMACError, match="x.yaml: .*OSError: of a module"):
        make_objects("net: !new:stops.Net", "x.yaml")

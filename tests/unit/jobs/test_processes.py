"""Tests of what launchers say in the environment."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lmac_sb
from lmac_sb.jobs.processes import (
    Processes,
    be_one_of_many,
    is_first,
    is_launched,
    leave,
    processes,
    run_name,
    start,
    wait_for_others,
)
from lmac_sb.utils.console import Loudness, get_loudness
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.program import program


@pytest.fixture
def environment(monkeypatch):
    """Set the variables of a launcher, and no others."""

    def environment(**variables):
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return environment


def test_alone(environment):
    environment()
    assert processes() == (0, 1) and is_first()
    environment(RANK="0", WORLD_SIZE="1")
    assert processes() == (0, 1) and is_first()


def test_one_of_several(environment):
    environment(RANK="2", WORLD_SIZE="3")
    assert processes() == (2, 3) and not is_first()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: not set, but RANK is '0'"),
        ({"WORLD_SIZE": "2"}, "RANK: not set, but WORLD_SIZE is '2'"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK: found '', expected"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK: found '-1', expected"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: found 'two'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK: found 2, expected less"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK: found 0, expected less"),
    ],
)
def test_half_an_environment(environment, variables, message):
    environment(**variables)
    with pytest.raises(LMACError, match=message) as error:
        processes()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("world", [1, 2, 3, 10])
def test_each_process_looks_at_all_chunks(world):
    """Its own share first, and no two have the same share."""
    shares = []
    for rank in range(world):
        order = list(Processes(rank, world).order(7))
        assert sorted(order) == list(range(7))
        shares += order[: len(range(rank, 7, world))]
    assert sorted(shares) == list(range(7))


def test_a_name_of_each_run(environment, monkeypatch):
    """Alone any, else that of the launcher."""
    environment()
    assert run_name() != run_name()
    environment(RANK="1", WORLD_SIZE="2")
    assert is_launched()
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LMACError, match="no common launcher .*by torchrun"):
        run_name()
    monkeypatch.setenv("LMAC_RUN", "this")
    assert run_name() == "this" and not is_launched()


def test_the_first_waits_for_the_others(environment, tmp_path):
    environment(RANK="0", WORLD_SIZE="3")
    first = threading.Thread(target=wait_for_others, args=[tmp_path])
    first.start()
    for rank in (1, 2):
        assert first.is_alive()
        (tmp_path / f"left-{rank}").touch()
    first.join(20)
    assert not first.is_alive()
    environment(RANK="2", WORLD_SIZE="3")
    (tmp_path / "left-2").unlink()
    leave(tmp_path)
    assert (tmp_path / "left-2").exists()


def test_those_that_are_not_the_first_say_nothing(environment, caplog):
    environment(RANK="1", WORLD_SIZE="2")
    logger = logging.getLogger("x")
    with be_one_of_many():
        logger.warning("from the second")
        assert get_loudness() is Loudness.QUIET
    logger.warning("after it")
    assert [record.message for record in caplog.records] == ["after it"]
    assert get_loudness() is Loudness.USUAL


@pytest.mark.parametrize(
    "name", ["bin/lmac", "lmac_sb/__main__.py", "my script.py"]
)
def test_those_started_name_the_program_as_it_was_called(
    environment, monkeypatch, tmp_path, name
):
    """What they print is for a user who has not started them."""
    called = tmp_path / name
    called.parent.mkdir(exist_ok=True)
    called.touch()
    monkeypatch.setattr(sys, "argv", [str(called)])
    monkeypatch.setenv("PATH", str(tmp_path))
    expected, given = program(), []

    class Started:
        """A process that has ended."""

        returncode = 0

        def __init__(self, command, env):
            given.append(env)

        def poll(self):
            return 0

        terminate = wait = poll

    monkeypatch.setattr(subprocess, "Popen", Started)
    assert start(1, ["models"]) == 0
    (env,) = given
    started = Path(lmac_sb.__file__).with_name("__main__.py")
    monkeypatch.setattr(sys, "argv", [str(started)])
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    if expected is None:
        expected = ["python", "-m", "lmac_sb"]
    assert program() == expected


def test_files_of_the_current_folder_are_not_run(
    environment, monkeypatch, tmp_path
):
    """They may be of others, as the sounds beside them."""
    environment()
    for name in ("click", "runpy", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert start(1, ["models"]) == 0


def test_modules_are_found_where_the_user_says(
    environment, monkeypatch, tmp_path
):
    environment()
    (tmp_path / "click.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert start(1, ["models"]) == 7


def test_a_parent_is_not_handed_on(monkeypatch):
    """What one of many starts is followed by nobody, or would end at once."""
    monkeypatch.setenv("LMAC_PARENT", str(os.getppid()))
    with be_one_of_many():
        assert "LMAC_PARENT" not in os.environ

"""New processes that need not import anything.

A script that a test starts would spend most of its time on the import of torch
and SpeechBrain. A `Copy` is forked from a server that has imported both, and
has run nothing else. It is a process as any other: it has its own folder,
environment, arguments, output, limits and exit code, and can be killed.
"""

import atexit
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import torch
from speechbrain.utils import logger
from torch.distributed.elastic.multiprocessing.subprocess_handler import (
    subprocess_handler,
)

from lmac_sb.utils.console import Loudness, set_loudness

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["preloaded"])


def start_server():
    """Start the server if there is none, with modules where tests have them."""
    places = [str(ROOT), str(RECIPE), str(Path(__file__).parent)]
    former = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*places, former]))
    try:
        forkserver.ensure_running()
    finally:
        if former is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = former


class Copy:
    """A started process; to be used as one of `subprocess.Popen`.

    Arguments
    ---------
    words : list of str
        What follows ``python`` on a command line: a script, ``-m`` and a
        module or ``-c`` and a program, and its arguments.
    cwd : path
        Where it starts.
    env : dict
        Its environment.
    described : str
        What SpeechBrain would ask pip of the environment, again and again.
    asked : bool
        Whether it can be told something, as one that reads standard input.
    """

    def __init__(self, words, cwd, env, described, asked=False):
        start_server()
        self._pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        ends = [writer for _, writer in self._pipes]
        if asked:
            heard, self._told = CONTEXT.Pipe(duplex=False)
            ends.append(heard)
        given = [list(map(str, words)), str(cwd), dict(env), ends, described]
        self._process = CONTEXT.Process(target=_begin, args=given)
        self._process.start()
        for end in ends:
            end.close()
        self._texts = [[], []]
        self._readers = [
            threading.Thread(target=self._read, args=(number,), daemon=True)
            for number in range(2)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, number):
        """Collect what it prints."""
        reader = self._pipes[number][0]
        while part := os.read(reader.fileno(), 1 << 16):
            self._texts[number].append(part)
        reader.close()

    @property
    def pid(self):
        """Its number."""
        return self._process.pid

    @property
    def returncode(self):
        """Its exit code, negative after a signal; None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def tell(self, text):
        """Write to its standard input."""
        os.write(self._told.fileno(), text.encode())

    def wait_for(self, text):
        """Wait until it has printed this."""
        reading = True
        while text.encode() not in b"".join(self._texts[0]):
            assert reading, b"".join(sum(self._texts, [])).decode()
            reading = self._readers[0].is_alive()
            time.sleep(0.01)

    def communicate(self, timeout=None):
        """Wait for its end; what it has printed, and its errors."""
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired("copy", timeout)
        for reader in self._readers:
            reader.join(10)
        return [b"".join(x).decode("utf-8", "replace") for x in self._texts]

    def send_signal(self, number):
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self):
        """Kill it."""
        self._process.kill()

    def terminate(self):
        """Ask it to end."""
        self._process.terminate()


def _begin(words, cwd, env, ends, described):
    """Become the process: in the copy."""
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, end in zip((1, 2, 0), ends):
        os.dup2(end.fileno(), number)
        end.close()
    os.chdir(cwd)
    logger.get_environment_description = lambda: described
    subprocess.Popen = subprocess_handler.Popen = Fork
    _live(words, env)


def _live(words, env):
    """Run a program with an environment, and end."""
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(
        2, "w", 1, "utf-8", errors="backslashreplace", closefd=False
    )
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", 1)))
    atexit._clear()
    code = _code_of(words)
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Fork(subprocess.Popen):
    """What a launcher starts: a Python among them is forked from it.

    Launchers have run next to nothing when they start others. What they have
    set, a new Python would not have: handlers of signals and of logs.
    """

    def __init__(self, args, *more, **options):
        given = {k for k, value in options.items() if value is not None}
        # Without an environment it is no launcher's.
        fits = "env" in given and given <= {"env", "start_new_session"}
        if more or not fits or args[0] != sys.executable:
            super().__init__(args, *more, **options)
            return
        self.args, self.returncode, self._child_created = args, None, True
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock = threading.Lock()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if options.get("start_new_session"):
                os.setsid()
            for number in signal.valid_signals():
                if callable(signal.getsignal(number)):
                    usual = signal.SIG_DFL
                    if number == signal.SIGINT:
                        usual = signal.default_int_handler
                    signal.signal(number, usual)
            logging.root.handlers.clear()
            logging.root.setLevel(logging.WARNING)
            set_loudness(Loudness.USUAL)
            _live([word for word in args[1:] if word != "-u"], options["env"])


def _code_of(words):
    """Exit code of a program."""
    try:
        _run(words)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 255
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _run(words):
    """Run a script, a module or a program, as Python does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")

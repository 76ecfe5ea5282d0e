"""Run the app until somebody ends it, and leave nothing behind."""

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile

from lmac_sb.app.answer import Limits
from lmac_sb.app.guard import Guard
from lmac_sb.app.shelf import Shelf
from lmac_sb.app.visits import Visits
from lmac_sb.inference.load import default_model, load_interpreter
from lmac_sb.pages.explained import open_explained
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError, is_number, is_whole, shown

__all__ = ["make_app", "make_shelf_app", "serve", "serve_explained"]

INSTALL = 'pip install "lmac-sb[app]"'
INDEX = "index.db"  # of explained clips, in the app's folder
OLDEST = (6, 31)  # version of Gradio
N_PORTS = 50  # after the wanted one, of which a free one is named
GRACE_S = 4  # for answers that Gradio is about to give, when the app ends
# Gradio asks its makers for nothing, and tells them nothing.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def serve(
    model=None,
    *,
    trust=False,
    host="127.0.0.1",
    port=7860,
    max_mb=50,
    max_seconds=600,
):
    """Run the app until Ctrl-C, on this machine alone by default.

    Arguments
    ---------
    model : str, Path or object
        See `lmac_sb.inference.load.load_interpreter`; by default, what
        ``lmac explain`` takes.
    trust : bool
        Whether code that comes with the model may run.
    host : str
        Address to listen on; ``0.0.0.0`` lets others on the network in.
    port : int
        Port to listen on; 0 for any free one.
    max_mb : float
        Largest file that is taken, in megabytes.
    max_seconds : float
        Longest sound that is taken, in seconds.

    Raises
    ------
    LMACError
        If Gradio is not installed, the port is taken, the model cannot be
        loaded, or there is nowhere to write.

    Example
    -------
    >>> serve(port=70000)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: port: found 70000, expected a whole number from 0 to \
65535
    """
    limits = _limits(max_mb, max_seconds)

    def make(folder, hosts):
        """The app of the model."""
        interpreter = load_interpreter(
            default_model() if model is None else model, trust
        )
        app, visits = make_app(interpreter, limits, folder, hosts)
        return app, visits, interpreter.model_name or "a model"

    _serve(host, port, make, "use the model")


def serve_explained(folder, *, host="127.0.0.1", port=7860):
    """Run the app on explained clips until Ctrl-C: to look them through.

    Arguments
    ---------
    folder : str or Path
        Of ``lmac explain``, of a job or of an audit; see
        `lmac_sb.pages.explained.open_explained`.
    host : str
        As of `serve`.
    port : int
        As of `serve`.

    Raises
    ------
    LMACError
        If Gradio is not installed, the port is taken, the folder holds no
        explained clip, or there is nowhere to write.

    Example
    -------
    >>> serve_explained("nowhere", port=0)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    explained = open_explained(folder)
    name = explained.folder.resolve().name

    def make(own, hosts):
        """The app of these clips."""
        clips = progress(explained, unit="clip", desc="looking at the clips")
        shelf = Shelf(explained, os.path.join(own, INDEX), clips)
        return *make_shelf_app(shelf, own, hosts), name

    _serve(host, port, make, "hear the clips")


def _serve(host, port, make, use):
    """Run what a function makes of a folder for files and names of hosts."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        stack.enter_context(_ends_on_signals())
        folder = stack.enter_context(_own_folder())
        _check_gradio()
        address, is_open = _address(host, listening)
        hosts = None if is_open else ["127.0.0.1", "localhost", "::1", host]
        app, visits, name = make(folder, hosts)
        if is_open:
            print(f"others on the network can open this page and {use}")
        print(f"lmac app, {name}: {address} (Ctrl-C ends it)", flush=True)
        _run(app, listening, visits)


def make_app(interpreter, limits, folder, hosts=None):
    """The app as an ASGI application.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        The model.
    limits : lmac_sb.app.answer.Limits
        The largest sound that is taken.
    folder : str or Path
        For all files; ``GRADIO_TEMP_DIR`` must name it.
    hosts : list of str
        See `lmac_sb.app.guard.Guard`.

    Returns
    -------
    app : lmac_sb.app.guard.Guard
        The application.
    visits : lmac_sb.app.visits.Visits
        Its visitors.
    """
    from lmac_sb.app.page import build_page

    visits = Visits(folder)
    page = build_page(interpreter, limits, visits)
    inner = _mounted(page, limits.n_bytes)
    return Guard(inner, folder, hosts, visits, limits.n_bytes), visits


def make_shelf_app(shelf, folder, hosts=None):
    """The app on explained clips as an ASGI application.

    Arguments
    ---------
    shelf : lmac_sb.app.shelf.Shelf
        The clips.
    folder : str or Path
        See `make_app`.
    hosts : list of str
        See `lmac_sb.app.guard.Guard`.

    Returns
    -------
    app : lmac_sb.app.guard.Guard
        The application; it takes no files.
    visits : lmac_sb.app.visits.Visits
        Its visitors.
    """
    from lmac_sb.app.browsing import build_shelf_page

    # The index names places of this machine, and is given to nobody.
    given = os.path.join(folder, "given")
    os.mkdir(given)
    visits = Visits(given)
    page = build_shelf_page(shelf, visits)
    return Guard(_mounted(page, 1), given, hosts), visits


def _mounted(page, most_bytes):
    """A page of Gradio as an ASGI application, which takes such files."""
    import fastapi
    import gradio as gr

    from lmac_sb.app.cards import STYLE

    # Fonts of the visitor's own system: none is loaded.
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    return gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=most_bytes,
        ssr_mode=False,
        mcp_server=False,
        theme=theme,
        css=STYLE,
    )


def _limits(max_mb, max_seconds):
    """The limits, checked."""
    for name, value in (("max_mb", max_mb), ("max_seconds", max_seconds)):
        if not is_number(value) or not 0 < value < float("inf"):
            raise LMACError(
                f"{name}: found {shown(value)}, expected a number above 0"
            )
    return Limits(max_mb, max_seconds)


def _listen(host, port):
    """A socket on the wanted port."""
    if not is_whole(port) or not 0 <= port < 65536:
        raise LMACError(
            f"port: found {shown(port)}, expected a whole number from 0 to "
            "65535"
        )
    try:
        return _bound(host, port)
    except PermissionError as error:
        raise LMACError(
            f"port: {port} is for the system alone, expected one from 1024"
        ) from error
    except OSError as error:
        if isinstance(error, socket.gaierror) or not _can_listen(host):
            raise LMACError(
                f"host: found {shown(host)}, expected an address of this "
                "machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
            ) from error
        raise LMACError(
            f"port: {port} is taken by another program; {_free(host, port)} "
            "is free, give that one"
        ) from error


def _bound(host, port):
    """A socket bound to an address."""
    family, *_, place = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere, it would share the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen()  # who asks early waits
    except BaseException:
        made.close()
        raise
    return made


def _can_listen(host):
    """Whether the address is one of this machine."""
    try:
        _bound(host, 0).close()
    except OSError:
        return False
    return True


def _free(host, port):
    """A free port, near another one where there is one."""
    for near in [*range(port + 1, min(port + N_PORTS, 65536)), 0]:
        try:
            with _bound(host, near) as made:
                return made.getsockname()[1]
        except OSError:
            continue
    return "no other"


def _address(host, listening):
    """The page's address, and whether others on the network can reach it."""
    ip, port = listening.getsockname()[:2]
    is_open = not ipaddress.ip_address(ip.split("%")[0]).is_loopback
    name = f"[{host}]" if ":" in host else host
    if ip in ("0.0.0.0", "::"):  # no address that one could open
        name = "127.0.0.1" if ip == "0.0.0.0" else "[::1]"
    return f"http://{name}:{port}", is_open


@contextlib.contextmanager
def _ends_on_signals():
    """A context that is left in order when the process is told to end."""
    told = []

    def leave(number, frame):
        """End, once; while it answers, the server does it."""
        if told:
            return  # what was begun is deleted
        told.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def terminal_closed(number, frame):
        """End in the same way."""
        signal.raise_signal(signal.SIGTERM)

    handlers = {"SIGINT": leave, "SIGTERM": leave, "SIGHUP": terminal_closed}
    former = {}
    for name, handler in handlers.items():
        # Some systems have no SIGHUP, and only the main thread gets signals.
        with contextlib.suppress(AttributeError, ValueError):
            number = getattr(signal, name)
            # `nohup` has it ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _own_folder():
    """A folder for all temporary files of this process, deleted at the end."""
    import matplotlib

    # Without a home, it makes folders that it deletes itself, after the end.
    matplotlib.get_configdir(), matplotlib.get_cachedir()
    try:
        folder = os.path.realpath(tempfile.mkdtemp(prefix="lmac_app_"))
    except OSError as error:
        raise LMACError(
            "TMPDIR: found no folder that can be written to, expected one for "
            f"sounds ({error.strerror})"
        ) from error
    ours = {**QUIET, "GRADIO_TEMP_DIR": folder}
    former = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    usual, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield folder
    finally:
        tempfile.tempdir = usual
        for name, value in former.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def _check_gradio():
    """Refuse to go on without Gradio, before a model is loaded."""
    try:
        import gradio
    except ImportError as error:
        raise LMACError(
            f"gradio: not installed, the app needs it: {INSTALL}"
        ) from error
    found = tuple(int(part) for part in gradio.__version__.split(".")[:2])
    if found < OLDEST:
        raise LMACError(
            f"gradio: found {gradio.__version__}, expected "
            f"{'.'.join(map(str, OLDEST))} or newer: {INSTALL}"
        )


def _run(app, listening, visits):
    """Answer until Ctrl-C."""
    import uvicorn

    class Server(uvicorn.Server):
        """One that neither waits for open pages nor lets them wait."""

        def handle_exit(self, number, frame):
            """Say so, and end once, however often it is told to."""
            if not self.should_exit:
                print("stopping ...", flush=True)
                super().handle_exit(number, frame)

        async def shutdown(self, sockets=None):
            """Stop answering."""
            visits.close_all()
            app.end()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])

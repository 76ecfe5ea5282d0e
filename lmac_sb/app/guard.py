"""What stands between the browser and Gradio.

Only what the page needs gets through: no way to make the server read another
file or ask another server, and no address of another server in the page. The
browser is told the same by a content security policy.
"""

import asyncio
import json
import os
import re
from pathlib import Path

__all__ = ["Guard"]

# Gradio's own code is inline, and shapes waveforms in workers.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'none'",
    )
)
# Of a page of others that shows this one in a frame, a click could be ours.
UNFRAMED = "frame-ancestors 'none'"
HEADERS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
# Beginnings of the addresses that the page asks for; the others are for
# programs, logins, other servers, and pages about the page.
ALLOWED = (
    *("/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
    *("/assets/", "/static/", "/svelte/"),
    *(
        f"/gradio_api/{name}"
        for name in (
            *("upload", "queue/join", "queue/data", "heartbeat/", "cancel"),
            *("run/predict", "startup-events", "reset", "app_id"),
        )
    ),
)
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
MOST_AROUND = 1 << 16  # bytes of a form about an uploaded file
SWEEP_S = 60
ASKED = ("/gradio_api/queue/join", "/gradio_api/run/predict")
MOST_ASKED = 1 << 20  # bytes of what the page asks; sounds are uploaded
PAGES = ("/", "/config")
# Of these answers, what is left out: pictures and addresses for those who link
# to the page, and sounds that are examples for programs; and the types of
# files that Gradio's script lets be given as sounds, which are not ours.
SCRIPT = "/assets/audio-"
_LEFT_OUT = re.compile(
    rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>'
    rb"|https://github\.com/gradio-app/[^\"]*"
    rb"|filetype:`audio/[^`]*`,"
)


class Guard:
    """An ASGI application around Gradio's.

    Arguments
    ---------
    app : callable
        The application inside.
    folder : str or Path
        The only one whose files are given.
    hosts : list of str
        Names by which the server may be called, without port, so that pages of
        other servers can neither read, ask nor show it. None for any.
    visits : lmac_sb.app.visits.Visits
        Knows how much may be uploaded. None if nothing may be.
    largest : int
        Bytes of the largest file that is taken.

    Example
    -------
    >>> guard = Guard(None, "/tmp/x", ["127.0.0.1"])
    >>> guard.is_allowed("/gradio_api/file=/etc/passwd")
    False
    """

    def __init__(self, app, folder, hosts=None, visits=None, largest=0):
        self.app = app
        self.visits, self.largest = visits, largest
        self._coming = 0  # bytes of uploads that have begun
        self.folder = Path(folder).resolve()
        self.hosts = hosts
        self._ending = asyncio.Event()

    def end(self):
        """Close what is open, so that nothing has to be waited for."""
        self._ending.set()

    async def __call__(self, scope, receive, send):
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                sweeping = asyncio.ensure_future(self._sweep())
                try:
                    await self.app(scope, receive, send)
                finally:
                    sweeping.cancel()
            return
        receive = self._until_end(receive)
        send = self._with_headers(send)
        path = scope["path"]
        if not self._is_meant(scope):
            await _refuse(send, 403, "meant for another server or page")
        elif not self.is_allowed(path):
            await _refuse(send, 404, "not here")
        elif path.startswith(UPLOAD):
            await self._take(scope, receive, send)
        elif path.rstrip("/") in ASKED:
            await self._ask(scope, receive, send)
        elif path in PAGES or path.startswith(SCRIPT):
            await self._rewrite(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _with_headers(self, send):
        """`send`, which adds what the browser is to keep to."""
        policy = POLICY if self.hosts is None else f"{POLICY}; {UNFRAMED}"
        ours = {"content-security-policy": policy, **HEADERS}
        added = [(k.encode(), v.encode()) for k, v in ours.items()]

        async def wrapped(message):
            """One message."""
            if message["type"] == "http.response.start":
                kept = [
                    pair
                    for pair in message.get("headers", [])
                    if pair[0].decode("latin-1").lower() not in ours
                ]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        return wrapped

    def _until_end(self, receive):
        """`receive`, for which everyone has gone when the app ends."""

        async def wrapped():
            """The next message."""
            coming = asyncio.ensure_future(receive())
            ending = asyncio.ensure_future(self._ending.wait())
            try:
                await asyncio.wait(
                    (coming, ending), return_when=asyncio.FIRST_COMPLETED
                )
                if coming.done():
                    return coming.result()
                return {"type": "http.disconnect"}
            finally:
                coming.cancel()
                ending.cancel()

        return wrapped

    def is_allowed(self, path):
        """Whether an address is one of the page.

        Arguments
        ---------
        path : str
            As it was asked for, without percent signs.

        Returns
        -------
        bool
        """
        if path.startswith(FILE):
            return self._is_ours(path[len(FILE) :])
        if path.startswith(UPLOAD) and self.visits is None:
            return False
        return path in PAGES or path.startswith(ALLOWED)

    def _is_ours(self, path):
        """Whether a file lies in the app's folder."""
        real = Path(os.path.realpath(path))
        return os.path.isabs(path) and real.is_relative_to(self.folder)

    def _is_meant(self, scope):
        """Whether the browser means this server, and asks for its own page."""
        if self.hosts is None:
            return True
        headers = dict(scope["headers"])
        called = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", f"http://{called}".encode())
        return (
            re.sub(r":\d+$", "", called).strip("[]") in self.hosts
            and origin.decode("latin-1") == f"http://{called}"
        )

    async def _sweep(self):
        """Delete again and again what was uploaded and no page has taken."""
        while self.visits is not None:
            await asyncio.sleep(SWEEP_S)
            self.visits.room(self.largest)

    async def _take(self, scope, receive, send):
        """Pass on an upload for which there is room."""
        size = dict(scope["headers"]).get(b"content-length")
        if scope["method"] == "POST" and size is None:
            await _refuse(send, 411, "does not say how large it is")
            return
        size = int(size or 0)  # the server lets no more come
        if size > self.largest + MOST_AROUND:
            await _refuse(send, 413, "the file is too large")
        elif size + self._coming > self.visits.room(self.largest):
            await _refuse(
                send,
                507,
                "this computer holds as many sounds as it may; close pages "
                "that you no longer need, or try again in ten minutes",
            )
        else:
            self._coming += size
            try:
                await self.app(scope, receive, send)
            finally:
                self._coming -= size

    async def _ask(self, scope, receive, send):
        """Pass on a question that names no file but those of the app."""
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_ASKED:
                await _refuse(send, 413, "asks too much at once")
                return
        try:
            paths = list(_paths(json.loads(body)))
        except (ValueError, RecursionError):
            await _refuse(send, 400, "no JSON")
            return
        if not all(isinstance(x, str) and self._is_ours(x) for x in paths):
            await _refuse(send, 400, "names a file that was not uploaded")
            return
        messages = [{"type": "http.request", "body": body}]

        async def again():
            """The question, and then what else comes."""
            return messages.pop() if messages else await receive()

        await self.app(scope, again, send)

    async def _rewrite(self, scope, receive, send):
        """The page or a script, without what is not to be in it."""
        plain = [
            pair for pair in scope["headers"] if pair[0] != b"accept-encoding"
        ]
        start, parts = {}, []

        async def gather(message):
            """Wait for the whole answer."""
            if message["type"] == "http.response.start":
                start.update(message)
            if message["type"] != "http.response.body":
                return
            parts.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = _LEFT_OUT.sub(b"", b"".join(parts))
            start["headers"] = [
                *(x for x in start["headers"] if x[0] != b"content-length"),
                (b"content-length", str(len(body)).encode()),
            ]
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app({**scope, "headers": plain}, receive, gather)


def _paths(value):
    """Files that a question names, wherever in it."""
    if isinstance(value, dict):
        if value.get("path") is not None:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


async def _refuse(send, status, reason):
    """A short answer in place of Gradio's."""
    headers = [(b"content-type", b"text/plain")]
    await send(
        {"type": "http.response.start", "status": status, "headers": headers}
    )
    await send({"type": "http.response.body", "body": reason.encode()})

"""The files of each visitor, apart from those of others, until the page closes.

Gradio keeps what is uploaded under a name made from its content, so that two
visitors who give the same sound share one file: it is deleted with the last of
them.
"""

import os
import secrets
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from lmac_sb.utils.errors import LMACError

__all__ = ["Stopped", "Visit", "Visits", "interruptible"]

UNCLAIMED_S = 600  # an upload that no page has taken until then is deleted
MOST_LARGE = 20  # of the largest sounds, so many are kept at once
MOST_SMALL = 50  # and in place of each of them, so many small ones
OURS = "visit_"  # how the folders of visits begin


class Stopped(BaseException):
    """Nobody waits for the explanation any more.

    Not an Exception: what handles those, such as a loop over methods, is not
    to go on.

    Example
    -------
    >>> issubclass(Stopped, Exception)
    False
    """


class Visit:
    """One open page.

    Arguments
    ---------
    folder : str or Path
        For what is made for it; must not exist yet.

    Example
    -------
    >>> visit = Visit(getfixture("tmp_path") / "visit")
    >>> visit.stop()
    >>> visit.check()
    Traceback (most recent call last):
    ...
    lmac_sb.app.visits.Stopped
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir()
        self.sound = None  # the file that was given last
        self._stopped = threading.Event()

    def start(self):
        """Begin an explanation, whatever became of the last one."""
        self._stopped.clear()

    def stop(self):
        """End the explanation that is being made."""
        self._stopped.set()

    def check(self):
        """Raise `Stopped` if the explanation is to end."""
        if self._stopped.is_set():
            raise Stopped

    def new_folder(self):
        """An empty folder for one answer, in place of the one before.

        Returns
        -------
        pathlib.Path
        """
        for former in self.folder.iterdir():
            shutil.rmtree(former, ignore_errors=True)
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        return folder


class Visits:
    """All open pages.

    Arguments
    ---------
    folder : str or Path
        Holds all of their files, and what is uploaded.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> sound = folder / "upload" / "dog.wav"
    >>> sound.parent.mkdir()
    >>> sound.touch()
    >>> visits = Visits(folder)
    >>> visits.keep("one", sound)
    >>> visits.keep("other", sound)
    >>> visits.close("one")
    >>> sound.exists()
    True
    >>> visits.close("other")
    >>> sound.exists(), list(folder.iterdir())
    (False, [])
    """

    def __init__(self, folder):
        # As Gradio names it; a link may lead there.
        self.folder = Path(folder).resolve()
        self._visits = {}
        self._lock = threading.RLock()

    def keep(self, session, sound):
        """Take the sound that a page gives, in place of the one before.

        Arguments
        ---------
        session : str
            The page.
        sound : str or Path or None
            The uploaded file; None if it was taken away.

        Raises
        ------
        LMACError
            If it is no file that was uploaded.
        """
        if sound is not None:
            sound = Path(os.path.realpath(sound))
            if not sound.is_relative_to(self.folder):
                raise LMACError("sound: found a file that was not uploaded")
        with self._lock:
            visit = self.enter(session)
            former, visit.sound = visit.sound, sound
            self._forget(former)

    def enter(self, session):
        """The visit of a page, which begins if it is new.

        Arguments
        ---------
        session : str
            The page.

        Returns
        -------
        Visit
        """
        with self._lock:
            if session not in self._visits:
                place = self.folder / f"{OURS}{secrets.token_hex(16)}"
                self._visits[session] = Visit(place)
            return self._visits[session]

    def find(self, session, sound):
        """The visit of a page that has given a sound.

        Arguments
        ---------
        session : str
            The page.
        sound : str or Path or None
            What it asks about.

        Returns
        -------
        Visit

        Raises
        ------
        LMACError
            If the page has given none, or another one, or it was closed.
        """
        if sound is None:
            raise LMACError("sound: found none, drop a file or record one")
        with self._lock:
            visit = self._visits.get(session)
        if (
            visit is None
            or visit.sound != Path(os.path.realpath(sound))
            or not visit.sound.is_file()
        ):
            raise LMACError(
                "sound: it is no longer here, since the page was away or a day "
                "old; give it once more"
            )
        return visit

    def stop(self, session):
        """End the explanation that a page waits for.

        Arguments
        ---------
        session : str
            The page.
        """
        with self._lock:
            visit = self._visits.get(session)
        if visit is not None:
            visit.stop()

    def close(self, session):
        """Delete all that a page gave, and all that was made for it.

        Arguments
        ---------
        session : str
            The page.
        """
        with self._lock:
            visit = self._visits.pop(session, None)
            if visit is None:
                return
            visit.stop()
            self._forget(visit.sound)
        shutil.rmtree(visit.folder, ignore_errors=True)

    def close_all(self):
        """The same of all pages."""
        with self._lock:
            sessions = list(self._visits)
        for session in sessions:
            self.close(session)

    def leave(self, visit):
        """Delete what was written after the page was closed.

        Arguments
        ---------
        visit : Visit
            From `find`, when its explanation has ended.
        """
        with self._lock:
            if visit not in self._visits.values():
                shutil.rmtree(visit.folder, ignore_errors=True)

    def room(self, largest):
        """How many bytes may still be uploaded.

        Uploads that no page has taken for minutes are deleted first.

        Arguments
        ---------
        largest : int
            Bytes of the largest sound that is taken.

        Returns
        -------
        int
        """
        oldest, used = time.time() - UNCLAIMED_S, 0
        with self._lock:
            held = {visit.sound for visit in self._visits.values()}
            for path in (*self.folder.glob("*"), *self.folder.glob("*/*")):
                if path.parent.name.startswith(OURS) or not path.is_file():
                    continue
                with suppress(FileNotFoundError):  # it went meanwhile
                    about = path.stat()
                    if path not in held and about.st_mtime < oldest:
                        self._forget(path)
                    else:
                        used += max(about.st_size, largest // MOST_SMALL)
        return MOST_LARGE * largest - used

    def _forget(self, sound):
        """Delete an upload that no page holds any more."""
        held = {visit.sound for visit in self._visits.values()}
        if sound is None or sound in held:
            return
        sound.unlink(missing_ok=True)
        try:
            sound.parent.rmdir()  # Gradio makes one for each upload
        except OSError:
            pass  # holds another upload, or is gone


@contextmanager
def interruptible(classifier, check):
    """A context in which each pass of a classifier may be its last.

    Arguments
    ---------
    classifier : lmac_sb.models.frozen.FrozenClassifier
        Of an interpreter.
    check : callable
        Called before each pass; raises where no other is wanted.

    Example
    -------
    >>> visit = Visit(getfixture("tmp_path") / "visit")
    >>> visit.stop()
    >>> with interruptible(explainer.classifier, visit.check):
    ...     explainer(wavs)
    Traceback (most recent call last):
    ...
    lmac_sb.app.visits.Stopped
    """
    # Some ways to call it begin at the model inside.
    inner = classifier.embedding_model
    hooks = [
        module.register_forward_pre_hook(lambda *_: check())
        for module in (classifier, inner, *inner.children())
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

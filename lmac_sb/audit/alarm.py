"""What an audit warns of: one finding, with how sure it is."""

from typing import NamedTuple, Optional

__all__ = ["KINDS", "Alarm", "ranked"]

# Every kind of alarm with what it says of the class that it names.
KINDS = {
    "band": "its decisions rest on a band outside of the loud event",
    "place": "its decisions rest on a place outside of the loud event",
    "background": "its decisions rest on all that is not the loud event",
    "survives": "its decisions stay when the loud event is removed",
    "column": "its decisions depend on a column of the user's table",
}


class Alarm(NamedTuple):
    """A shortcut that a class's decisions may rest on.

    Arguments
    ---------
    kind : str
        One of `KINDS`.
    name : str
        The class, as the classifier calls it.
    where : str
        Band, place or value in words.
    effect : tuple of float
        Mean, and the lower and upper end of its 95 % interval: shares.
    effect_of : str
        What the effect is a share of.
    p : float
        Of the test that `effect_of` names, under no effect.
    n : int
        Clips that were looked at.
    text : str
        A sentence for people.
    examples : tuple of str
        Ids of the clips that show it best, the best one first.
    q : float
        The least false discovery rate at which it is found, over all tests.
    band_hz : tuple of float
        Lower and upper end in Hz; None for all.
    time : tuple of float
        Start and end as shares of the clip; None for all.
    column : str
        Of the user's table; None without.

    Example
    -------
    >>> alarm = Alarm("band", "dog", "below 190 Hz", (0.7, 0.6, 0.8),
    ...     "decisions that fall", 1e-9, 40, "A hum?", ("a.wav",),
    ...     band_hz=(0.0, 190.0))
    >>> alarm.as_json()["class"], alarm.as_json()["band_hz"]
    ('dog', [0.0, 190.0])
    """

    kind: str
    name: str
    where: str
    effect: tuple
    effect_of: str
    p: float
    n: int
    text: str
    examples: tuple
    q: float = 1.0
    band_hz: Optional[tuple] = None
    time: Optional[tuple] = None
    column: Optional[str] = None

    def as_json(self):
        """The alarm in plain values, as ``audit.json`` holds it.

        Returns
        -------
        dict
        """
        plain = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._asdict().items()
        }
        plain["class"] = plain.pop("name")
        return plain


def ranked(alarms):
    """Alarms, those of the largest effect first.

    Arguments
    ---------
    alarms : list of Alarm
        Of any kinds.

    Returns
    -------
    list of Alarm
        Sorted by the lower end of the effect's interval, which is small for
        a small effect and for an uncertain one.

    Example
    -------
    >>> ranked([])
    []
    """
    return sorted(alarms, key=lambda x: (-x.effect[1], x.q, x.name, x.where))

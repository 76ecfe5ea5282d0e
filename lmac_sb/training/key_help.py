"""Help on the keys of a yaml file, from the file's own comments."""

import re
from typing import NamedTuple

import click
import yaml

from lmac_sb.training.keys import KEYS
from lmac_sb.training.run_options import SHOWN

__all__ = ["Entry", "Section", "key_help", "read_sections"]

MORE = """\
Objects and nested values of the file are overridden by yaml, which leaves what
it does not name: --dataloader_options "{num_workers: 2}". The other run options
are SpeechBrain's, see speechbrain.utils.run_opts in its documentation."""


class Entry(NamedTuple):
    """A key of a yaml file.

    Arguments
    ---------
    key : str
        Its name.
    default : str
        Its value, as the file has it.
    meaning : str
        Its comment; empty if it has none.

    Example
    -------
    >>> Entry("snr_db", "0.0", "ratio of a clip to its noise, in dB").key
    'snr_db'
    """

    key: str
    default: str
    meaning: str


class Section(NamedTuple):
    """Keys that follow each other.

    Arguments
    ---------
    title : str
        The comment above them; empty if there is none.
    entries : list of Entry
        At least one.

    Example
    -------
    >>> len(Section("Data", [Entry("snr_db", "0.0", "in dB")]).entries)
    1
    """

    title: str
    entries: list


_RUN = Section("How it is run", [Entry(*row) for row in SHOWN])


def read_sections(text):
    r"""The keys with plain values of a yaml file, and their comments.

    Arguments
    ---------
    text : str
        Content of a hyperpyyaml file, whose keys are all top-level.

    Returns
    -------
    str
        What the file is, from the comment at its top.
    list of Section
        In the order of the file. Objects and nested keys are left out.

    Example
    -------
    >>> text = "# ##\n# Mine.\n# ##\n\n# Training\nlr: 0.1 # step, in bels\n"
    >>> title, (section,) = read_sections(text)
    >>> title, section.title
    ('Mine.', 'Training')
    >>> section.entries
    [Entry(key='lr', default='0.1', meaning='step, in bels')]
    """
    lines = text.splitlines()
    banner, start = _block(lines, 0)
    sections = [Section("", [])]
    for key, value in yaml.compose(text, Loader=yaml.SafeLoader).value:
        number = key.start_mark.line
        above, first = _comment_above(lines, number, start)
        inline = _comment_of(lines[number], key, value)
        # A comment after an empty line is that of a section, unless the key
        # has no other.
        if above and inline and not lines[first - 1].strip():
            sections.append(Section(above, []))
        if _is_plain(key.value, value):
            entry = Entry(key.value, _default(text, value), inline or above)
            sections[-1].entries.append(entry)
    return banner, [section for section in sections if section.entries]


def key_help(text, usage):
    """Help on a command that takes the keys of a yaml file.

    Arguments
    ---------
    text : str
        Content of the yaml file; empty: only run options are shown.
    usage : str
        How the command is called.

    Returns
    -------
    str
        What the file does; each key with default, unit and meaning, in
        sections; run options.

    Example
    -------
    >>> "--lr 0.1  size of a step" in key_help("lr: 0.1 # size of a step", "x")
    True
    """
    title, sections = read_sections(text) if text else ("", [])
    formatter = click.HelpFormatter(max_width=100)
    formatter.write_usage(usage, prefix="usage: ")
    if title:
        formatter.write_paragraph()
        formatter.write_text(title)
    for section in (*sections, _RUN):
        if section.title:
            formatter.write_paragraph()
            formatter.write_text(section.title)
        rows = [
            (f"--{entry.key} {entry.default}".rstrip(), entry.meaning)
            for entry in section.entries
        ]
        with formatter.indentation():
            formatter.write_dl(rows, col_max=36)
    return f"{formatter.getvalue()}\n{MORE}"


def _block(lines, number):
    """Text of the comment that begins at a line, and the line after it."""
    words = []
    while number < len(lines) and lines[number].startswith("#"):
        words += lines[number].lstrip("#").strip(" #").split()
        number += 1
    return " ".join(words), number


def _comment_above(lines, number, start):
    """The comment right above a line, and its first line."""
    first = number
    while first > start and lines[first - 1].startswith("#"):
        first -= 1
    return _block(lines[:number], first)[0], first


def _comment_of(line, key, value):
    """The comment at the end of the line of a key."""
    mark = value.end_mark
    same = mark.line == key.start_mark.line
    rest = line[mark.column if same else key.end_mark.column :]
    found = re.search(r"(?:^|\s)#\s*(.*)", rest)
    return found[1].strip() if found else ""


def _is_plain(key, value):
    """Whether a value is a number, a text or a list of these."""
    if key in KEYS and KEYS[key].kind is None:
        return False
    if value.tag.startswith("!") and value.tag not in ("!ref", "!PLACEHOLDER"):
        return False
    return not (isinstance(value, yaml.MappingNode) and value.value)


def _default(text, value):
    """A value as the file has it, on one line."""
    if value.tag == "!PLACEHOLDER":
        return "(must be given)"
    if isinstance(value, yaml.SequenceNode) and not value.flow_style:
        return f"[{', '.join(item.value for item in value.value)}]"
    written = text[value.start_mark.index : value.end_mark.index]
    return " ".join(written.removeprefix("!ref").split())

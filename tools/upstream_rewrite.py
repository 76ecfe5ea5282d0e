"""Our files with the names that they have in SpeechBrain.

Authors
 * The lmac-sb authors 2026
"""

import ast
import builtins
import io
import re
import tokenize

from lmac_sb.errors import LMACError

PACKAGE = "lmac_sb"
TARGET = "speechbrain.lobes.lmac"

# Files of the recipe whose names are taken in SpeechBrain's folder.
RENAMED = {
    "esc50_prepare": "lmac_prepare",
    "eval": "eval_lmac",
    "train_l2i": "train_lmac_l2i",
}
# Words of our files and what stands for them there; `eval` is a word of
# Python's too, so only `eval.py` is taken for the file.
WORDS = {
    PACKAGE: TARGET,
    **{k: v for k, v in RENAMED.items() if not hasattr(builtins, k)},
}


def rewrite_python(text, name, deeper=0, without=()):
    """A module of ours with the names that it has in SpeechBrain.

    Arguments
    ---------
    text : str
        The source.
    name : str
        Its file, for messages.
    deeper : int
        How many folders further from the repository's root it will lie;
        ``Path(__file__).parents[n]`` follows.
    without : collection of str
        Functions of the module to leave out.

    Returns
    -------
    str
        The new source. Names, imports, strings and comments are told apart;
        ``lmac_sb`` as the name of anything but the package is refused.

    Example
    -------
    >>> rewrite_python("from lmac_sb.audio import read_audio", "a.py")
    'from speechbrain.lobes.lmac.audio import read_audio'
    >>> rewrite_python("f(lmac_sb=1)", "a.py")
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: a.py, line 1: lmac_sb names something else ...
    """
    text = _drop_functions(text, name, without)
    text = splice(text, _deeper_parents(text, name, deeper))
    return splice(text, _renamed_tokens(text, name))


def parse(text, name):
    """Syntax tree, or one message."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise LMACError(f"{name}: is no Python ({error})") from error


def _drop_functions(text, name, without):
    """The source without some of its top-level functions."""
    nodes = {
        node.name: node
        for node in parse(text, name).body
        if isinstance(node, ast.FunctionDef)
    }
    missing = sorted(set(without) - set(nodes))
    if missing:
        raise LMACError(
            f"{name}: has no function {missing[0]}, which tools/"
            "make_upstream.py wants to leave out"
        )
    lines = text.splitlines(keepends=True)
    for node in sorted(
        (nodes[key] for key in without), key=lambda node: -node.lineno
    ):
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        del lines[first - 1 : node.end_lineno]
    return "".join(lines)


def _deeper_parents(text, name, deeper):
    """Edits that let ``Path(__file__)...parents[n]`` mean the same folder."""
    if not deeper:
        return
    lines = text.splitlines()
    for node in ast.walk(parse(text, name)):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "parents"
            and isinstance(node.slice, ast.Constant)
            and "__file__" in ast.unparse(node.value)
        ):
            place = node.slice
            row = place.lineno
            # The tree counts bytes, the rest counts characters.
            start, end = (
                len(lines[row - 1].encode()[:column].decode())
                for column in (place.col_offset, place.end_col_offset)
            )
            yield (row, start), (row, end), str(place.value + deeper)


def _renamed_tokens(text, name):
    """Edits of names, strings and comments that speak of what is renamed."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for before, token, after in zip([None, *tokens], tokens, tokens[1:]):
        if token.type == tokenize.NAME and token.string in WORDS:
            if (before and before.string in (".", "as", "def", "class")) or (
                after.string in ("=", ":=")
            ):
                raise LMACError(
                    f"{name}, line {token.start[0]}: {token.string} names "
                    "something else than the module; rename it"
                )
            yield token.start, token.end, WORDS[token.string]
        elif token.type != tokenize.NAME:
            new = rewrite_text(token.string)
            if new != token.string:
                yield token.start, token.end, new


def rename_tests(text, modules):
    """Names of test files, and of those that tests import, as they go there.

    Arguments
    ---------
    text : str
        A test, or the name of its file.
    modules : collection of str
        All tests of ours, without ``.py``.

    Returns
    -------
    str
        With names that are unique among all of SpeechBrain's tests.

    Example
    -------
    >>> rename_tests("from test_a import b  # test_a.py", ["test_a"])
    'from test_lmac_a import b  # test_lmac_a.py'
    """

    def renamed(match):
        """The new name, if it is one of ours that needs one."""
        if match[0] not in modules or "lmac" in match[0]:
            return match[0]
        return match[0].replace("test_", "test_lmac_", 1)

    return re.sub(
        r"(?:(?<=from )|(?<=import ))test_\w+|\btest_\w+(?=\.py\b)",
        renamed,
        text,
    )


def splice(text, edits):
    """The text with pieces replaced: (row, column) from and to, new piece."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for (row, column), (end_row, end_column), new in sorted(
        edits, reverse=True
    ):
        start = starts[row - 1] + column
        end = starts[end_row - 1] + end_column
        text = text[:start] + new + text[end:]
    return text


def rewrite_text(text):
    """Strings, comments, yaml and csv with the names of SpeechBrain.

    Arguments
    ---------
    text : str
        Any text.

    Returns
    -------
    str

    Example
    -------
    >>> rewrite_text("audio: !new:lmac_sb.audio.Preprocessor # lmac_sb_x")
    'audio: !new:speechbrain.lobes.lmac.audio.Preprocessor # lmac_sb_x'
    """
    files = {f"{old}.py": f"{new}.py" for old, new in RENAMED.items()}
    for old, new in {**files, **WORDS}.items():
        # A \n in a source is a letter too many before the word.
        pattern = rf"(?:\b|(?<=\\[ntr])){re.escape(old)}\b"
        text = re.sub(pattern, new, text)
    return text

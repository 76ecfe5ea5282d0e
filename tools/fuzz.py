#!/usr/bin/env python3
"""Hammer what reads files of others, with inputs that coverage leads.

    pip install --only-binary :all: atheris==3.0.0   # Linux, some Pythons only
    python tools/fuzz.py manifest -max_total_time=90
    python tools/fuzz.py manifest crash-0123         # one input again

Arguments after the target's name go to libFuzzer. It stops at the first input
for which a check fails, and writes that input to a file. atheris has wheels
for few versions of Python, so it is not among the pinned packages; the tests
(`tests/fuzz`) run the same targets with Hypothesis.

Each target makes an input from random choices (`make`), and checks how the
reader handles it (`check`). The reader must accept it, or refuse it with an
`LMACError` whose message is one line. Other exceptions, and unbounded memory
or time, are failures.
"""

import copy
import functools
import io
import json
import re
import resource
import sys
import tempfile
import unicodedata
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 8 << 30  # bytes of address space, of which torch reserves some
SECONDS = 20  # time limit for one input
LONGEST_MESSAGE = 4000

META = b"""filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
2-100038-A-14.wav,2,14,"bird, small",False,100038,A
3-100210-A-36.wav,3,36,dog+cat,False,100210,A
"""
MANIFEST = """\
{"id": "1-a", "wav": "/data/1-a.wav", "class_string": "dög", "duration": 5.0}
{"id": "2-b", "wav": "/data/2-b.wav", "fold": 2, "stem": null, "list": [1, {}]}
""".encode()
RESULTS = b"""id,setting,method,keep,right,label,decision,AI,p,warning
1-a,clean,lmac,own,1,dog,dog,100.0,0.9,
2-b,clean,lmac+5,0.5,0,"cat, wild",dog,,1e-3,quiet
"""
KEY = (
    b'{"test": "t", "trials": {"k": {"id": "1-a", "setting": "clean", '
    b'"sounds": {"x": "lmac", "y": "l2i"}}}}'
)
RATINGS = (
    b'{"test": "t", "listener": "Ann", "trials": [{"trial": "k", "ratings": '
    b'[{"code": "y", "fit": 1, "quality": 100}, '
    b'{"code": "x", "fit": 50, "quality": 7}]}]}'
)
YAML = b"""# A model
sample_rate: 8000
labels: ["dog", 'cat', !!str 3]
encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder {}
layer: !new:torch.nn.Linear
  in_features: 3
  out_features: !ref <n>
n: 2
modules:
  layer: !ref <layer>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
  loadables: {layer: !ref <layer>, label_encoder: !ref <encoder>}
"""
FACTS = {
    "id": "1-a",
    "file": "/data/1-a.wav",
    "label": "dog",
    "decision": "cat",
    "classes": ["dog", "cat"],
    "p": [0.25, 0.75],
    "p_in": [0.5, 0.5],
    "p_out": [None, 0.1],
    "verdict": "faithful",
    "stable": False,
    "agreement": {"shift and noise": 0.5},
    "metrics": {"FF": 0.5, "AI": None},
    "sample_rate": 8000,
    "n_samples": 400,
    "hop_samples": 100,
    "n_bins": 5,
    "gain": 1.0,
    "threshold": None,
    "windows": [
        {
            "start": 0,
            "end": 0.05,
            "decision": "dog",
            "p": 0.5,
            "p_in": None,
            "p_out": 0.1,
            "verdict": "silent",
        }
    ],
    "refine_steps": 0,
}
SOUNDS = ("original", "interpretation", "residual")
FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
)
# Pieces of mistakes and attacks, and of inputs at the limits of parsers.
TOKENS = (
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b"\x1b[2J",
    "\u2028\x85".encode(),
    b'"',
    b'"a\nb"',
    b",",
    b"{",
    b"[",
    b"}",
    b"[" * 900,
    b"]" * 900,
    b"[" * 5000,
    b'{"a":' * 900,
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"1" * 400,
    b"9" * 5000,
    b'"\\ud800"',
    b"\\U11111111",
    b"x" * 300,
    b"x" * 200_000,
    b"../",
    b"</script><script>alert(1)</script><!--<script>",
    b"'\"><img src=x onerror=alert(1)>&lt;",
    b"!new:torch.nn.Linear ",
    b"!apply:os.system [ls]",
    b"!!python/name:os.system",
    b"!ref <n.real>",
    b"!!int ",
    b"!!float ",
    b"!!null ",
    b"&a *a",
    b"<<: ",
    b"(1,)",
    b"? ",
    b"---\n",
    b"%YAML 1.2\n",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x00",
    b"\x00\x00\xc0\x7f",
    b"RIFF",
    b"data",
    b"fmt ",
    b"fLaC",
    b"OggS",
)
# Values that replace others in a JSON file.
VALUES = (
    None,
    True,
    0,
    -1,
    10**400,
    1.5,
    float("inf"),
    "",
    "\ud800\x00\u2028",
    "</script><script>alert(1)</script><!--<script>",
    "'\"><img src=x onerror=alert(1)>&lt;",
    "{{script}}{{data}}",
    [],
    {},
    [None],
    {"__proto__": 1},
    {"</script>": 1},
)
BLOCK = re.compile(
    r'<script type="application/json" id="[a-z0-9-]+">([^<>&]*)</script>\n'
)

Target = namedtuple("Target", "make check")


def mutate(pick, content):
    """Bytes with some random changes, which may cut off the end."""
    content = bytearray(content)
    for _ in range(pick.number(0, 6)):
        start = pick.number(0, len(content))
        stop = min(len(content), start + pick.number(0, 16))
        kind = pick.number(0, 4)
        if kind == 0:
            content[start:stop] = TOKENS[pick.number(0, len(TOKENS) - 1)]
        elif kind == 1:
            content[start:stop] = pick.bytes(16)
        elif kind == 2:
            content[start:start] = content[start : start + 64]
        elif kind == 3:
            del content[start:]
        elif start < len(content):
            content[start] ^= 1 << pick.number(0, 7)
    return bytes(content)


def change(pick, value):
    """A JSON value with some random changes."""
    value = copy.deepcopy(value)
    for _ in range(pick.number(1, 4)):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = keys[pick.number(0, len(keys) - 1)]
            inner = place[key]
            if isinstance(inner, (dict, list)) and pick.number(0, 2):
                place = inner
                continue
            _replace(pick, place, key)
            break
    return value


def _replace(pick, place, key):
    """Change, remove or duplicate one part of an object or list."""
    kind = pick.number(0, 4)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[pick.text(16)] = _value(pick)
    elif kind == 1:
        place.append(place[key])
    elif kind == 2:
        place[key] = pick.text(16)
    else:
        place[key] = _value(pick)


def _value(pick):
    """A copy of one of the values, since a later change may modify it."""
    return copy.deepcopy(VALUES[pick.number(0, len(VALUES) - 1)])


def taken(call, *arguments):
    """Result of a reader, or None if it correctly refuses the input."""
    from lmac_sb.utils.errors import LMACError

    try:
        return call(*arguments)
    except LMACError as error:
        message = str(error)
        breaks = {unicodedata.category(c) for c in message}
        if breaks & {"Cc", "Zl", "Zp"} or not message:
            raise RuntimeError(f"not one line: {message!r}") from error
        if len(message) > LONGEST_MESSAGE:
            raise RuntimeError(f"long message: {message[:80]}") from error
        return None


def check_meta(folder, content):
    """Accepted rows of a meta csv have plain names."""
    import esc50_prepare

    rows = taken(esc50_prepare._read_clips, "esc50.csv", content, False)
    for row in rows or ():
        for text in (row["filename"], row["id"], row["category"]):
            if not text or not text.isprintable():
                raise RuntimeError(f"accepted: {text!r}")
        if Path(row["filename"]).name != row["filename"]:
            raise RuntimeError(f"accepted: {row['filename']!r}")


def check_manifest(folder, content):
    """A manifest gives the same clips in all ways of reading it."""
    from lmac_sb.data.manifest import Manifest, read_entries

    path = folder / "train.jsonl"
    path.write_bytes(content)
    entries = taken(lambda: list(read_entries(path)))
    manifest = taken(Manifest, path)
    if manifest is None:
        return
    again = [(name, manifest[name]) for name in manifest]
    # Compared as text, since NaN is not equal to itself.
    if not repr(entries) == repr(again) == repr(list(manifest.items())):
        raise RuntimeError("two readings differ")


def check_results(folder, content):
    """An accepted table of results holds text and numbers."""
    from lmac_sb.evaluation.tables import TEXTS, read_results

    path = folder / "results.csv"
    path.write_bytes(content)
    for row in taken(read_results, path) or ():
        for name, value in row.items():
            if not isinstance(value, str if name in TEXTS else (int, float)):
                raise RuntimeError(f"{name}: {value!r}")


def check_ratings(folder, content):
    """Accepted ratings can be scored."""
    from lmac_sb.pages.ratings import read_key, read_ratings, score

    paths = []
    for name, data in zip(("key.json", "ratings.json"), content):
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    key = taken(read_key, paths[0])
    rows = key and taken(read_ratings, paths[1:], key)
    if rows:
        score(rows, n_draws=2)


def check_audio(folder, content):
    """An accepted signal is finite, with absolute values of at most one."""
    import torch

    from lmac_sb.data.audio import Preprocessor
    from lmac_sb.data.decode import decode_audio

    path = folder / "x.wav"
    path.write_bytes(content)
    decoded = taken(decode_audio, path)
    found = taken(Preprocessor(16000), path)
    if found is None:
        return
    wav, gain = found
    if not torch.isfinite(decoded[0]).all() or decoded[1] < 1:
        raise RuntimeError(f"{decoded[0]} at {decoded[1]} Hz")
    if not torch.isfinite(wav / gain).all() or wav.abs().max() > 1.0001:
        raise RuntimeError(f"{wav} at gain {gain} of {content[:100]}")


def check_bundle(folder, content):
    """A folder's yaml and sums are refused, or mean what they say."""
    from lmac_sb.models.source import HPARAMS, read_hparams
    from lmac_sb.utils.checksums import SUMS, check_sums
    from lmac_sb.utils.yaml_safety import safe_yaml

    text, sums = content
    (folder / HPARAMS).write_bytes(text)
    (folder / SUMS).write_bytes(sums)
    for name in taken(check_sums, folder) or ():
        if folder not in (folder / name).parents:
            raise RuntimeError(f"outside the folder: {name!r}")
    taken(read_hparams, folder / HPARAMS)
    try:
        text = text.decode("utf-8")
    except UnicodeDecodeError:
        return
    safe = taken(safe_yaml, text, HPARAMS)
    if safe is not None and taken(safe_yaml, safe, HPARAMS) != safe:
        raise RuntimeError(f"not safe a second time: {safe!r}")


@functools.lru_cache(maxsize=None)
def _empty_page():
    """Start and end of a report's page, which do not depend on the clips."""
    import lmac_sb.inference.spectra

    with tempfile.TemporaryDirectory() as folder:
        page = _write_page(Path(folder) / "a", json.dumps(FACTS).encode())
    found = list(BLOCK.finditer(page))
    if len(found) != 2 or not lmac_sb.inference.spectra.SOUNDS == SOUNDS:
        raise RuntimeError("the report has changed, and this check must too")
    return page[: found[0].start()], page[found[-1].end() :]


def _write_page(clip, facts):
    """Write the report on one clip; returns its text."""
    import numpy as np
    import soundfile as sf

    from lmac_sb.pages.report import write_report

    clip.mkdir()
    (clip / "explanation.json").write_bytes(facts)
    maps = np.arange(20, dtype=np.uint8).reshape(4, 5)
    np.savez(clip / "maps.npz", mask=maps, level=maps)
    for name in SOUNDS:
        sf.write(clip / f"{name}.wav", np.zeros(400), 8000)
    page = write_report(clip.parent, embed=False)
    return page.read_text("utf-8")


def check_report(folder, content):
    """Content of a clip never becomes markup or script of the page."""
    name, facts = content
    head, tail = _empty_page()
    page = taken(_write_page, folder / name, facts)
    if page is None:
        return
    blocks = page[len(head) : len(page) - len(tail)]
    if page != head + blocks + tail or BLOCK.sub("", blocks):
        raise RuntimeError(f"markup: {blocks[:1000]!r}")
    for block in BLOCK.findall(blocks):
        json.loads(block, parse_constant=_no_constant)


def _no_constant(name):
    """Refuse NaN, which a browser cannot read."""
    raise RuntimeError(f"{name} in the page's data")


@functools.lru_cache(maxsize=None)
def recording(number, channels):
    """Bytes of a short sound in one of the formats."""
    import numpy as np
    import soundfile as sf

    kind, subtype = FORMATS[number]
    wave = np.sin(np.arange(2400 * channels) / 5).reshape(-1, channels)
    buffer = io.BytesIO()
    sf.write(buffer, 0.5 * wave, 8000, subtype, format=kind)
    return buffer.getvalue()


def make_audio(pick):
    """A sound file with changes in its header, or anywhere."""
    content = recording(pick.number(0, len(FORMATS) - 1), pick.number(1, 2))
    if pick.number(0, 1):
        return mutate(pick, content[:64]) + content[64:]
    return mutate(pick, content)


def make_bundle(pick):
    """A yaml, and a file with its checksum, which may be changed."""
    import hashlib

    text = mutate(pick, YAML)
    sums = f"{hashlib.sha256(text).hexdigest()}  hyperparams.yaml\n".encode()
    return text, sums if pick.number(0, 1) else mutate(pick, sums)


def make_json(pick, value):
    """A JSON file with changed values, or changed bytes."""
    if pick.number(0, 3):
        return json.dumps(change(pick, value)).encode()
    return mutate(pick, json.dumps(value).encode())


def make_report(pick):
    """Name of a clip's folder, and content of its explanation.json."""
    name = "".join(c for c in pick.text(16) if c.isprintable() and c != "/")
    name = name.lstrip(".")
    return name or "a", make_json(pick, FACTS)


TARGETS = {
    "meta": Target(lambda pick: mutate(pick, META), check_meta),
    "manifest": Target(lambda pick: mutate(pick, MANIFEST), check_manifest),
    "results": Target(lambda pick: mutate(pick, RESULTS), check_results),
    "ratings": Target(
        lambda pick: (
            make_json(pick, json.loads(KEY)) if pick.number(0, 1) else KEY,
            make_json(pick, json.loads(RATINGS)),
        ),
        check_ratings,
    ),
    "audio": Target(make_audio, check_audio),
    "bundle": Target(make_bundle, check_bundle),
    "report": Target(make_report, check_report),
}


def load():
    """Import the targets before the first input."""
    sys.path[:0] = [str(ROOT), str(ROOT / "recipes" / "ESC50")]
    import esc50_prepare  # noqa: F401

    import lmac_sb.data.audio
    import lmac_sb.data.manifest
    import lmac_sb.evaluation.tables  # noqa: F401


class Choices:
    """Makes choices from the fuzzer's bytes."""

    def __init__(self, provider):
        self.provider = provider

    def number(self, low, high):
        """A whole number between two, both included."""
        return self.provider.ConsumeIntInRange(low, high)

    def bytes(self, most):
        """At most this many bytes."""
        return self.provider.ConsumeBytes(self.number(0, most))

    def text(self, most):
        """At most this many characters."""
        return self.provider.ConsumeUnicode(self.number(0, most))


def main(arguments):
    """Run one target until libFuzzer ends."""
    if not arguments or arguments[0] not in TARGETS:
        sys.exit(f"error: expected one target of {', '.join(TARGETS)}")
    try:
        import atheris
    except ImportError:
        sys.exit(
            "error: atheris is not installed: pip install --only-binary :all: "
            "atheris==3.0.0 (Linux, Python 3.11 to 3.13)"
        )
    target = TARGETS[arguments[0]]
    with atheris.instrument_imports(include=["lmac_sb", "esc50_prepare"]):
        load()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def one(data):
        content = target.make(Choices(atheris.FuzzedDataProvider(data)))
        with tempfile.TemporaryDirectory() as folder:
            target.check(Path(folder), content)

    options = [f"-timeout={SECONDS}", "-max_len=512", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, *arguments[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])

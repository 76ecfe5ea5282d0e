#!/usr/bin/env python3
"""What is done before and after the training of the shipped model `esc10`.

    python tools/esc10.py split $LMAC_SB_DATA/esc10 esc10_split
    (the commands in lmac_sb/inference/shipped/esc10/README.md)
    python tools/esc10.py ship RUN $LMAC_SB_DATA/esc10/CREDITS.md

`split` makes another table of the same clips, where fold 5 is missing: half of
fold 4 takes its place, so that the test chooses nothing. Clips of one source
stay together. `ship` exports the run into the package, with the credits of the
clips, and without a sound.
"""

import argparse
import csv
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measure import exit_on_mistake  # noqa: E402

from lmac_sb.data.manifest import read_entries  # noqa: E402
from lmac_sb.inference.export import export_run  # noqa: E402
from lmac_sb.utils.checksums import write_sums  # noqa: E402

SHIPPED = ROOT / "lmac_sb" / "inference" / "shipped" / "esc10"
CREDIT = re.compile(
    r"\*\*\[(?P<clip>[^\]]+)\.ogg\]\([^\n]*?\)\*\*:\s+clip derived from "
    r"\[(?P<title>[^\n]*)\]\((?P<url>\S+)\) by \*(?P<author>[^\n]*)\* "
    r"\(\[(?P<licence>[^\]]+)\]\((?P<terms>\S+)\)\)"
)
HEADER = """\
The clips of ESC-10 (K. J. Piczak, ESC: Dataset for Environmental Sound
Classification, ACM Multimedia 2015) with which the model was trained,
validated and tested. No sound is part of the weights or of this package.

"""


def split(source, out):
    """Write a table in which half of fold 4 is fold 5, beside the audio."""
    with open(source / "meta" / "esc50.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (out / "meta").mkdir(parents=True)
    (out / "audio").symlink_to((source / "audio").resolve())
    sources = {}
    for row in rows:
        if row["fold"] == "4":
            group = sources.setdefault(row["category"], {})
            group.setdefault(row["src_file"], []).append(row)
    for groups in sources.values():
        sizes = [0, 0]
        # Those of several clips first, so that the halves can be equal.
        for name in sorted(groups, key=lambda x: (-len(groups[x]), x)):
            half = int(sizes[1] < sizes[0])
            sizes[half] += len(groups[name])
            for row in groups[name]:
                row["fold"] = str(4 + half)
    with open(out / "meta" / "esc50.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def credits(run, text):
    """A line for each clip of a run, from the credits of ESC-10."""
    known = {found["clip"]: found for found in CREDIT.finditer(text)}
    lines = []
    for name in ("train", "valid", "test"):
        for _, entry in read_entries(run / "manifests" / f"{name}.jsonl"):
            # ESC-50's names end with the number of the class.
            clip = re.sub(r"-\d+$", "", Path(entry["wav"]).stem)
            found = known[clip]
            lines.append(
                f"{clip} ({name}): {found['title']} by {found['author']}, "
                f"{found['url']}, {found['licence']}, {found['terms']}\n"
            )
    return HEADER + "".join(sorted(lines))


def ship(run, credits_file):
    """Put a run's model into the package; the card there stays."""
    text = credits(run, credits_file.read_text(encoding="utf-8"))
    SHIPPED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = export_run(run, Path(folder) / "esc10")
        for path in made.iterdir():
            if path.is_file() and path.name != "README.md":
                shutil.copyfile(path, SHIPPED / path.name)
    (SHIPPED / "CREDITS.txt").write_text(text, encoding="utf-8")
    write_sums(SHIPPED)
    size = sum(path.stat().st_size for path in SHIPPED.iterdir())
    print(f"{SHIPPED}: {size / 1e6:.2f} MB")


@exit_on_mistake
def main(argv=None):
    """Do one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("split")
    one.add_argument("source", type=Path, help="folder of ESC-10")
    one.add_argument("out", type=Path, help="new folder")
    two = commands.add_parser("ship")
    two.add_argument("run", type=Path, help="finished run of train_lmac.py")
    two.add_argument("credits", type=Path, help="CREDITS.md of ESC-10")
    args = parser.parse_args(argv)
    if args.command == "split":
        split(args.source, args.out)
    else:
        ship(args.run, args.credits)


if __name__ == "__main__":
    main()

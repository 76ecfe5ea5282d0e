#!/usr/bin/env python3
"""An audit of a classifier that goes by a hum, and a picture of its page.

    python tools/audit_page.py --out FOLDER [--picture docs/audit.png]

Generates scenes in which all clips of one class have a mains hum, trains the
tiny classifier of `benchmarks/audit.py` on some of them and audits it on
others. FOLDER/audit.html then names the hum. The picture needs Chromium and
its driver. It takes two minutes on one core.
"""

import argparse
import csv
import io
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measure import exit_on_mistake  # noqa: E402

from lmac_sb import LMACInterpreter  # noqa: E402
from lmac_sb.audit.run import Options, run_audit  # noqa: E402
from lmac_sb.data.corpus import open_corpus  # noqa: E402
from lmac_sb.data.scenes import make_scenes  # noqa: E402
from lmac_sb.pages.audit import write_audit_page  # noqa: E402
from lmac_sb.utils.io import make_folder  # noqa: E402

# There are several scripts of that name.
spec = spec_from_file_location("tiny", ROOT / "benchmarks" / "audit.py")
tiny = module_from_spec(spec)
spec.loader.exec_module(tiny)

FOLDS = range(1, tiny.TRAIN + 1)  # that it is trained on
HELD_OUT = FOLDS.stop, FOLDS.stop + 1
HUMS = "trill"  # the class whose clips hum
WIDTH, HEIGHT = 1280, 1480
SEED = 7


def make_audit(out, clips=tiny.CLIPS, steps=3, examples=20):
    """Train and audit a classifier that goes by a hum.

    Arguments
    ---------
    out : pathlib.Path
        Gets the scenes and, in ``audit``, the audit.
    clips : int
        Of each class in each fold.
    steps : int
        Gradient steps of each explanation.
    examples : int
        Clips to hear, at most.

    Returns
    -------
    pathlib.Path
        The page.
    """
    hum = {"kind": "hum", "class": HUMS, "probability": 1.0}
    scenes = make_scenes(
        out / "scenes",
        clips,
        HELD_OUT[-1],
        duration_s=1.5,
        seed=SEED,
        shortcuts=[hum],
    )
    wavs, labels, _ = tiny.read_scenes(scenes, FOLDS)
    interpreter = LMACInterpreter.from_classifier(
        tiny.train(wavs, labels, SEED), tiny.RATE, list(tiny.NAMES)
    )
    table = out / "scenes.csv"
    with open(scenes / "meta" / "esc50.csv", encoding="utf-8") as file:
        rows = [x for x in csv.DictReader(file) if int(x["fold"]) in HELD_OUT]
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for row in rows:
            if row["category"] not in tiny.NAMES:
                continue
            sound = scenes / "audio" / row["filename"]
            writer.writerow([sound, row["category"]])
    folder = out / "audit"
    options = Options(refine_steps=steps, examples=examples)
    run_audit(open_corpus(table), interpreter, folder, options)
    return write_audit_page(folder)


def picture(page, path):
    """Save a picture of the upper part of a page."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(option)
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    try:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1}
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "mobile": False}
        )
        driver.get(page.resolve().as_uri())
        time.sleep(2)  # its pictures are drawn one after the other
        shot = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
        # A third of the size, and no difference that one sees.
        shot = shot.convert("RGB")
        shot.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    finally:
        driver.quit()


@exit_on_mistake
def main(argv=None):
    """Make the audit, and the picture if it is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, help="a PNG file")
    options = parser.parse_args(argv)
    make_folder(options.out)
    page = make_audit(options.out)
    print(f"page: {page}")
    if options.picture is not None:
        picture(page, options.picture)


if __name__ == "__main__":
    main()

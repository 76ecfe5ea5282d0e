"""Steps from nothing, for classifiers that name their head and others."""

import pytest
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.inference.adopt import make_refiner
from lmac_sb.listener.listener import Listener

RATE = 16000


class Net(torch.nn.Module):
    """Two layers on the levels of a sound's parts."""

    def __init__(self):
        super().__init__()
        self.first, self.head = torch.nn.Linear(16, 8), torch.nn.Linear(8, 3)

    def forward(self, wavs):
        parts = wavs.unflatten(1, (16, -1)).square().mean(2)
        return self.head(self.first(parts.add(1e-4).log()).relu())


@pytest.mark.parametrize("head", [None, "head"])
def test_what_is_kept(head):
    """All that the head reads, where there is a head; else the class."""
    torch.manual_seed(0)
    listener = Listener(Net(), RATE, head=head)
    mine = LMACInterpreter.from_classifier(listener, steps=3)
    loss = mine.explainer.refiner.loss
    assert loss.wants_embeddings is (head is not None)
    assert vars(loss) == vars(make_refiner(listener).loss)
    wavs = torch.randn(2, RATE) / 5
    found = mine.explain_batch(wavs)
    assert found.mask.isfinite().all()
    assert mine.explainer.decoder.offset == (-1.0 if head is None else -1.5)


def test_any_model_takes_the_option():
    mine = LMACInterpreter.from_classifier(Net(), RATE, head="head", steps=1)
    assert mine.hparams.listener.head == "head"
    assert mine.explainer.refiner.loss.e_in_w > 0

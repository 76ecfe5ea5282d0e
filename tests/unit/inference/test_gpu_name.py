"""A GPU without a number is the first one, without a complaint."""

import pytest
import torch
from speechbrain.inference.interfaces import Pretrained

from lmac_sb import LMACInterpreter


class _Given(Exception):
    """What SpeechBrain was given; there is no GPU here to go on with."""


@pytest.mark.parametrize(
    "device, given", [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_gpu_has_a_number(monkeypatch, device, given):
    """SpeechBrain would warn that it cannot read "cuda"."""
    esc10 = LMACInterpreter.from_pretrained("esc10")

    def stop(self, modules, hparams, run_opts):
        raise _Given(run_opts)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(Pretrained, "__init__", stop)
    run_opts, hparams = {"device": device}, dict(vars(esc10.hparams))
    with pytest.raises(_Given) as caught:
        LMACInterpreter(
            {"explainer": esc10.explainer}, hparams, run_opts=run_opts
        )
    assert caught.value.args == ({"device": given},)
    # The caller's own options are left as they are.
    assert run_opts == {"device": device}

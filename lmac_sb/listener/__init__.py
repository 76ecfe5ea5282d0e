"""Any classifier of sounds, called in one way: from waveforms to logits.

How it takes sounds and what it returns are found by dry runs, and checked
before it is explained. Imports `utils`.

**One more layout of outputs** is an option of `Listener`: a name, an index or
a function that finds the scores in what the model returns.

>>> import torch
>>> from lmac_sb.listener.listener import Listener
>>> net = torch.nn.Linear(16000, 3)
>>> answer = lambda wavs: {"embedding": wavs, "found": [net(wavs)]}
>>> listener = Listener(answer, 16000, output=lambda returned: returned["found"][0])
>>> listener(torch.rand(2, 16000)).shape
torch.Size([2, 3])
"""

"""Every method, on every clip, under every contamination; tables and plots.

Imports `inference` and all before it.

**One more contamination** is one entry of `KINDS`: how it is made, and which
levels and which folder it has.

>>> from lmac_sb.evaluation.contamination import KINDS, Clean, make_settings
>>> from lmac_sb.evaluation.contamination import Kind
>>> class Reversed(Clean):
...     name = "reversed"
...
...     def _mix(self, wav, clip_id):
...         return wav.flip(0), wav.flip(0), 1.0
>>> KINDS["reversed"] = Kind(
...     lambda sources, folder, seed: Reversed(), levels=()
... )
>>> (setting,) = make_settings("reversed", {}, 16000)
>>> heard, clip, gain = setting(wavs[0], "clip")
>>> del KINDS["reversed"]
"""

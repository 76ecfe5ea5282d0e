"""The Brain, its checkpoints, the keys of the yaml files, and what a run is.

Imports `data`, `models`, `metrics` and `utils`.

**One more key of a yaml file** is one entry of `KEYS`: what it may be, and what
it means. It then belongs to what a run is, unless `lmac_sb.training.identity`
names it among the keys that change no result.

>>> from lmac_sb.training.keys import KEYS, Key, check_values
>>> from lmac_sb.training.kinds import number
>>> KEYS["doubt_w"] = Key(number(low=0), "weight of the doubt")
>>> check_values({"doubt_w": -1}, "mine.yaml")
Traceback (most recent call last):
...
lmac_sb.LMACError: mine.yaml: doubt_w is -1, expected a number of at least 0
>>> del KEYS["doubt_w"]
"""

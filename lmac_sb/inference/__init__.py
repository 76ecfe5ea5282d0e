"""A trained model: loaded, exported, and what it says of a file.

Imports `training` and all before it.

**One more format of sounds** is one entry of `AUDIO_FORMATS`: its ending, and
how libsndfile calls its samples. What writes and what reads the folder of an
explained clip follows.

>>> from lmac_sb.inference.clip_folder import AUDIO_FORMATS
>>> AUDIO_FORMATS["aiff"] = "PCM_16"
>>> folder = getfixture("tmp_path")
>>> explanation = interpreter.explain_file(path)
>>> _ = explanation.save(folder, audio_format="aiff")
>>> (folder / "interpretation.aiff").exists()
True
>>> del AUDIO_FORMATS["aiff"]
"""

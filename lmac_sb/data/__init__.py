"""From recordings to batches: audio, cache, manifests, data sets, noise.

Imports `utils`.

`corpus` reads what others have: folders, tables, shards, data sets of Hugging
Face. One more kind is a `listing.Listing` beside `folders.Files`.

**One more data set** is a preparation that writes a manifest for each split, as
`esc50_prepare.py` does in the recipe; everything else reads only those.

>>> from speechbrain.dataio.encoder import CategoricalEncoder
>>> from lmac_sb.data.audio import Preprocessor
>>> from lmac_sb.data.dataset import make_dataset
>>> from lmac_sb.data.manifest import to_lines
>>> clip = {"wav": str(path), "class_string": "dog"}
>>> clip.update(num_samples=16000, sample_rate=16000)
>>> manifest = getfixture("tmp_path") / "train.jsonl"
>>> _ = manifest.write_text(to_lines({"clip-1": clip}))
>>> encoder = CategoricalEncoder()
>>> encoder.update_from_iterable(["dog"])
>>> dataset = make_dataset(manifest, Preprocessor(16000), encoder)
>>> dataset[0]["sig"].shape
torch.Size([16000])
"""

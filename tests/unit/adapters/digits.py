"""A small wav2vec2 classifier of spoken digits, trained in about a minute.

From the repository's root, ``python tests/unit/adapters/digits.py OUT`` writes
it to a folder, with the data of ``LMAC_SB_DATA``.
"""

import csv
import os
import sys
import time
from pathlib import Path

import soundfile as sf
import torch

WORDS = "zero one two three four five six seven eight nine".split()


def read_digits(data, split):
    """Clips of the Free Spoken Digit Dataset, and their digits.

    Arguments
    ---------
    data : str or Path
        Folder of real data; its ``fsdd/manifest.csv`` names the clips.
    split : str
        ``train`` or ``test``: the official one, of 1200 or 300 clips.

    Returns
    -------
    wavs : list of np.ndarray
        At 16 kHz, [samples].
    digits : torch.Tensor
        [clips].
    """
    folder = Path(data) / "fsdd"
    with open(folder / "manifest.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["official_split"] == split]
    wavs = [sf.read(folder / r["file"], dtype="float32")[0] for r in rows]
    return wavs, torch.tensor([int(row["digit"]) for row in rows])


def digit_model(seed=0):
    """A wav2vec2 classifier with random weights, and its extractor."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32, 64, 64),
        conv_kernel=(40, 8, 4, 4),
        conv_stride=(10, 4, 4, 2),
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=64,
        mask_time_prob=0.0,
        layerdrop=0.0,
        id2label=dict(enumerate(WORDS)),
        label2id={word: digit for digit, word in enumerate(WORDS)},
    )
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    extractor = transformers.Wav2Vec2FeatureExtractor(
        return_attention_mask=True
    )
    return model, extractor


def train_digits(folder, data, epochs=12, seed=0):
    """Train the model, and write it with its extractor.

    Arguments
    ---------
    folder : str or Path
        Written by `save_pretrained`.
    data : str or Path
        See `read_digits`.
    epochs : int
        Passes over the 1200 clips, about 5 s each on one core. Five reach an
        accuracy of .47, twelve .81 (seed 0).
    seed : int
        Of the weights and of the order of the clips.

    Returns
    -------
    float
        Accuracy on the test split, whose clips were not used.
    """
    model, extractor = digit_model(seed)
    wavs, digits = read_digits(data, "train")
    # Clips of about one length in a batch: less padding.
    order = sorted(range(len(wavs)), key=lambda i: len(wavs[i]))
    batches = [order[i : i + 24] for i in range(0, len(order), 24)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, epochs * len(batches)
    )
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(batches)).tolist():
            chosen = batches[batch]
            inputs = _inputs(extractor, [wavs[i] for i in chosen])
            loss = model(**inputs, labels=digits[chosen]).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return accuracy(model, extractor, *read_digits(data, "test"))


def accuracy(model, extractor, wavs, digits):
    """Share of clips, each heard alone, that are decided rightly."""
    with torch.no_grad():
        found = [
            int(model(**_inputs(extractor, [wav])).logits.argmax())
            for wav in wavs
        ]
    return float((torch.tensor(found) == digits).float().mean())


def _inputs(extractor, wavs):
    """Inputs of the model for clips of different lengths."""
    return extractor(
        wavs, sampling_rate=16000, padding=True, return_tensors="pt"
    )


if __name__ == "__main__":
    start = time.perf_counter()
    right = train_digits(sys.argv[1], os.environ["LMAC_SB_DATA"])
    print(f"accuracy {right:.3f}, {time.perf_counter() - start:.0f} s")

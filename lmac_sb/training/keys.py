"""The keys of the recipes' yaml files: what each means, and what it may be.

Each key is declared once, here. `check_values` checks a file and a command line
by it, and the comments in the yaml files are made of its texts.
"""

from typing import NamedTuple

from lmac_sb.training.kinds import (
    choice,
    flag,
    folds,
    listing,
    model,
    names,
    number,
    optional,
    path,
    positive,
    share,
    split,
    table,
    text,
    weight,
    whole,
)
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["KEYS", "Key", "check_values", "comment"]


class Key(NamedTuple):
    """What a key is for.

    Arguments
    ---------
    kind : Kind or None
        What it may be; None for objects, which check themselves.
    text : str
        Its meaning, as the comment in the yaml files says it.
    unit : str
        Unit of its value, where it has one.

    Example
    -------
    >>> KEYS["snr_db"].unit
    'dB'
    """

    kind: object
    text: str
    unit: str = ""


# Key to what it is. A new key of a yaml file needs an entry here.
KEYS = {
    # The run
    "seed": Key(whole(0), "of all that is drawn at random"),
    "__set_seed": Key(None, "seeds the generators before anything is made"),
    "experiment_name": Key(text, "names the run's folder"),
    "output_folder": Key(path, "where the run goes"),
    "save_folder": Key(path, "where its checkpoints go"),
    "manifest_folder": Key(path, "where the lists of clips go"),
    "model_folder": Key(path, "where the classifier goes that L-MAC loads"),
    "train_log": Key(path, "losses and metrics of each epoch"),
    "tensorboard_folder": Key(path, "where TensorBoard's files go"),
    "use_tensorboard": Key(flag, "True: write them"),
    # Data
    "data_folder": Key(
        model, "in ESC-50's layout, audio/ and meta/; null: made scenes"
    ),
    "download": Key(flag, "True: download ESC-50 to data_folder if need be"),
    "scenes_folder": Key(path, "where the scenes are made"),
    "n_events": Key(listing(whole(1)), "fewest and most events of a scene"),
    "train_fold_nums": Key(folds, "folds to train on"),
    "valid_fold_nums": Key(folds, "folds that choose the best checkpoint"),
    "test_fold_nums": Key(folds, "folds to test on"),
    "split": Key(split, "whose folds are evaluated"),
    "skip_bad_clips": Key(
        flag, "True: leave out unusable clips, and list them"
    ),
    "audio_cache": Key(model, "a folder that keeps decoded clips; null: none"),
    "signal_length_s": Key(
        optional(positive), "clips are cut or padded to it; null: as long", "s"
    ),
    "sample_rate": Key(whole(1), "of the classifier's input", "Hz"),
    "wham_folder": Key(model, "noise as in WHAM!: tr/, cv/, tt/; null: none"),
    "speech_folder": Key(model, "recordings of speech; null: none"),
    "snr_db": Key(number(-100, 100), "level of a clip above its noise", "dB"),
    "noisy_splits": Key(listing(split, at_least=0), "splits that get noise"),
    "n_clips": Key(optional(whole(1)), "clips, evenly spread; null: all"),
    "preprocess": Key(None, "from a file to a waveform"),
    "label_encoder": Key(None, "class names to numbers"),
    "clips": Key(table, "which clips, for the script"),
    "sounds": Key(None, "how they become waveforms, for the script"),
    # Training
    "number_of_epochs": Key(whole(1), "passes over the training clips"),
    "batch_size": Key(whole(1), "clips at once"),
    "lr": Key(positive, "learning rate, at its highest"),
    "weight_decay": Key(weight, "pull of the weights towards zero"),
    "mixup_alpha": Key(weight, "0: no mixup; 0.4 helps on real recordings"),
    "dropout": Key(share, "share of activations that are dropped"),
    "mask_share": Key(share, "widest masked block, of the frames or bands"),
    "select_key": Key(text, "validation score that chooses the checkpoint"),
    "select_largest": Key(flag, "True: its largest value is the best"),
    "save_clips": Key(whole(0), "validation and test clips to write as sounds"),
    "interpret_period": Key(whole(1), "when to write them", "epochs"),
    "dataloader_options": Key(table, "how batches are loaded"),
    "opt_class": Key(None, "the optimiser"),
    "epoch_counter": Key(None, "counts the epochs, also of a resumed run"),
    "lr_annealing": Key(None, "how the learning rate changes"),
    "train_logger": Key(None, "writes train_log"),
    "checkpointer": Key(None, "what is saved, and resumed from"),
    "modules": Key(None, "the networks, moved to the device"),
    "training": Key(None, "how the Brain trains, for the script"),
    # Features
    "n_fft": Key(whole(2), "length of the Fourier transform", "samples"),
    "win_length": Key(positive, "length of a window", "ms"),
    "hop_length": Key(positive, "from one frame to the next", "ms"),
    "n_mels": Key(whole(1), "mel bands"),
    "features": Key(None, "from a waveform to what the classifier reads"),
    "compute_features": Key(None, "the classifier's own features"),
    "mean_var_norm": Key(None, "the classifier's own normalisation"),
    # Classifier
    "classifier_folder": Key(
        model, "model_folder of a training, or a hub id, name/repository"
    ),
    "classifier_recipe": Key(model, "yaml that trains it if it is missing"),
    "n_classes": Key(whole(1), "classes of the data"),
    "channels": Key(listing(whole(1)), "channels of each block"),
    "emb_dim": Key(whole(1), "size of the embedding"),
    "n_blocks": Key(whole(1), "Transformer blocks"),
    "n_heads": Key(whole(1), "attention heads of a block"),
    "patch": Key(listing(whole(1)), "frames and mel bands of a token"),
    "min_frames": Key(whole(1), "shortest input that can be pooled", "frames"),
    "embedding_model": Key(None, "features to an embedding"),
    "classifier": Key(None, "an embedding to logits"),
    "frozen_classifier": Key(None, "what is explained, and what is read of it"),
    # L-MAC
    "latent_channels": Key(
        listing(whole(1)), "evidence, then the layers above"
    ),
    "decoder_width": Key(whole(1), "channels of the decoder"),
    "decoder": Key(None, "latents to a mask"),
    "explainer": Key(None, "the order of the steps"),
    "l_in_w": Key(weight, "weight of the decision on what is kept"),
    "l_out_w": Key(weight, "weight of the decision on what is left out"),
    "l_out_type": Key(
        choice("ce", "probability"), "ce is the paper's, with a weight of 0.2"
    ),
    "reg_w_l1": Key(weight, "weight of the mask's mean"),
    "reg_w_tv": Key(weight, "weight of the mask's total variation"),
    "mask_domain": Key(
        choice("linear", "log1p"), "where the mask acts; log1p: as in the paper"
    ),
    "lmac_loss": Key(None, "the objective, a mean over frames, bins, clips"),
    "refine_steps": Key(whole(0), "refinement of each mask in tests", "steps"),
    "refine_lr": Key(positive, "length of a step, in logits of the mask"),
    "refine_resolution": Key(whole(1), "frames and bins that move together"),
    "refine_smooth_w": Key(weight, "weight of the smoothness of what is added"),
    "refiner": Key(None, "gradient steps on the same objective, for a clip"),
    "finetuning": Key(flag, "True: draw masks towards the clean sound"),
    "pretrained_interpreter": Key(
        model, "run folder or decoder weights to start from"
    ),
    "g_w": Key(weight, "weight of the guidance"),
    "crosscor_th": Key(number(), "likeness from which a mask is guided"),
    "crosscortype": Key(
        choice("dotp", "gain"), "gain: counts only what the mask itself brings"
    ),
    "guidelosstype": Key(
        choice("binary", "mse"), "mse: squared error to the clean spectrogram"
    ),
    "bin_th": Key(share, "share of the clean maximum that makes a bin loud"),
    # L2I
    "n_components": Key(whole(1), "spectral patterns of the dictionary"),
    "nmf_frames": Key(whole(1), "training frames that it is learnt from"),
    "nmf_sparsity": Key(weight, "weight of sparse activations"),
    "nmf_iterations": Key(whole(1), "updates of the dictionary"),
    "reconstruction_w": Key(weight, "weight of the rebuilt sound, alpha there"),
    "sparsity_w": Key(weight, "weight of few patterns, beta in the paper"),
    "relevance_th": Key(share, "relevance from which a pattern is kept"),
    "dictionary_learner": Key(None, "learns the dictionary"),
    "l2i_loss": Key(None, "the objective"),
    # Evaluation
    "interpreter": Key(path, "run folder or exported one: the method lmac"),
    "interpreters": Key(table, "more methods by name, of the same classifier"),
    "trusted": Key(flag, "True: exported folders may run any code"),
    "methods": Key(names, "masks that are compared; +K: refined by K steps"),
    "optimised_steps": Key(whole(1), "steps of the method optimised"),
    "settings": Key(names, "what is mixed into the clips, and at what level"),
    "shares": Key(
        listing(number(above=0, high=1), at_least=0), "kept shares of the bins"
    ),
    "judge_folder": Key(
        model, "a second classifier that is asked as well; null: none"
    ),
    "judge_channels": Key(listing(whole(1)), "channels of its blocks"),
    "judge_emb_dim": Key(whole(1), "size of its embedding"),
    "judge_features": Key(None, "its features"),
    "judge_embedding_model": Key(None, "its encoder"),
    "judge_classifier": Key(None, "its last layer"),
    # Sanity checks
    "checks": Key(
        listing(choice("randomisation", "roar")), "which ones are run"
    ),
    "randomisation_methods": Key(names, "methods that look at the classifier"),
    "roar_methods": Key(names, "methods whose top bins are removed"),
    "roar_shares": Key(listing(number(above=0, high=1)), "removed shares"),
    "roar_epochs": Key(whole(1), "passes over the data of each training"),
    "runs": Key(whole(1), "trainings for each method and share"),
    "embedding_class": Key(None, "makes the encoder that is trained anew"),
    "classifier_class": Key(None, "makes its last layer"),
}


def check_values(values, source):
    """Refuse values that a key cannot have.

    Arguments
    ---------
    values : dict
        Key to a plain value, as hyperpyyaml reads it.
    source : str or Path
        The yaml file, for the message.

    Raises
    ------
    LMACError
        Names the key, what was found and what is expected.

    Example
    -------
    >>> check_values({"lr": "fast"}, "x.yaml")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: lr is 'fast', expected a number above 0
    """
    for key, value in values.items():
        kind = KEYS[key].kind if key in KEYS else None
        if kind is not None and not kind.holds(value):
            raise LMACError(
                f"{source}: {key} is {_plain(value)}, expected {kind.name}"
            )


def _plain(value):
    """A value as it is written in yaml."""
    return "null" if value is None else shown(value)


def comment(key):
    """The comment of a key in the yaml files.

    Arguments
    ---------
    key : str
        Its name.

    Returns
    -------
    str

    Example
    -------
    >>> comment("hop_length")
    'from one frame to the next, in ms'
    """
    entry = KEYS[key]
    return entry.text + (f", in {entry.unit}" if entry.unit else "")

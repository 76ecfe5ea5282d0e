"""The keys of the recipes' yaml files: their meaning and allowed values.

Each key is declared once, here. `check_values` uses this to check yaml files
and command lines, and `comment` gives a comment for the yaml files.
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
    """Meaning and allowed values of a key.

    Arguments
    ---------
    kind : lmac_sb.training.kinds.Kind or None
        The allowed values; None for objects, which check themselves.
    text : str
        The meaning, as in the comments of the yaml files.
    unit : str
        Unit of the value, if it has one.

    Example
    -------
    >>> KEYS["snr_db"].unit
    'dB'
    """

    kind: object
    text: str
    unit: str = ""


# All keys. A new key of a yaml file needs an entry here.
KEYS = {
    # The run
    "seed": Key(whole(0), "seed of all random draws"),
    "__set_seed": Key(None, "seeds the generators before anything is made"),
    "experiment_name": Key(text, "name of the run's folder"),
    "output_folder": Key(path, "folder of the run"),
    "save_folder": Key(path, "folder of its checkpoints"),
    "manifest_folder": Key(path, "folder of the lists of clips"),
    "model_folder": Key(path, "the classifier that L-MAC loads"),
    "train_log": Key(path, "losses and metrics of each epoch"),
    "tensorboard_folder": Key(path, "folder of the files for TensorBoard"),
    "use_tensorboard": Key(flag, "True: write files for TensorBoard"),
    # Data
    "data_folder": Key(
        model, "folder in the layout of ESC-50; null: generated scenes"
    ),
    "download": Key(flag, "True: download ESC-50 if data_folder is missing"),
    "scenes_folder": Key(
        model, "folder of the scenes; null: those that belong to the model"
    ),
    "clips_per_class": Key(
        whole(1), "scenes of each class in each of the five folds"
    ),
    "extra_scene_folds": Key(
        whole(0), "more folds of eighty scenes each, to train on"
    ),
    "shortcuts": Key(
        listing(table, 0), "what is planted into the scenes of a class"
    ),
    "n_events": Key(listing(whole(1)), "possible numbers of events of a scene"),
    "train_fold_nums": Key(folds, "folds to train on"),
    "valid_fold_nums": Key(folds, "folds that select the best checkpoint"),
    "test_fold_nums": Key(folds, "folds to test on"),
    "split": Key(split, "split to evaluate"),
    "skip_bad_clips": Key(flag, "True: skip unusable clips, and list them"),
    "audio_cache": Key(model, "folder that keeps decoded clips; null: none"),
    "signal_length_s": Key(
        optional(positive), "length of all clips; null: as they are", "s"
    ),
    "sample_rate": Key(
        optional(whole(1)), "sampling rate of the classifier's input", "Hz"
    ),
    "wham_folder": Key(model, "noise as in WHAM!: tr/, cv/, tt/; null: none"),
    "speech_folder": Key(model, "recordings of speech; null: none"),
    "snr_db": Key(number(-100, 100), "ratio of a clip to its noise", "dB"),
    "noisy_splits": Key(listing(split, at_least=0), "splits that get noise"),
    "n_clips": Key(
        optional(whole(1)), "number of clips, evenly spread; null: all"
    ),
    "preprocess": Key(None, "turns a file into a waveform"),
    "label_encoder": Key(None, "numbers the class names"),
    "clips": Key(table, "which clips to use, for the script"),
    "sounds": Key(None, "how clips become waveforms, for the script"),
    # Training
    "number_of_epochs": Key(whole(1), "passes over the training clips"),
    "batch_size": Key(whole(1), "clips in a batch"),
    "lr": Key(positive, "highest learning rate"),
    "weight_decay": Key(weight, "strength of the pull of weights to zero"),
    "mixup_alpha": Key(weight, "0: no mixup; 0.4 helps with real recordings"),
    "dropout": Key(share, "share of activations that are dropped"),
    "mask_share": Key(
        share, "widest masked block, as a share of frames or bands"
    ),
    "select_key": Key(text, "statistic that selects the checkpoint to test"),
    "select_largest": Key(flag, "True: its largest value is the best"),
    "save_clips": Key(whole(0), "validation and test clips to write as sounds"),
    "interpret_period": Key(whole(1), "epochs between writing sounds"),
    "dataloader_options": Key(table, "how batches are loaded"),
    "opt_class": Key(None, "the optimiser"),
    "epoch_counter": Key(
        None, "counts the epochs, including those before a resume"
    ),
    "lr_annealing": Key(None, "how the learning rate changes"),
    "train_logger": Key(None, "writes train_log"),
    "checkpointer": Key(None, "what is saved, and where a run resumes"),
    "modules": Key(None, "the networks, moved to the device"),
    "training": Key(None, "how the Brain trains, for the script"),
    # Features
    "n_fft": Key(whole(2), "length of the Fourier transform", "samples"),
    "win_length": Key(positive, "length of a window", "ms"),
    "hop_length": Key(positive, "time from one frame to the next", "ms"),
    "n_mels": Key(whole(1), "mel bands"),
    "features": Key(None, "turns a waveform into the classifier's input"),
    "compute_features": Key(None, "the classifier's own features"),
    "mean_var_norm": Key(None, "the classifier's own normalisation"),
    # Classifier
    "classifier_folder": Key(
        model, "model_folder of a classifier, or a hub id, name/repository"
    ),
    "model": Key(
        model, "classifier of anyone: hub id, folder or package.module:function"
    ),
    "class_names": Key(
        optional(listing(text)), "names of its classes; null: the model's"
    ),
    "layers": Key(
        optional(listing(text)), "what the decoder reads; null: found by itself"
    ),
    "adopted": Key(None, "that classifier, with a decoder to train"),
    "classifier_recipe": Key(model, "yaml that trains it if it is missing"),
    "n_classes": Key(whole(1), "number of classes in the data"),
    "channels": Key(listing(whole(1)), "channels of each block"),
    "emb_dim": Key(whole(1), "size of the embedding"),
    "n_blocks": Key(whole(1), "Transformer blocks"),
    "n_heads": Key(whole(1), "attention heads of a block"),
    "stem": Key(
        listing(whole(1), 0), "channels of convolutions before the tokens"
    ),
    "patch": Key(listing(whole(1)), "frames and mel bands of a token"),
    "min_frames": Key(whole(1), "shortest input that can be pooled", "frames"),
    "embedding_model": Key(None, "turns features into an embedding"),
    "classifier": Key(None, "turns an embedding into logits"),
    "frozen_classifier": Key(
        None, "the explained classifier, and the layers to read"
    ),
    # L-MAC
    "latent_channels": Key(
        listing(whole(1)), "evidence, then the layers above"
    ),
    "decoder_width": Key(whole(1), "channels of the decoder"),
    "decoder_depthwise": Key(
        flag, "True: cheaper convolutions on its fine grid"
    ),
    "decoder": Key(None, "turns latents into a mask"),
    "explainer": Key(None, "runs the steps of an explanation in order"),
    "familiarity": Key(
        None, "knows what sounds were trained on, and tells others"
    ),
    "l_in_w": Key(weight, "weight of the decision on the masked sound"),
    "l_out_w": Key(weight, "weight of the decision on the rest"),
    "others_w": Key(weight, "weight of keeping other classes out of the mask"),
    "grow_share": Key(
        share, "share of training in which reg_w_tv and others_w grow"
    ),
    "l_out_type": Key(
        choice("ce", "probability"), "ce is the paper's, with a weight of 0.2"
    ),
    "reg_w_l1": Key(weight, "weight of the mask's mean"),
    "reg_w_tv": Key(weight, "weight of the mask's total variation"),
    "pair_share": Key(share, "share of training clips with another one added"),
    "mask_domain": Key(
        choice("linear", "log1p"), "where the mask acts; log1p: as in the paper"
    ),
    "lmac_loss": Key(None, "the objective, a mean over frames, bins, clips"),
    "refine_steps": Key(whole(0), "refinement steps for each mask in tests"),
    "second_look": Key(flag, "True: a second look at each mask in tests"),
    "refine_lr": Key(positive, "step size, in logits of the mask"),
    "refine_resolution": Key(whole(1), "frames and bins that change together"),
    "refine_smooth_w": Key(weight, "weight of the smoothness of the change"),
    "refiner": Key(None, "improves the mask of a clip by gradient steps"),
    "finetuning": Key(flag, "True: guide masks towards the clean sound"),
    "pretrained_interpreter": Key(
        model, "run folder or decoder weights to start from"
    ),
    "g_w": Key(weight, "weight of the guidance"),
    "crosscor_th": Key(number(), "similarity above which a mask is guided"),
    "crosscortype": Key(
        choice("dotp", "gain"),
        "gain: counts only what the mask itself contributes",
    ),
    "guidelosstype": Key(
        choice("binary", "mse"), "mse: squared error to the clean spectrogram"
    ),
    "bin_th": Key(
        share, "share of the clean maximum above which a bin is loud"
    ),
    # L2I
    "n_components": Key(whole(1), "spectral patterns of the dictionary"),
    "nmf_frames": Key(whole(1), "training frames to learn it from"),
    "nmf_sparsity": Key(weight, "weight of sparse activations"),
    "nmf_iterations": Key(whole(1), "updates of the dictionary"),
    "reconstruction_w": Key(
        weight, "weight of the rebuilt sound, alpha in the paper"
    ),
    "sparsity_w": Key(weight, "weight of few patterns, beta in the paper"),
    "relevance_th": Key(share, "relevance above which a pattern is kept"),
    "dictionary_learner": Key(None, "learns the dictionary"),
    "l2i_loss": Key(None, "the objective"),
    # Evaluation
    "interpreter": Key(path, "run folder or exported one: the method lmac"),
    "interpreters": Key(table, "more methods by name, for the same classifier"),
    "trusted": Key(flag, "True: exported folders may run any code"),
    "methods": Key(names, "methods to compare; +K: refined by K steps"),
    "optimised_steps": Key(whole(1), "steps of the method `optimised`"),
    "settings": Key(names, "what is mixed into the clips, and at what level"),
    "shares": Key(
        listing(number(above=0, high=1), at_least=0), "kept shares of the bins"
    ),
    "judge_folder": Key(
        model, "a second classifier as another judge; null: none"
    ),
    "judge_channels": Key(listing(whole(1)), "channels of its blocks"),
    "judge_emb_dim": Key(whole(1), "size of its embedding"),
    "judge_features": Key(None, "its features"),
    "judge_embedding_model": Key(None, "its encoder"),
    "judge_classifier": Key(None, "its last layer"),
    # Audit
    "labels": Key(model, "the user's table of the clips; null: none"),
    "label_column": Key(
        optional(text), "its column with the labels; null: a usual name"
    ),
    "file_column": Key(
        optional(text), "its column with the files; null: the one that fits"
    ),
    "classes_map": Key(model, "csv of label and class; null: none"),
    "limit": Key(
        optional(whole(1)), "number of clips, drawn by the seed; null: all"
    ),
    "steps": Key(
        optional(whole(0)), "gradient steps of each mask; null: the model's"
    ),
    "interventions": Key(flag, "False: no decisions with parts removed"),
    "examples": Key(whole(0), "most clips to hear"),
    # Sanity checks
    "checks": Key(
        listing(choice("randomisation", "roar", "swap")), "checks to run"
    ),
    "randomisation_methods": Key(names, "methods that look at the classifier"),
    "roar_methods": Key(names, "methods whose top bins are removed"),
    "roar_shares": Key(listing(share), "removed shares; 0: none"),
    "roar_fill": Key(
        listing(choice("silence", "inpainted", "noise")),
        "what stands in place of the removed bins",
    ),
    "roar_epochs": Key(whole(1), "passes over the data of each training"),
    "runs": Key(whole(1), "trainings for each method and share"),
    "swap_methods": Key(names, "methods that look at the classifier"),
    "embedding_class": Key(None, "makes the encoder that is retrained"),
    "classifier_class": Key(None, "makes its last layer"),
}

# What `dataloader_options` may hold: how batches are loaded, and not which.
LOADING = {
    "batch_size": whole(1),
    "num_workers": whole(0),
    "pin_memory": flag,
    "prefetch_factor": optional(whole(1)),
    "persistent_workers": flag,
    "multiprocessing_context": choice("fork", "spawn", "forkserver"),
    "timeout": weight,
    "drop_last": flag,
}
# What torch refuses without workers.
OF_WORKERS = (
    "prefetch_factor",
    "persistent_workers",
    "multiprocessing_context",
    "timeout",
)


def check_values(values, source, prefix="", kinds=None):
    """Refuse values that a key must not have.

    Arguments
    ---------
    values : dict
        Key to a plain value, as hyperpyyaml reads it.
    source : str or Path
        The yaml file, for the message.
    prefix : str
        What stands before the keys there.
    kinds : dict or None
        Key to its kind; by default those of `KEYS`.

    Raises
    ------
    LMACError
        If there is such a value; the message names the key, the value and
        what is expected.

    Example
    -------
    >>> check_values({"lr": "fast"}, "x.yaml")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: lr is 'fast', expected a number above 0
    """
    if kinds is None:
        kinds = {key: entry.kind for key, entry in KEYS.items()}
    for key, value in values.items():
        kind = kinds.get(key)
        if kind is not None and not kind.holds(value):
            raise LMACError(
                f"{source}: {prefix}{key} is {_plain(value)}, expected "
                f"{kind.name}"
            )
        if key == "dataloader_options":
            _check_loading(value, f"{source}: {prefix}{key}")


def _check_loading(options, source):
    """Refuse options of the loader that it has not, or that cannot be."""
    for name, value in options.items():
        if name not in LOADING:
            raise LMACError(
                f"{source} has {shown(name)}, expected some of "
                f"{', '.join(LOADING)}, as in {{num_workers: 2}}"
            )
        if not LOADING[name].holds(value):
            raise LMACError(
                f"{source}: {name} is {_plain(value)}, expected "
                f"{LOADING[name].name}"
            )
    if not options.get("num_workers"):
        for name in OF_WORKERS:
            if options.get(name):
                raise LMACError(
                    f"{source}: {name} is {_plain(options[name])}, but there "
                    "are no workers, expected num_workers of at least 1"
                )


def _plain(value):
    """A value as it is written in yaml."""
    return "null" if value is None else shown(value)


def comment(key):
    """The comment for a key in the yaml files.

    Arguments
    ---------
    key : str
        Name of the key.

    Returns
    -------
    str

    Example
    -------
    >>> comment("hop_length")
    'time from one frame to the next, in ms'
    """
    entry = KEYS[key]
    return entry.text + (f", in {entry.unit}" if entry.unit else "")

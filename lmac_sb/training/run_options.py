"""SpeechBrain's run options, known without importing it.

A test compares them with those of the installed SpeechBrain.
"""

from lmac_sb.training.kinds import choice, positive, whole

__all__ = ["FLAGS", "KINDS", "LISTS", "RUN_OPTIONS", "SHOWN"]

# Those that take no value, and those that take any number of values.
FLAGS = {
    *("auto_mix_prec", "bfloat16_mix_prec", "compile"),
    *("compile_using_dynamic_shape_tracing", "compile_using_fullgraph"),
    *("data_parallel_backend", "debug", "debug_persistently"),
    *("find_unused_parameters", "jit", "noprogressbar", "profile_training"),
    *("remove_vector_weight_decay", "skip_nonfinite_grads", "test_only"),
    "tqdm_colored_bar",
}
LISTS = {"compile_module_keys", "jit_module_keys"}
RUN_OPTIONS = {
    *FLAGS,
    *LISTS,
    *("ckpt_interval_minutes", "ckpt_interval_steps", "compile_mode"),
    *("debug_batches", "debug_epochs", "device", "distributed_backend"),
    *("eval_precision", "grad_accumulation_factor", "log_config"),
    *("max_grad_norm", "nonfinite_patience", "optimizer_step_limit"),
    *("precision", "profile_steps", "profile_warmup"),
}
# Values that the others may have; SpeechBrain checks none of them.
KINDS = {
    "ckpt_interval_minutes": whole(0),
    "ckpt_interval_steps": whole(0),
    "compile_mode": choice("default", "reduce-overhead", "max-autotune"),
    "debug_batches": whole(1),
    "debug_epochs": whole(0),
    "distributed_backend": choice("nccl", "gloo", "mpi"),
    "grad_accumulation_factor": whole(1),
    # A limit below zero turns gradients round, one of zero leaves nothing.
    "max_grad_norm": positive,
    "nonfinite_patience": whole(0),
    "optimizer_step_limit": whole(1),
    "profile_steps": whole(1),
    "profile_warmup": whole(0),
}
# What --help shows, with two of our own: name, default or kind, meaning.
SHOWN = (
    ("device", "NAME", "cpu, cuda, cuda:0, ..."),
    ("precision", "fp32", "in training: fp32, bf16, or fp16 on a GPU"),
    ("eval_precision", "fp32", "in tests: fp32, bf16, or fp16 on a GPU"),
    ("max_grad_norm", "5.0", "longest gradient; a longer one is shortened"),
    (
        "ckpt_interval_minutes",
        "0",
        "time between checkpoints within an epoch, in minutes; 0: none",
    ),
    ("debug", "", "try the command with a few batches of two epochs"),
    ("quiet", "", "print results, warnings and errors alone"),
    ("verbose", "", "print notes, all metrics and whole tables too"),
    ("noprogressbar", "", "show no progress bars"),
)

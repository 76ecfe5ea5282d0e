"""Small audio classifiers of transformers, one of each family."""

import torch

WIDTH = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
# One frame needs 35 samples, each further one 20 more.
WAVEFORM = {
    **WIDTH,
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 4, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
}
# Family: class, its configuration's settings, extractor, its settings.
FAMILIES = {
    "ast": (
        "ASTForAudioClassification",
        {**WIDTH, "num_mel_bins": 32, "max_length": 64},
        "ASTFeatureExtractor",
        {"num_mel_bins": 32, "max_length": 64},
    ),
    "data2vec": (
        "Data2VecAudioForSequenceClassification",
        {
            **WAVEFORM,
            "num_conv_pos_embeddings": 2,
            "conv_pos_kernel_size": 3,
        },
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "hubert": (
        "HubertForSequenceClassification",
        WAVEFORM,
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "hubert layer": (
        "HubertForSequenceClassification",
        {**WAVEFORM, "feat_extract_norm": "layer", "conv_bias": True},
        "Wav2Vec2FeatureExtractor",
        {"return_attention_mask": True},
    ),
    "sew": (
        "SEWForSequenceClassification",
        {**WAVEFORM, "squeeze_factor": 2},
        "Wav2Vec2FeatureExtractor",
        {"do_normalize": False},
    ),
    "sew-d": (
        "SEWDForSequenceClassification",
        {**WAVEFORM, "squeeze_factor": 2, "position_buckets": 8},
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "unispeech": (
        "UniSpeechForSequenceClassification",
        WAVEFORM,
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "unispeech-sat": (
        "UniSpeechSatForSequenceClassification",
        WAVEFORM,
        "Wav2Vec2FeatureExtractor",
        {"return_attention_mask": True},
    ),
    "wav2vec2": (
        "Wav2Vec2ForSequenceClassification",
        WAVEFORM,
        "Wav2Vec2FeatureExtractor",
        {"do_normalize": False},
    ),
    "wav2vec2 layer": (
        "Wav2Vec2ForSequenceClassification",
        {
            **WAVEFORM,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "use_weighted_layer_sum": True,
        },
        "Wav2Vec2FeatureExtractor",
        {"return_attention_mask": True},
    ),
    "wav2vec2-bert": (
        "Wav2Vec2BertForSequenceClassification",
        {**WIDTH, "feature_projection_input_dim": 80},
        "SeamlessM4TFeatureExtractor",
        {"feature_size": 40, "num_mel_bins": 40, "padding_value": 1.0},
    ),
    "wav2vec2-conformer": (
        "Wav2Vec2ConformerForSequenceClassification",
        {**WAVEFORM, "position_embeddings_type": "rotary"},
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "wavlm": (
        "WavLMForSequenceClassification",
        WAVEFORM,
        "Wav2Vec2FeatureExtractor",
        {},
    ),
    "whisper": (
        "WhisperForAudioClassification",
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 20,
            "max_source_positions": 50,
            "classifier_proj_size": 12,
        },
        "WhisperFeatureExtractor",
        {"feature_size": 20, "chunk_length": 1},
    ),
}


def small_model(family, name=None, **settings):
    """A model with random weights, and its feature extractor.

    Arguments
    ---------
    family : str
        Key of `FAMILIES`.
    name : str
        Class of another head than the family's.
    **settings
        Of the configuration, beside the family's; three classes by default.

    Returns
    -------
    model : transformers.PreTrainedModel
        In evaluation mode.
    extractor : transformers.FeatureExtractionMixin
    """
    import transformers

    usual, config, extractor, options = FAMILIES[family]
    kind = getattr(transformers, name or usual)
    torch.manual_seed(0)
    settings.setdefault("num_labels", 3)
    # Larger weights than usual, so that the logits depend on the sound.
    spread = {"initializer_range": 0.3, "init_std": 0.3}
    model = kind(kind.config_class(**{**config, **spread, **settings}))
    return model.eval(), getattr(transformers, extractor)(**options)


def save_model(folder, model, extractor):
    """Write both as their owner does; return the folder."""
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder

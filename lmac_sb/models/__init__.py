"""Networks: features, encoders, the frozen classifier, decoders, weights.

Imports `utils`.
"""

"""Networks: features, encoders, the frozen classifier, decoders, their weights.

Imports `utils`.
"""

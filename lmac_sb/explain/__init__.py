"""The method: tensors in, tensors out.

Masks, the losses that train a decoder, refinement, and the `Explainer`, the one
place that knows the order of the steps. Imports `models` and `utils`.
"""

"""The encoder: a network that predicts a face's coefficients from a photograph in one pass."""

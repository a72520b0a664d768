"""Scores of existing masks, of any program or of a finished prediction, and the comparison of two predictions."""

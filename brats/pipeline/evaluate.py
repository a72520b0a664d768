"""Score NIfTI masks of any origin against the references of their cases, as `predict` scores its own."""

"""Teaches the new mixers of a hybrid what the attention did that they replaced."""

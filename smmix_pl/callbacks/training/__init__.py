"""Callbacks that act during training."""

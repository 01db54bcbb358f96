"""Callbacks that write the output of a run."""

"""Callbacks that write what a run produced."""

"""Callbacks that evaluate a model during validation and test."""

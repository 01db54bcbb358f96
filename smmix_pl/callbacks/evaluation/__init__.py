"""Callbacks that measure a model during validation and test."""

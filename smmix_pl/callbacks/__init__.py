"""Callbacks."""

from smmix_pl.callbacks.predictions import PredictionsCSV
from smmix_pl.callbacks.throughput import Throughput

__all__ = ["PredictionsCSV", "Throughput"]

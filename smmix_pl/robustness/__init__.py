"""Occluded, shuffled, attacked, and corrupted images, in plain torch."""

"""What belongs to the folder of a run: checkpoints, resuming, loggers, results."""

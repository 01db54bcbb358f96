"""Transfer of trained weights to other tasks."""

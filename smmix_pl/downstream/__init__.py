"""Downstream tasks of a trained backbone, one LightningModule each."""

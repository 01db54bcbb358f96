"""A recipe that trains in seconds: a tiny ViT with EMA on the digits."""

from pathlib import Path

RECIPE = """
seed_everything: 1
model:
  backbone: vit_tiny_patch16_224
  backbone_args: {patch_size: 4, embed_dim: 64, depth: 2, num_heads: 2, drop_path_rate: 0.1}
  mixer: {class_path: smmix_pl.SMMix}
  optim: {lr: 1.0e-3, lr_batch: null, warmup_epochs: 1}
data:
  class_path: smmix_pl.Digits
  init_args: {image_size: 16, batch_size: 8, num_workers: 0, held_out: 0.1}
trainer:
  max_epochs: 6
  limit_train_batches: 8
  limit_val_batches: 4
  accelerator: cpu
  log_every_n_steps: 1
  enable_progress_bar: false
  logger:
    - class_path: lightning.pytorch.loggers.CSVLogger
      init_args: {save_dir: runs, name: small}
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {monitor: val/loss, filename: best, enable_version_counter: false}
    - class_path: ModelCheckpoint
      init_args: {filename: last, save_on_train_epoch_end: true, enable_version_counter: false}
    - class_path: smmix_pl.callbacks.EMA
      init_args: {decay: 0.9}
"""
FIT = ("fit", "--config", "recipe.yaml")


def write_recipe(folder: Path) -> Path:
    """Write the recipe into a folder, which is created if missing, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder

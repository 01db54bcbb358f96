"""Small backbones for tests of all families."""

SMALL = {
    "deit_tiny_patch16_224": {"embed_dim": 24, "depth": 4, "num_heads": 2},
    "cait_xxs24_224": {"embed_dim": 24, "depth": 4, "num_heads": 2},
    "pvt_tiny": {"embed_dims": (8, 16, 20, 32), "depths": (1, 1, 1, 1)},
    "pvt_v2_b1": {"depths": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1, 1, 1)},
}
"""A small member of each family of the paper's backbones."""

"""Random batches for mixers, and a model whose guide is fixed."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from smmix_pl.mixing import Guide, soft_labels

CLASSES = 5


@dataclass
class FixedGuide:
    """A guide model whose attention is the softmaxed mean of each image patch."""

    grid: tuple[int, int]

    def guide(self, images):
        patches = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), self.grid)
        logits = images.float().flatten(1)[:, :CLASSES]
        return Guide(logits, patches.flatten(1).softmax(1).unflatten(1, self.grid))


class Scripted:
    """A generator that returns given values in order."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.answers.pop(0)


@st.composite
def batches(draw):
    grid = draw(st.tuples(st.integers(2, 8), st.integers(2, 8)))
    patch = draw(st.integers(1, 4))
    batch = draw(st.integers(1, 7))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, grid[0] * patch, grid[1] * patch, generator=generator).to(dtype)
    if draw(st.booleans()):
        images = images.to(memory_format=torch.channels_last)
    labels = soft_labels(torch.randint(CLASSES, (batch,), generator=generator), CLASSES, 0.1)
    return images, labels, FixedGuide(grid), seed

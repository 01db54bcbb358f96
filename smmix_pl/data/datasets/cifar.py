"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), through torchvision."""

from typing import ClassVar

from torchvision import datasets

from smmix_pl.data.base import Images, Split
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.io.download import Archive
from smmix_pl.data.transforms import Transform
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError


class CIFAR10(ImageData):
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels in 10 classes.

    As in papers, the test images are also used for validation. `held_out` reserves some training
    images instead. Arguments: see `ImageData`.
    """

    class_count = 10
    reads_root = True

    own_mean = (0.4914, 0.4822, 0.4465)
    own_std = (0.2470, 0.2435, 0.2616)
    source: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10
    archives = (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            gives="cifar-10-batches-py",
        ),
    )
    sizes = Sizes(50_000, 10_000, 10_000)

    def find_classes(self) -> list[str]:
        """Return the ten classes in their official order."""
        return CIFAR10_CLASSES.split()

    def images(self, split: Split, transform: Transform) -> Images:
        """Open the official training set, or the test set for validation and test."""
        try:
            return self.source(str(self.root), train=split == "train", transform=transform)
        except RuntimeError as error:
            raise InputError(
                f"data.root={self.root}: {self.source.base_folder}/ of {self.source.__name__} is "
                "missing or damaged. Set data.root to the folder that holds it, or set "
                "data.download=true."
            ) from error


class CIFAR100(CIFAR10):
    """CIFAR-100: like CIFAR-10, with 500 training images in each of 100 classes.

    Arguments: see `ImageData`.
    """

    class_count = 100

    own_mean = (0.5071, 0.4865, 0.4409)
    own_std = (0.2673, 0.2564, 0.2762)
    source = datasets.CIFAR100
    archives = (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            gives="cifar-100-python",
        ),
    )

    def find_classes(self) -> list[str]:
        """Return the 100 fine classes in their official order, which is alphabetical."""
        return CIFAR100_CLASSES.split()


CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

"""Any folder of class folders."""

from typing import Any

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, class_folders, folder_samples
from smmix_pl.errors import InputError


class Folder(FileData):
    """Your own images: ``root/<part>/<class>/*`` or, without parts, ``root/<class>/*``.

    Args:
        train: Folder of the training part, below root; ``.`` if root itself holds the class
            folders, which then needs ``held_out`` for validation.
        val: Folder of the validation part; null takes the test part.
        test: Folder of the test part; null takes the validation part.
        **options: See `ImageData`.
    """

    def __init__(
        self,
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        **options: Any,
    ) -> None:
        # find_classes, which the base calls, needs it
        self.parts = {"train": train, "val": val or test, "test": test or val}
        super().__init__(**options)

    def find_classes(self) -> list[str]:
        """Names of the training part's folders."""
        return class_folders(self.root / str(self.parts["train"]))

    def samples(self, split: Split) -> Samples:
        """The images of a part; its classes have to be those of the training part."""
        part = self.parts[split]
        if part is None:
            raise InputError(
                f"data.val and data.test are both null, so {self.root} has no {split} part; name "
                "one, or set data.held_out and validate only"
            )
        return folder_samples(self.root / part, self.class_names)

"""Any folder of class folders."""

from typing import Any

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, class_folders, folder_samples
from smmix_pl.errors import InputError


class Folder(FileData):
    """Your own images, in `root/<split>/<class>/*` or, without splits, in `root/<class>/*`.

    Args:
        train: Folder of the training set, relative to root. Set `.` if root itself holds the class
            folders, and set `held_out` for validation.
        val: Folder of the validation set; `null` uses the test set.
        test: Folder of the test set; `null` uses the validation set.
        **options: See `ImageData`.
    """

    def __init__(
        self,
        train: str = "train",
        val: str | None = "val",
        test: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.parts = {"train": train, "val": val or test, "test": test or val}

    def find_classes(self) -> list[str]:
        """Return the names of the class folders of the training set."""
        return class_folders(self.root / str(self.parts["train"]))

    def samples(self, split: Split) -> Samples:
        """Return the images of a split, whose classes must be those of the training set."""
        part = self.parts[split]
        if part is None:
            raise InputError(
                f"data.{split}=null: data.val and data.test are both null, so {self.root} has no "
                f"{split} split. Set one of them, or set data.held_out and do not test."
            )
        return folder_samples(self.root / part, self.class_names)

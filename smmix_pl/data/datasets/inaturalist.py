"""iNaturalist 2018 and 2019, by the competition's own lists."""

import json
from functools import cached_property
from typing import Any, Literal

from smmix_pl.checks import one_of
from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, incomplete
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError

OFFICIAL = {
    "2018": (8142, Sizes(437_513, 24_426, 24_426)),
    "2019": (1010, Sizes(265_213, 3_030, 3_030)),
}
"""Number of classes and images of each version."""


class INaturalist(FileData):
    """iNaturalist (Van Horn et al., 2018): 8,142 species in 2018, 1,010 in 2019.

    `root` holds the competition's `train_val2018/`, `train2018.json`, and `val2018.json` (or 2019).
    The labels of the test set are not public, so, as in papers, the validation set is used for
    testing. torchvision's reader ignores these lists.

    Args:
        version: Year of the competition.
        **options: See `ImageData`.
    """

    def __init__(self, version: Literal["2018", "2019"] = "2018", **options: Any) -> None:
        super().__init__(**options)
        one_of("data.version", version, OFFICIAL)
        self.version = version
        self.class_count, self.sizes = OFFICIAL[version]

    def find_classes(self) -> list[str]:
        """Return the species by name, or by number in the first release of 2018, without names."""
        categories = self._categories
        names = [str(entry.get("name", entry["id"])) for entry in categories]
        return [
            f"{name} ({entry['id']})" if names.count(name) > 1 else name
            for name, entry in zip(names, categories, strict=True)
        ]

    def samples(self, split: Split) -> Samples:
        """Return the competition's train list, or its val list for validation and test."""
        numbers = {entry["id"]: number for number, entry in enumerate(self._categories)}
        listed = self._list("train" if split == "train" else "val")
        labels = {entry["image_id"]: entry["category_id"] for entry in listed["annotations"]}
        return [
            (str(self.root / image["file_name"]), numbers[labels[image["id"]]])
            for image in listed["images"]
        ]

    @cached_property
    def _categories(self) -> list[dict[str, Any]]:
        """Species in the order of their ids, which is the order of class indices."""
        return sorted(self._list("val")["categories"], key=lambda entry: int(entry["id"]))

    def _list(self, part: str) -> dict[str, Any]:
        file = self.root / f"{part}{self.version}.json"
        if not file.is_file():
            raise incomplete(self.root, file.name)
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file}: truncated ({error}). Unpack the archive again.") from error
        return found

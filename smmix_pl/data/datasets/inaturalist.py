"""iNaturalist 2018 and 2019, by the competition's own lists."""

import json
from typing import Any, Literal

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, incomplete
from smmix_pl.data.validation import Sizes
from smmix_pl.errors import InputError

OFFICIAL_SIZES = {
    "2018": Sizes(437_513, 24_426, 24_426),
    "2019": Sizes(265_213, 3_030, 3_030),
}


class INaturalist(FileData):
    """iNaturalist (Van Horn et al., 2018): 8,142 species in 2018, 1,010 in 2019.

    ``root`` holds ``train_val2018/`` with ``train2018.json`` and ``val2018.json`` (or 2019), as the
    competition hands them out. The labels of its test part are not public: the validation part is
    the test set, as in papers. torchvision's reader knows the folders but not these lists.

    Args:
        version: Year of the competition.
        **options: See `ImageData`.
    """

    def __init__(self, version: Literal["2018", "2019"] = "2018", **options: Any) -> None:
        self.version = version  # find_classes, which the base calls, needs it
        super().__init__(**options)
        self.sizes = OFFICIAL_SIZES[version]

    def find_classes(self) -> list[str]:
        """Species by name; in 2018 the names were left out at first, then it is their number."""
        categories = sorted(self._list("val")["categories"], key=lambda entry: int(entry["id"]))
        self.numbers = {entry["id"]: number for number, entry in enumerate(categories)}
        names = [str(entry.get("name", entry["id"])) for entry in categories]
        return [
            f"{name} ({entry['id']})" if names.count(name) > 1 else name
            for name, entry in zip(names, categories, strict=True)
        ]

    def samples(self, split: Split) -> Samples:
        """The competition's train list, or its val list for validation and test."""
        listed = self._list("train" if split == "train" else "val")
        labels = {entry["image_id"]: entry["category_id"] for entry in listed["annotations"]}
        return [
            (str(self.root / image["file_name"]), self.numbers[labels[image["id"]]])
            for image in listed["images"]
        ]

    def _list(self, part: str) -> dict[str, Any]:
        file = self.root / f"{part}{self.version}.json"
        if not file.is_file():
            raise incomplete(self.root, file.name)
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file} is cut off ({error}); unpack its archive again") from error
        return found

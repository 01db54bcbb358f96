"""Images listed in CSV, TSV, and Parquet files, good and bad."""

import csv

import numpy as np
import pyarrow
import pytest
from helpers.data_trees import put
from pyarrow import parquet

from smmix_pl.cli.main import main
from smmix_pl.data import Table
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 1, "num_workers": 0}
HEADER = ("image", "label", "split")
ROWS = [
    ("a/1.jpg", "bee", "train"),
    ("a/2.jpg", "ant", "train"),
    ("b/3.jpg", "ant", "val"),
    ("b/4.jpg", "bee", "test"),
]


def write(root, rows=ROWS, header=HEADER, name="images.csv"):
    """Write a table, and the images of the usual rows."""
    for image, *_ in ROWS:
        put(root / image)
    file = root / name
    if name.endswith(".parquet"):
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        parquet.write_table(pyarrow.table({key: list(one) for key, one in columns.items()}), file)
        return root
    with file.open("w", newline="", encoding="utf-8-sig") as lines:
        csv.writer(lines, delimiter="\t" if name.endswith(".tsv") else ",").writerows(
            [header, *rows]
        )
    return root


def table(root, **options):
    return Table(root=str(root), **(SMALL | options))


def labels(data, split):
    return list(data.images(split, np.asarray).targets)


@pytest.mark.parametrize("name", ["images.csv", "images.tsv", "images.parquet"])
def test_every_format_gives_the_same_images(name, tmp_path):
    data = table(write(tmp_path, name=name), file=name, test="test")
    assert data.class_names == ["ant", "bee"]
    assert [labels(data, split) for split in ("train", "val", "test")] == [[1, 0], [0], [1]]
    data.setup("fit")
    for images, _ in (*data.train_dataloader(), *data.val_dataloader()):
        assert images.shape == (1, 3, 32, 32)


def test_columns_splits_and_numbers_have_other_names(tmp_path):
    rows = [(image, 10 if kind == "ant" else 9, part != "train") for image, kind, part in ROWS]
    write(tmp_path, rows, ("file", "id", "fold"), "t.parquet")
    names = {"image": "file", "label": "id", "split": "fold", "train": "False", "val": "True"}
    data = table(tmp_path, file="t.parquet", **names)
    assert data.class_names == ["10", "9"]  # as text, like class folders
    assert labels(data, "val") == labels(data, "test") == [0, 1]


def test_a_table_without_splits_holds_out(tmp_path):
    rows = [(image, label) for image, label, _ in ROWS]
    data = table(write(tmp_path, rows, HEADER[:2]), split=None, held_out=0.5)
    data.setup("fit")
    assert [len(data.train_dataloader()), len(data.val_dataloader())] == [2, 2]
    with pytest.raises(InputError, match=r"data\.test=null"):
        data.setup("test")


def test_absolute_paths_are_accepted_inside_root(tmp_path):
    rows = [(str(tmp_path / image), *rest) for image, *rest in ROWS]
    data = table(write(tmp_path, rows), test="test")
    assert labels(data, "train") == [1, 0]
    everywhere = table("/", file=str(tmp_path / "images.csv"), test="test")
    assert labels(everywhere, "train") == [1, 0]


def changed(place, column, value):
    rows = [list(row) for row in ROWS]
    rows[place][column] = value
    return rows


BAD = {
    "no label": (changed(2, 1, " "), r"row 3 has no label"),
    "no path": (changed(0, 0, ""), r"row 1 has no image"),
    "unknown split": (changed(1, 2, "trian"), r"row 2 .*'trian'.*train, val, test"),
    "a class of no training image": (changed(2, 1, "wasp"), r"row 3 .*'wasp'"),
    "missing file": (changed(2, 0, "b/9.jpg"), r"1 val image missing.*b/9\.jpg"),
    "path above root": (changed(2, 0, "../secret.jpg"), r"row 3 .*\.\./secret\.jpg"),
    "path elsewhere": (changed(2, 0, "/etc/passwd"), r"row 3 .*/etc/passwd"),
    "path through the parent": (changed(2, 0, "a/../../x.jpg"), r"row 3 .*outside"),
    "no rows": ([], r"no rows"),
    "one class": ([row for row in ROWS if row[1] == "ant"], r"only 1 class"),
    "a row short": ([*ROWS, ("a/1.jpg", "ant")], r"line 6 has 2 columns"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named(kind, tmp_path):
    rows, message = BAD[kind]
    data = table(write(tmp_path, rows), test="test")
    with pytest.raises(InputError, match=message) as raised:
        data.setup("fit")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": "gone.csv"}, r"data\.file=.*gone\.csv"),
        ({"file": "images.xlsx"}, r"data\.file=.*images\.xlsx.*\.parquet"),
        ({"image": "path"}, r"'path'.*'image'.*data\.image"),
        ({"label": "class"}, r"'class'.*data\.label"),
        ({"split": "fold"}, r"'fold'.*data\.split"),
        ({"val": "dev"}, r"'val'.*data\.val"),
        ({"train": "test", "val": "val", "test": "train"}, r"label|class"),
    ],
)
def test_a_wrong_option_is_named(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        table(write(tmp_path), **({"test": "test"} | options)).setup("fit")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b""),
        ("x.csv", b"\xff\xfe\x00"),
        ("x.csv", b'image,label,split\n"a'),
        ("x.csv", b"image,image,split\n"),
        ("x.parquet", b"PAR1 not a table"),
        ("x.parquet", b""),
    ],
)
def test_a_damaged_table_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        table(tmp_path, file=name).prepare_data()


def test_the_command_line_checks_a_table(tmp_path, monkeypatch, capsys):
    rows = [*ROWS, ("a/1.jpg", "bee", "val"), ("a/2.jpg", "ant", "test")]
    monkeypatch.chdir(write(tmp_path, rows))
    main(["check-data", "--config", "data/table.yaml", "--data.root", ".", "--data.test", "test"])
    assert capsys.readouterr().out.count("2 images in 2 classes") == 3

"""Held-out images, fractions, and k-shot subsets: seeded, stratified, never overlapping."""

from collections import Counter

import pytest
from helpers.data_trees import class_tree
from hypothesis import given
from hypothesis import strategies as st

from smmix_pl.data import Folder
from smmix_pl.data.splits import few_shot, stratified_split, training_split
from smmix_pl.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80)


@given(LABELS, st.floats(0.01, 0.99), st.integers(0, 99))
def test_the_same_fraction_of_every_class_is_held_out(labels, fraction, seed):
    kept, held_out = stratified_split(labels, fraction, seed)
    assert sorted(kept + held_out) == list(range(len(labels)))
    counts, taken = Counter(labels), Counter(labels[i] for i in held_out)
    for label, count in counts.items():
        assert taken[label] == min(max(1, round(fraction * count)), count - 1)
    assert (kept, held_out) == stratified_split(labels, fraction, seed)


@given(LABELS, st.integers(1, 3), st.integers(0, 99))
def test_k_shot_takes_k_of_every_class(labels, shots, seed):
    if min(Counter(labels).values()) < shots:
        with pytest.raises(InputError, match=rf"data\.shots={shots}"):
            few_shot(labels, shots, seed)
    else:
        chosen = few_shot(labels, shots, seed)
        assert chosen == sorted(set(chosen))
        assert set(Counter(labels[i] for i in chosen).values()) == {shots}


@given(LABELS, st.floats(0.05, 0.5), st.floats(0.1, 1.0), st.integers(0, 99))
def test_held_out_images_do_not_depend_on_the_training_fraction(labels, held_out, fraction, seed):
    kept, validation = training_split(labels, held_out, fraction, None, seed)
    assert validation == training_split(labels, held_out, 1.0, None, seed)[1]
    assert not set(kept) & set(validation)


@given(LABELS, st.floats(0, 0.99), st.floats(0.01, 1.0), st.integers(0, 99))
def test_every_class_is_trained_on(labels, held_out, fraction, seed):
    available = Counter(labels[i] for i in training_split(labels, held_out, 1.0, None, seed)[0])
    kept, _ = training_split(labels, held_out, fraction, None, seed)
    assert set(available) == set(labels)
    assert kept == sorted(set(kept))
    assert Counter(labels[i] for i in kept) == {
        label: max(1, round(fraction * count)) for label, count in available.items()
    }


def test_seeds_differ():
    labels = [0, 1] * 50
    assert stratified_split(labels, 0.5, 0) != stratified_split(labels, 0.5, 1)


def test_subsets_reach_the_loaders(tmp_path):
    class_tree(tmp_path / "train", ["ant", "bee"], 10)
    class_tree(tmp_path / "val", ["ant", "bee"], 2)
    common = {"root": str(tmp_path), "image_size": 32, "batch_size": 1, "num_workers": 0}
    for options, train, val in (
        ({}, 20, 4),
        ({"held_out": 0.2}, 16, 4),
        ({"train_fraction": 0.1}, 2, 4),
        ({"shots": 3, "held_out": 0.1}, 6, 2),
    ):
        data = Folder(**common, **options)
        data.setup("fit")
        assert (len(data.train_dataloader()), len(data.val_dataloader())) == (train, val)


def test_nothing_is_held_out_of_classes_of_one_image(tmp_path):
    class_tree(tmp_path / "train", ["ant", "bee"], 1)
    data = Folder(root=str(tmp_path), image_size=32, batch_size=1, num_workers=0, held_out=0.5)
    with pytest.raises(InputError, match=r"data\.held_out=0\.5"):
        data.setup("fit")


@pytest.mark.parametrize(
    "options", [{"held_out": 1.0}, {"train_fraction": 0.0}, {"shots": 0}, {"batch_size": 0}]
)
def test_impossible_splits_are_refused(tmp_path, options):
    with pytest.raises(
        InputError, match=f"data.{next(iter(options))}={next(iter(options.values()))}"
    ):
        Folder(root=str(class_tree(tmp_path / "train", ["ant"]).parent), **options)

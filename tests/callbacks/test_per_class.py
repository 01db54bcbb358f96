"""Confused classes and confident errors, against brute force."""

import numpy as np
import pytest
import torch
from helpers.small_runs import digits, module, trainer
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from smmix_pl import InputError, NoMix
from smmix_pl.callbacks import ConfidentErrors, PerClassMetrics
from smmix_pl.metrics import ClassCounts
from smmix_pl.plots.confusion import confused_pairs, confusion_matrix, worst_calibrated
from smmix_pl.plots.error_gallery import errors_figure
from smmix_pl.plots.style import short


@given(st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(["float32", "bfloat16"]))
def test_counts_are_the_confusion_matrix_and_the_sums_of_confidences(classes, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(50, classes, generator=generator)).to(getattr(torch, dtype))
    labels = torch.randint(classes, (50,), generator=generator)
    counts = ClassCounts(classes)
    for part in (slice(0, 31), slice(31, 50)):
        counts.update(logits[part], labels[part])
    confusion, confidence = counts.compute()
    predicted = logits.float().argmax(dim=1)
    assert torch.equal(confusion, multiclass_confusion_matrix(predicted, labels, classes).int())
    sure = logits.float().softmax(dim=1).max(dim=1).values.double()
    for index in range(classes):
        assert float(confidence[index]) == pytest.approx(float(sure[predicted == index].sum()))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A model after a test, and its logits of all test images."""
    folder = tmp_path_factory.mktemp("classes")
    model, data = module(NoMix()).eval(), digits(batch_size=50)
    callbacks = [PerClassMetrics(), ConfidentErrors(count=5)]
    run = trainer(folder, callbacks=callbacks)
    run.test(model, data, verbose=False)
    images, labels = zip(*data.test_dataloader(), strict=True)
    with torch.no_grad():
        logits = torch.cat([model(run_images(data, part)) for part in images])
    return run, callbacks, logits, torch.cat(labels)


def run_images(data, images):
    """A batch as it reaches the model."""
    return data.on_after_batch_transfer((images, torch.zeros(len(images))), 0)[0]


def test_the_errors_kept_are_those_of_highest_confidence(evaluated):
    _, (_, errors), logits, labels = evaluated
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten().tolist()
    expected = sorted(wrong, key=lambda place: (-float(confidence[place]), place))[:5]
    assert [one.place for one in errors.worst] == expected
    assert [one.true for one in errors.worst] == labels[expected].tolist()
    assert [one.predicted for one in errors.worst] == predicted[expected].tolist()


def test_the_worst_class_is_logged(evaluated):
    run, _, logits, labels = evaluated
    right = logits.argmax(dim=1) == labels
    worst = min(float(right[labels == index].float().mean()) for index in range(10))
    assert float(run.callback_metrics["test/worst_class_top1"]) == pytest.approx(worst)


def test_pictures_of_few_and_of_many_classes_name_them(evaluated):
    _, (classes, errors), _, _ = evaluated
    assert set(classes.figures(classes.found)) == {"confusion", "worst_calibrated"}
    [figure] = errors.figures(errors.found).values()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 5
    assert all("taken for" in title and title.endswith("%)") for title in titles)


def test_long_names_are_cut_and_numbers_are_not():
    """A file's name is one word, which breaks nowhere."""
    assert short("a_rather_long_file_name_of_a_camera", 16) == "a rather long f…"
    assert short("Supercalifragilistic", 10) == "Supercali…"
    assert short("  two   words ", 10) == "two words"
    names = ("red_winged_blackbird_male_in_winter", "Chevrolet Silverado 1500 Classic 2007", 0.97)
    axes = errors_figure([torch.zeros(3, 8, 8)], [names]).axes[0]
    assert axes.get_title().endswith("(97%)")


def test_confused_pairs_come_the_most_frequent_first():
    confusion = np.zeros((30, 30), dtype=np.int32)
    np.fill_diagonal(confusion, 10)
    confusion[3, 4], confusion[7, 1], confusion[0, 2] = 5, 9, 1
    names = [f"class_{index}" for index in range(30)]
    [axes] = confused_pairs(confusion, names).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["class 7 → class 1", "class 3 → class 4", "class 0 → class 2"]
    assert [round(bar.get_width(), 1) for bar in axes.patches] == [47.4, 33.3, 9.1]


def test_a_class_that_was_never_seen_or_predicted_draws():
    confusion = np.array([[5, 0, 0], [2, 0, 0], [0, 0, 0]])
    confusion_matrix(confusion, ["a", "b", "c"]).canvas.draw()
    sure, right = np.array([0.9, 0.2]), np.array([0.7, 0.2])
    [axes] = worst_calibrated(["a", "b"], sure, right).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(InputError, match="count is 0; it must be at least 1"):
        ConfidentErrors(count=0)

"""Confused classes and confident errors, compared with brute force."""

import numpy as np
import pytest
import torch
from helpers.small_runs import digits, module, trainer

from smmix_pl import InputError, NoMix
from smmix_pl.callbacks import ConfidentErrors, PerClassMetrics
from smmix_pl.plots.confusion import confused_pairs, confusion_matrix
from smmix_pl.plots.error_gallery import error_gallery
from smmix_pl.plots.style import shorten


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Return trainer and callbacks after a test, and logits and labels of all test images."""
    folder = tmp_path_factory.mktemp("classes")
    model, data = module(NoMix()).eval(), digits(batch_size=50)
    callbacks = [PerClassMetrics(), ConfidentErrors(count=5)]
    run = trainer(folder, callbacks=callbacks)
    run.test(model, data, verbose=False)
    images, labels = zip(*data.test_dataloader(), strict=True)
    with torch.no_grad():
        logits = torch.cat([model(normalized(data, part)) for part in images])
    return run, callbacks, logits, torch.cat(labels)


def normalized(data, images):
    return data.on_after_batch_transfer((images, torch.zeros(len(images))), 0)[0]


def test_the_most_confident_errors_are_kept(evaluated):
    _, (_, errors), logits, labels = evaluated
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten().tolist()
    expected = sorted(wrong, key=lambda place: (-float(confidence[place]), place))[:5]
    assert [error.place for error in errors.worst] == expected
    assert [error.true for error in errors.worst] == labels[expected].tolist()
    assert [error.predicted for error in errors.worst] == predicted[expected].tolist()


def test_the_accuracy_of_the_worst_class_is_logged(evaluated):
    run, _, logits, labels = evaluated
    correct = logits.argmax(dim=1) == labels
    worst = min(float(correct[labels == index].float().mean()) for index in range(10))
    assert float(run.callback_metrics["test/worst_class_top1"]) == pytest.approx(worst)


def test_each_error_is_drawn_with_both_classes_and_the_confidence(evaluated):
    _, (classes, errors), _, _ = evaluated
    assert set(classes.figures(classes.result)) == {"confusion"}
    [figure] = errors.figures(errors.result).values()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 5
    for title, error in zip(titles, errors.worst, strict=True):
        assert str(error.true) in title
        assert f"{error.predicted} ({error.confidence:.0%})" in title


def test_long_names_are_truncated_but_numbers_are_not():
    assert shorten("a_rather_long_file_name_of_a_camera", 16) == "a rather long f…"
    assert shorten("Supercalifragilistic", 10) == "Supercali…"
    assert shorten("  two   words ", 10) == "two words"
    names = ("red_winged_blackbird_male_in_winter", "Chevrolet Silverado 1500 Classic 2007", 0.97)
    axes = error_gallery([torch.zeros(3, 8, 8)], [names]).axes[0]
    assert axes.get_title().endswith("(97%)")


def test_the_most_frequent_confusions_are_drawn_first():
    confusion = np.zeros((30, 30), dtype=np.int32)
    np.fill_diagonal(confusion, 10)
    confusion[3, 4], confusion[7, 1], confusion[0, 2] = 5, 9, 1
    names = [f"class_{index}" for index in range(30)]
    [axes] = confused_pairs(confusion, names).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["class 7 → class 1", "class 3 → class 4", "class 0 → class 2"]
    assert [bar.get_width() for bar in axes.patches] == [9, 5, 1]
    assert [text.get_text().strip() for text in axes.texts] == ["47%", "33%", "9%"]


def test_the_confusion_matrix_is_in_percent_of_the_true_class():
    """Also with a class without images and one without predictions."""
    confusion = np.array([[3, 1, 0], [2, 0, 0], [0, 0, 0]])
    axes, bar = confusion_matrix(confusion, ["a", "b", "c"]).axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (0, 1): "100"}
    assert bar.get_ylim() == (0, 100)


def test_a_count_of_0_is_rejected():
    with pytest.raises(InputError, match=r"ConfidentErrors\.count=0\b"):
        ConfidentErrors(count=0)

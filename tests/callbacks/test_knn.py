"""Nearest neighbors of frozen features, compared with a direct implementation."""

import math

import pytest
import torch
from helpers.data_trees import write_cifar_c
from helpers.digits import complete_test_set, digits, metrics_on_digits, quiet_trainer
from helpers.sampling import every

from smmix_pl import InputError
from smmix_pl.callbacks import KNN
from smmix_pl.data import CIFAR10C
from smmix_pl.models.features import pooled_features


@torch.no_grad()
def features(module, images):
    """Return class tokens after the final norm, L2-normalized."""
    tokens = module.eval().backbone.model.forward_features(images)[:, 0]
    return tokens / tokens.norm(dim=1, keepdim=True)


def training_set(data):
    data.setup("fit")
    batches = [data.on_after_batch_transfer(one, 0) for one in data.plain_train_dataloader()]
    images, classes = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(classes)


@pytest.mark.parametrize("settings", every(2, [{"held_out": 0.2, "shots": 10}, {}]))
def test_accuracy_equals_a_direct_implementation(tiny_module, settings):
    found = metrics_on_digits(tiny_module, KNN([1, 7, 20], temperature=0.5), **settings)
    images, classes = training_set(digits(**settings))
    assert len(images) == (100 if settings else 1438)
    bank, (queries, truth) = features(tiny_module, images), complete_test_set()
    for k in (1, 7, 20):
        correct = 0
        for query, true in zip(features(tiny_module, queries), truth.tolist(), strict=True):
            cosines = (bank @ query).tolist()
            votes = [0.0] * 10
            for index in sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]:
                votes[int(classes[index])] += math.exp(cosines[index] / 0.5)
            correct += votes.index(max(votes)) == true
        assert found[f"test/knn_{k}"] == pytest.approx(correct / len(queries), abs=1.5 / 359)


def test_neighbors_are_not_counted_among_the_images_of_the_run(tiny_module):
    data = digits()
    quiet_trainer(KNN([1])).test(tiny_module, data, verbose=False)
    assert data.counts == {"test": 359}


def test_features_of_models_without_class_token_are_the_mean_token(tiny_backbone):
    model = tiny_backbone.model.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        class_token = model.forward_features(images)[:, 0]
        assert torch.equal(pooled_features(model, images), class_token)
        model.global_pool = "avg"
        mean = model.forward_features(images)[:, 1:].mean(dim=1)
        assert torch.allclose(pooled_features(model, images), mean)


def test_more_neighbors_than_images_are_refused(tiny_module):
    with pytest.raises(InputError, match=r"KNN\.ks=200: .*100 training images"):
        metrics_on_digits(tiny_module, KNN(), shots=10)


@pytest.mark.parametrize("arguments", [{"ks": []}, {"ks": [0]}, {"temperature": 0}])
def test_unusable_settings_are_refused(arguments):
    [name] = arguments
    with pytest.raises(InputError, match=rf"KNN\.{name}="):
        KNN(**arguments)


def test_a_dataset_without_training_images_is_refused(tiny_module, tmp_path):
    write_cifar_c(tmp_path / "CIFAR-10-C")
    data = CIFAR10C(root=str(tmp_path), image_size=32, batch_size=10, num_workers=0)
    with pytest.raises(InputError, match="data=CIFAR10C: no training split"):
        quiet_trainer(KNN()).test(tiny_module, data, verbose=False)

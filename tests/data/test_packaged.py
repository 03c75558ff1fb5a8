import hashlib

import numpy as np
from sklearn import datasets

from fisher_jax.data.packaged import load_digits
from fisher_jax.data.selection import label_hash


def digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def test_images_and_split_never_change():
    source = load_digits()
    assert digest(source.train.images) == "c5c140b6e7a2a40d5a0102d49f952416"
    assert digest(source.test.images) == "18a439f745685d3b39947f950dd8102c"
    train_hash = label_hash(np.arange(1000), source.train.labels)
    assert train_hash == "d917c1159f07eefe9627e1a442c41792"
    test_hash = label_hash(np.arange(797), source.test.labels)
    assert test_hash == "0ccafbc4b1eff63a66b602da8143c1a5"


def test_shapes_and_types():
    source = load_digits()
    assert source.train.images.shape == (1000, 8, 8, 1)
    assert source.test.images.shape == (797, 8, 8, 1)
    for split in (source.train, source.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
    assert source.num_classes == 10
    assert source.label_names == tuple("0123456789")


def test_every_image_of_scikit_learn_is_there_once_with_its_label():
    source = load_digits()
    public = datasets.load_digits()
    expected = np.rint(public.images * 255 / 16).astype(np.uint8)
    assert expected.max() == 255

    def sorted_rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        flat = images.reshape(len(images), -1)
        return sorted(
            row.tobytes() + bytes([label])
            for row, label in zip(flat, labels, strict=True)
        )

    images = np.concatenate([source.train.images, source.test.images])
    labels = np.concatenate([source.train.labels, source.test.labels])
    assert sorted_rows(images, labels) == sorted_rows(expected, public.target)


def test_the_split_is_stratified():
    source = load_digits()
    train = np.bincount(source.train.labels)
    everything = train + np.bincount(source.test.labels)
    assert np.abs(train - everything * 1000 / 1797).max() < 1

"""Small archives in the official layouts of the sets that are prepared from them."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# In wnids.txt they stand in no order.
WNIDS = ("n02124075", "n01443537", "n04067472")
ROOT = "tiny-imagenet-200"


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def tiny_imagenet_files(
    num_train: int = 4, num_validation: int = 5, seed: int = 0
) -> dict[str, bytes]:
    """The official layout: what each file of the archive holds.

    The first training image of the first class and ``val_1`` are grey.
    """
    generator = np.random.default_rng(seed)

    def image(is_grey: bool = False) -> bytes:
        shape = (64, 64) if is_grey else (64, 64, 3)
        return jpeg(generator.integers(0, 256, shape, dtype=np.uint8))

    files = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in WNIDS),
        "words.txt": "".join(f"{wnid}\tname, other name\n" for wnid in WNIDS),
    }
    for wnid in WNIDS:
        names = [f"{wnid}_{i}.JPEG" for i in range(num_train)]
        boxes = "".join(f"{name}\t0\t10\t63\t58\n" for name in names)
        files[f"train/{wnid}/{wnid}_boxes.txt"] = boxes
        for i, name in enumerate(names):
            is_grey = wnid == WNIDS[0] and i == 0
            files[f"train/{wnid}/images/{name}"] = image(is_grey)
    files["val/val_annotations.txt"] = "".join(
        f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t32\t44\t62\n" for i in range(num_validation)
    )
    for i in range(num_validation):
        files[f"val/images/val_{i}.JPEG"] = image(i == 1)
    for i in range(2):
        files[f"test/images/test_{i}.JPEG"] = image()
    return {
        name: content.encode() if isinstance(content, str) else content
        for name, content in files.items()
    }


def write_tiny_imagenet(path: Path, files: dict[str, bytes]) -> None:
    """Writes tiny-imagenet-200.zip; like the official one it also lists folders."""
    folders = {ROOT}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            parents = [f"{ROOT}/{parent}" for parent in Path(name).parents]
            for parent in reversed(parents):
                folder = parent.removesuffix("/.")
                if folder not in folders:
                    folders.add(folder)
                    archive.writestr(f"{folder}/", b"")
            archive.writestr(f"{ROOT}/{name}", content)


def write_cifar(path: Path, num_classes: int) -> dict[str, tuple[np.ndarray, ...]]:
    """Writes CIFAR-10's or CIFAR-100's binary archive, with random images.

    Returns each split's images and (fine) labels.
    """
    generator = np.random.default_rng(0)
    is_fine = num_classes == 100
    size = 50 if is_fine else 20

    def rows() -> tuple[np.ndarray, np.ndarray, bytes]:
        labels = generator.integers(0, num_classes, size, dtype=np.uint8)
        planes = generator.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
        columns = [labels[:, None], planes.reshape(size, -1)]
        if is_fine:
            columns.insert(0, labels[:, None] // 5)
        content = np.concatenate(columns, axis=1).tobytes()
        return planes.transpose(0, 2, 3, 1), labels, content

    folder = "cifar-100-binary" if is_fine else "cifar-10-batches-bin"
    train = ["train.bin"] if is_fine else [f"data_batch_{i}.bin" for i in range(1, 6)]
    test = "test.bin" if is_fine else "test_batch.bin"
    parts = {name: rows() for name in [*train, test]}
    files = {name: content for name, (_, _, content) in parts.items()}
    names = "".join(f"class {i}\n" for i in range(num_classes)).encode()
    if is_fine:
        files["fine_label_names.txt"] = names
        files["coarse_label_names.txt"] = b"".join(
            b"coarse %d\n" % i for i in range(20)
        )
    else:
        files["batches.meta.txt"] = names
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            add_to_tar(archive, f"{folder}/{name}", content)
    joined = [np.concatenate([parts[name][i] for name in train]) for i in range(2)]
    return {"train": tuple(joined), "test": parts[test][:2]}


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_imagenet(folder: Path, images: dict[str, list[bytes]]) -> None:
    """Writes ImageNet's three tar files, with the given images of each split.

    Training images take turns in two classes, each a tar file in the tar file.
    """
    wnids = ("n01440764", "n01443537")
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for number, wnid in enumerate(wnids):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as of_class:
                for i, image in enumerate(images["train"][number::2]):
                    add_to_tar(of_class, f"{wnid}_{i}.JPEG", image)
            add_to_tar(archive, f"{wnid}.tar", buffer.getvalue())
    for split in ("val", "test"):
        with tarfile.open(folder / f"ILSVRC2012_img_{split}.tar", "w") as archive:
            for i, image in enumerate(images[split], 1):
                name = f"ILSVRC2012_{split}_{i:08d}.JPEG"
                add_to_tar(archive, name, image)

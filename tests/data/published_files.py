"""Small sets in the formats that their authors publish, and a server from which torchvision downloads them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, SVHN, CelebA, FashionMNIST
from torchvision.datasets.utils import download_url

from lightning_gen.data.module import ImageDataModule
from lightning_gen.data.sets.celeba import CelebADataModule
from lightning_gen.data.sets.cifar import CIFAR10DataModule, CIFAR100DataModule
from lightning_gen.data.sets.mnist import EMNISTDataModule, FashionMNISTDataModule, KMNISTDataModule, MNISTDataModule
from lightning_gen.data.sets.svhn import SVHNDataModule

Fault = Literal["truncated", "cut off", "altered", "missing"]
Content = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images (N, C, H, W) uint8, upright, and labels (N,) from 0, of each split."""

EMNIST_CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}

_ATTRIBUTES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""
CELEBA_ATTRIBUTES = _ATTRIBUTES.split()


@dataclass
class Server:
    """An HTTP server of the files in a folder that counts requests and can be made to fail.

    Attributes:
        folder: what it serves.
        url: of the folder, ending in a slash.
        requests: paths that were asked for, in order.
        faults: what is wrong with a path.
        delay: seconds before each answer.
        stall: if set, an answer stops after its first bytes until ``released`` is set. Not the first one for a path:
            torchvision asks twice for a file, and reads the second answer.
        stalled: set when an answer has stopped.
    """

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    delay: float = 0.0
    stall: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        self.requests.append(path)
        time.sleep(self.delay)
        fault = self.faults.get(path)
        file = self.folder / path
        if fault == "missing" or not file.is_file():
            request.send_error(404)
            return
        content = file.read_bytes()
        if fault == "truncated":
            content = content[: len(content) // 2]
        elif fault == "altered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if fault == "cut off":
            content = content[: len(content) // 2]
        request.wfile.write(content[:100])
        if self.stall and self.requests.count(path) > 1:
            request.wfile.flush()
            self.stalled.set()
            self.released.wait(60)
        request.wfile.write(content[100:])


@dataclass(frozen=True)
class PublishedSet:
    """A small set that the server has.

    Attributes:
        name: as torchvision calls it.
        module: the data module of a data folder, at the images' own size.
        content: what it must read.
        served: paths on the server.
        files: what belongs in the data folder when all splits were read.
    """

    name: str
    module: Callable[..., ImageDataModule]
    content: Content
    served: list[str]
    files: set[str]


Publish = Callable[[str], PublishedSet]


def encode_idx(array: np.ndarray) -> bytes:
    """The idx format of MNIST."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """An image (3, H, W) as a PNG."""
    content = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(content, "PNG")
    return content.getvalue()


def make_content(shape: tuple[int, int, int], classes: int, **sizes: int) -> Content:
    """Random images and labels of splits of these sizes; every class that fits is there, in random order."""
    rng = np.random.default_rng(0)
    content = {}
    for split, size in sizes.items():
        labels = rng.permutation(np.arange(size) % classes)
        content[split] = rng.integers(0, 256, (size, *shape), dtype=np.uint8), labels
    return content


def write_idx_files(folder: Path, content: Content, *, zipped: bool) -> list[Path]:
    """The four files of MNIST, with gzip's suffix or plain."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for split, (images, labels) in content.items():
        prefix = "train" if split == "train" else "t10k"
        arrays = {f"{prefix}-images-idx3-ubyte": images[:, 0], f"{prefix}-labels-idx1-ubyte": labels.astype(np.uint8)}
        for name, array in arrays.items():
            file = folder / (f"{name}.gz" if zipped else name)
            file.write_bytes(gzip.compress(encode_idx(array)) if zipped else encode_idx(array))
            files.append(file)
    return files


def write_emnist(folder: Path, parts: dict[str, Content]) -> Path:
    """EMNIST's ``gzip.zip``: images transposed, letters numbered from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for part, content in parts.items():
            for split, (images, labels) in content.items():
                stored = labels.astype(np.uint8) + (part == "letters")
                prefix = f"gzip/emnist-{part}-{split}"
                transposed = np.ascontiguousarray(images[:, 0].transpose(0, 2, 1))
                archive.writestr(f"{prefix}-images-idx3-ubyte.gz", gzip.compress(encode_idx(transposed)))
                archive.writestr(f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(encode_idx(stored)))
            archive.writestr(f"gzip/emnist-{part}-mapping.txt", "0 48\n")
    return folder / "gzip.zip"


class _Python2Pickler(pickle._Pickler):
    """Writes strings and arrays as Python 2 did, in which the authors of CIFAR pickled."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def encode_pickle(value: Any) -> bytes:
    """As Python 2 pickled it: strings without an encoding."""
    content = io.BytesIO()
    _Python2Pickler(content, protocol=2).dump(value)
    return content.getvalue()


def encode_cifar_batch(images: np.ndarray, labels: np.ndarray, label_key: str) -> bytes:
    """One batch: a row of red, green and blue planes an image."""
    names = [f"image_{index}.png" for index in range(len(images))]
    batch = {"batch_label": "a batch", label_key: labels.tolist(), "data": images.reshape(-1, 3072), "filenames": names}
    if label_key == "fine_labels":
        batch["coarse_labels"] = (labels // 5).tolist()
    return encode_pickle(batch)


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    """A gzipped tar of these files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def cifar10_files(content: Content) -> dict[str, bytes]:
    """The files of CIFAR-10, by name."""
    images, labels = content["train"]
    files = {}
    for number in range(5):
        rows = slice(number * len(images) // 5, (number + 1) * len(images) // 5)
        files[f"data_batch_{number + 1}"] = encode_cifar_batch(images[rows], labels[rows], "labels")
    files["test_batch"] = encode_cifar_batch(*content["test"], "labels")
    files["batches.meta"] = encode_pickle({"label_names": list(CIFAR10DataModule.all_class_names), "num_vis": 3072})
    files["readme.html"] = b"<html></html>"
    return files


def cifar100_files(content: Content) -> dict[str, bytes]:
    """The files of CIFAR-100, by name."""
    names = list(CIFAR100DataModule.all_class_names)
    return {
        "train": encode_cifar_batch(*content["train"], "fine_labels"),
        "test": encode_cifar_batch(*content["test"], "fine_labels"),
        "meta": encode_pickle({"fine_label_names": names, "coarse_label_names": [str(n) for n in range(20)]}),
        "file.txt~": b"",
    }


def write_svhn(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """A ``.mat`` file in which the digit 0 is called 10."""
    file.parent.mkdir(parents=True, exist_ok=True)
    digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(file, {"X": np.ascontiguousarray(images.transpose(2, 3, 1, 0)), "y": digits})


def write_celeba(folder: Path, sizes: dict[str, int], attribute: str) -> Content:
    """All lists and ``img_align_celeba.zip``, images numbered over the splits; the content is cut to 178x178."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    partition, identity, boxes, landmarks, rows = [], [], [], [], []
    content = {}
    number = 0
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for code, split in enumerate(("train", "valid", "test")):
            images, labels = [], []
            for _ in range(sizes[split]):
                number += 1
                name = f"{number:06d}.jpg"
                picture = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
                encoded = io.BytesIO()
                picture.resize((178, 218), Image.Resampling.BICUBIC).save(encoded, "JPEG")
                archive.writestr(f"img_align_celeba/{name}", encoded.getvalue())
                pixels = np.asarray(Image.open(encoded))
                images.append(pixels[20:198].transpose(2, 0, 1))
                values = np.where(rng.integers(0, 2, len(CELEBA_ATTRIBUTES)) == 1, 1, -1)
                values[CELEBA_ATTRIBUTES.index(attribute)] = 1 if number % 3 else -1
                labels.append(int(number % 3 != 0))
                partition.append(f"{name} {code}")
                identity.append(f"{name} {number * 7}")
                boxes.append(f"{name}    95  71 226 313")
                landmarks.append(f"{name} 69  109  106  113   77  142   73  152  108  154")
                rows.append(f"{name} {' '.join(f'{value:2d}' for value in values)}")
            content[split] = np.stack(images), np.array(labels)
    points = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    lists = {
        "list_eval_partition.txt": partition,
        "identity_CelebA.txt": identity,
        "list_bbox_celeba.txt": [str(number), "image_id x_1 y_1 width height", *boxes],
        "list_landmarks_align_celeba.txt": [
            str(number),
            " ".join(f"{point}_{axis}" for point in points for axis in "xy"),
            *landmarks,
        ],
        "list_attr_celeba.txt": [str(number), " ".join(CELEBA_ATTRIBUTES) + " ", *rows],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return content


def md5(content: Path | bytes) -> str:
    """Hexadecimal MD5, by which torchvision verifies."""
    return hashlib.md5(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()


def read_all(data: ImageDataModule, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) and labels (N,) of a split."""
    source = data.split(split)
    batch = source.read(torch.arange(len(source)))
    assert batch.labels is not None
    assert batch.images.dtype == torch.uint8
    assert batch.labels.dtype == torch.int64
    return batch.images.numpy(), batch.labels.numpy()


def assert_reads(data: ImageDataModule, content: Content) -> None:
    """All splits are exactly what was made."""
    for split, (images, labels) in content.items():
        read_images, read_labels = read_all(data, split)
        assert np.array_equal(read_images, images), split
        assert np.array_equal(read_labels, labels), split


def list_files(folder: Path) -> set[str]:
    """All files below a folder but locks, and folders that hold none."""
    found = set()
    for path in folder.rglob("*"):
        if path.name.endswith(".lock"):
            continue
        if path.is_file() or not any(path.iterdir()):
            found.add(path.relative_to(folder).as_posix())
    return found


class _Publisher:
    """Makes the sets, puts them on the server and tells torchvision."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.patch = monkeypatch

    def mnist(self, published: type[MNIST], module: type[MNISTDataModule]) -> PublishedSet:
        name = published.__name__
        content = make_content((1, 28, 28), 10, train=30, test=20)
        files = write_idx_files(self.server.folder / name, content, zipped=True)
        self.patch.setattr(published, "mirrors", [f"{self.server.url}{name}/"])
        self.patch.setattr(published, "resources", [(file.name, md5(file)) for file in files])
        return PublishedSet(
            name,
            lambda folder, **options: module(str(folder), **{"image_size": 28, **options}),
            content,
            [f"{name}/{file.name}" for file in files],
            {f"{name}/raw/{file.stem}" for file in files},
        )

    def emnist(self, part: str) -> PublishedSet:
        parts = {
            name: make_content((1, 28, 28), classes, train=2 * classes, test=classes)
            for name, classes in EMNIST_CLASSES.items()
        }
        file = write_emnist(self.server.folder / "EMNIST", parts)
        self.patch.setattr(EMNIST, "url", f"{self.server.url}EMNIST/{file.name}")
        self.patch.setattr(EMNIST, "md5", md5(file))
        return PublishedSet(
            "EMNIST",
            lambda folder, **options: EMNISTDataModule(str(folder), **{"part": part, "image_size": 28, **options}),
            parts[part],
            [f"EMNIST/{file.name}"],
            {
                f"EMNIST/raw/emnist-{name}-{split}-{kind}-ubyte"
                for name in parts
                for split in ("train", "test")
                for kind in ("images-idx3", "labels-idx1")
            },
        )

    def cifar(
        self,
        published: type[CIFAR10],
        module: type[CIFAR10DataModule],
        content: Content,
        files: dict[str, bytes],
    ) -> PublishedSet:
        folder, archive = published.base_folder, published.filename
        write_tar(self.server.folder / archive, {f"{folder}/{name}": data for name, data in files.items()})
        self.patch.setattr(published, "url", f"{self.server.url}{archive}")
        self.patch.setattr(published, "tgz_md5", md5(self.server.folder / archive))
        self.patch.setattr(published, "train_list", [[name, md5(files[name])] for name, _ in published.train_list])
        self.patch.setattr(published, "test_list", [[name, md5(files[name])] for name, _ in published.test_list])
        meta = published.meta["filename"]
        self.patch.setattr(published, "meta", {**published.meta, "md5": md5(files[meta])})
        return PublishedSet(
            published.__name__,
            lambda place, **options: module(str(place), **options),
            content,
            [archive],
            {f"{folder}/{name}" for name in files},
        )

    def svhn(self) -> PublishedSet:
        content = make_content((3, 32, 32), 10, train=30, test=20, extra=25)
        split_list = {}
        for split, (images, labels) in content.items():
            file = f"{split}_32x32.mat"
            write_svhn(self.server.folder / file, images, labels)
            split_list[split] = [f"{self.server.url}{file}", file, md5(self.server.folder / file)]
        self.patch.setattr(SVHN, "split_list", split_list)
        return PublishedSet(
            "SVHN",
            lambda folder, **options: SVHNDataModule(str(folder), **options),
            content,
            [file for _, file, _ in split_list.values()],
            {f"svhn/{file}" for _, file, _ in split_list.values()},
        )

    def celeba(self) -> PublishedSet:
        sizes = {"train": 6, "valid": 4, "test": 3}
        folder = self.server.folder / "celeba"
        content = write_celeba(folder, sizes, "Smiling")
        names = [name for _, _, name in CelebA.file_list]
        self.patch.setattr(CelebA, "file_list", [(f"id-{name}", md5(folder / name), name) for name in names])

        def download(file_id: str, root: str, filename: str, md5: str) -> None:
            download_url(f"{self.server.url}celeba/{file_id.removeprefix('id-')}", root, filename, md5)

        self.patch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", download)
        options = {"image_size": 178, "attribute": "Smiling"}
        images = [f"celeba/img_align_celeba/{number + 1:06d}.jpg" for number in range(sum(sizes.values()))]
        return PublishedSet(
            "CelebA",
            lambda place, **more: CelebADataModule(str(place), **{**options, **more}),
            content,
            [f"celeba/{name}" for name in names],
            {*images, *(f"celeba/{name}" for name in names if name.endswith(".txt"))},
        )

    def __call__(self, name: str) -> PublishedSet:
        if name == "mnist":
            return self.mnist(MNIST, MNISTDataModule)
        if name == "fashion_mnist":
            return self.mnist(FashionMNIST, FashionMNISTDataModule)
        if name == "kmnist":
            return self.mnist(KMNIST, KMNISTDataModule)
        if name.startswith("emnist_"):
            return self.emnist(name.removeprefix("emnist_"))
        if name == "cifar10":
            content = make_content((3, 32, 32), 10, train=50, test=20)
            return self.cifar(CIFAR10, CIFAR10DataModule, content, cifar10_files(content))
        if name == "cifar100":
            content = make_content((3, 32, 32), 100, train=100, test=100)
            return self.cifar(CIFAR100, CIFAR100DataModule, content, cifar100_files(content))
        return {"svhn": self.svhn, "celeba": self.celeba}[name]()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of an empty folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    served = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # torchvision hangs up on the first of its two requests for a file.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    served.url = f"http://127.0.0.1:{running.server_address[1]}/"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.released.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def publish(server: Server, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Make a set by name, such as ``cifar10`` or ``emnist_letters``: torchvision then downloads it from the server."""
    return _Publisher(server, monkeypatch)

import builtins
import contextlib
import errno
import io
import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from torchvision.datasets import CIFAR10, MNIST

from lightning_gen.data import downloads
from lightning_gen.data.sets.celeba import CelebADataModule
from lightning_gen.errors import UserError
from tests.conftest import fork, forked
from tests.data.published_files import (
    Publish,
    PublishedSet,
    Server,
    assert_reads,
    list_files,
    md5,
    write_tar,
)

SETS = (
    "mnist",
    "fashion_mnist",
    "kmnist",
    "emnist_balanced",
    "emnist_letters",
    "cifar10",
    "cifar100",
    "svhn",
    "celeba",
)
every_set = pytest.mark.parametrize("name", SETS)
ONE_OF_A_KIND = pytest.mark.parametrize("name", ["mnist", "emnist_letters", "cifar10", "svhn", "celeba"])


def refusal(published: PublishedSet, folder: Path, split: str = "train") -> str:
    """The message with which a set is refused, after what holds for all of them."""
    with pytest.raises(UserError) as caught:
        published.module(folder).split(split)
    message = str(caught.value)
    assert "\n" not in message
    assert published.name in message
    assert str(folder) in message
    assert "paths.data_dir" in message
    return message


def unfinished(published: PublishedSet, folder: Path) -> Path:
    """Where a download lies until it is whole."""
    return folder / "svhn/.SVHN train.download" if published.name == "SVHN" else folder / f".{published.name}.download"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is in a folder, itself included."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def is_below(path: Any, folder: Path) -> bool:
    """Whether an argument of ``open`` is a path in a folder."""
    return isinstance(path, str | os.PathLike) and folder in Path(os.fsdecode(path)).parents


@every_set
def test_the_first_use_downloads_what_was_made(publish: Publish, server: Server, tmp_path: Path, name: str) -> None:
    published = publish(name)
    assert_reads(published.module(tmp_path / "data"), published.content)
    assert set(server.requests) == set(published.served)


@every_set
def test_the_second_use_asks_for_nothing(publish: Publish, server: Server, tmp_path: Path, name: str) -> None:
    published = publish(name)
    assert_reads(published.module(tmp_path), published.content)
    server.requests.clear()
    assert_reads(published.module(tmp_path), published.content)
    assert server.requests == []


@every_set
def test_nothing_but_the_files_of_the_set_is_left(publish: Publish, tmp_path: Path, name: str) -> None:
    published = publish(name)
    assert_reads(published.module(tmp_path / "data"), published.content)
    assert list_files(tmp_path / "data") == published.files


def test_another_part_of_emnist_is_there_after_the_first(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("emnist_letters")
    published.module(tmp_path, part="digits").split("test")
    server.requests.clear()
    assert_reads(published.module(tmp_path), published.content)
    assert server.requests == []


def test_each_split_of_svhn_is_downloaded_when_it_is_used(publish: Publish, server: Server, tmp_path: Path) -> None:
    data = publish("svhn").module(tmp_path)
    data.split("test")
    assert set(server.requests) == {"test_32x32.mat"}
    data.split("extra")
    assert set(server.requests) == {"test_32x32.mat", "extra_32x32.mat"}


@every_set
@pytest.mark.parametrize("fault", ["truncated", "cut off", "altered", "missing"])
def test_a_failed_download_leaves_nothing_and_works_when_the_server_is_right_again(
    publish: Publish, server: Server, tmp_path: Path, name: str, fault: Any
) -> None:
    published = publish(name)
    data = tmp_path / "data"
    (data / "other").mkdir(parents=True)
    (data / "other/notes.txt").write_text("mine")
    # Of several files the second is bad: the first one must not stay behind. SVHN's are downloaded one by one.
    bad = published.served[1 if len(published.served) > 1 and published.name != "SVHN" else 0]
    server.faults[bad] = fault
    message = refusal(published, data)
    assert "404" in message if fault == "missing" else "not the published file" in message
    assert list_files(data) - {"svhn"} == {"other/notes.txt"}
    assert (data / "other/notes.txt").read_text() == "mine"

    server.faults.clear()
    assert_reads(published.module(data), published.content)


@every_set
def test_without_a_server_one_line_says_what_to_do(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    nowhere = "http://127.0.0.1:9/"
    monkeypatch.setattr(server, "url", nowhere)
    published = publish(name)
    assert "refused" in refusal(published, tmp_path / "data")
    assert list_files(tmp_path / "data") <= {"svhn"}


@every_set
def test_the_message_names_the_file_that_could_not_be_downloaded(
    publish: Publish, server: Server, tmp_path: Path, name: str
) -> None:
    published = publish(name)
    server.faults[published.served[0]] = "missing"
    assert Path(published.served[0]).name in refusal(published, tmp_path)


@pytest.mark.parametrize("member", ["../escaped", "cifar-10-batches-py/../../../escaped", "/{folder}/escaped"])
def test_a_tar_with_a_file_outside_its_folder_is_refused(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    published = publish("cifar10")
    archive = server.folder / published.served[0]
    whole, digest = archive.read_bytes(), md5(archive)
    absolute = str(tmp_path / "elsewhere")
    target = member.format(folder=absolute.lstrip("/"))
    write_tar(archive, {"cifar-10-batches-py/readme.html": b"", target: b"bad"})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    # An absolute name is taken for a relative one, and then the set is not whole.
    refusal(published, tmp_path / "data")
    assert list_files(tmp_path / "data") == set()
    assert not list(tmp_path.rglob("escaped"))

    archive.write_bytes(whole)
    monkeypatch.setattr(CIFAR10, "tgz_md5", digest)
    assert_reads(published.module(tmp_path / "data"), published.content)


def test_a_tar_with_a_link_out_of_its_folder_is_refused(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish("cifar10")
    archive = server.folder / published.served[0]
    with tarfile.open(archive, "w:gz") as opened:
        link = tarfile.TarInfo("cifar-10-batches-py/out")
        link.type, link.linkname = tarfile.SYMTYPE, "../../.."
        opened.addfile(link)
        file = tarfile.TarInfo("cifar-10-batches-py/out/escaped")
        file.size = 3
        opened.addfile(file, io.BytesIO(b"bad"))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    refusal(published, tmp_path / "data")
    assert list_files(tmp_path / "data") == set()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_that_was_there_is_kept(publish: Publish, server: Server, tmp_path: Path, fails: bool) -> None:
    published = publish("mnist")
    own = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    if fails:
        server.faults[published.served[0]] = "truncated"
        refusal(published, tmp_path)
    else:
        published.module(tmp_path).split("train")
    assert own.read_bytes() == b"mine"


@every_set
def test_what_a_killed_download_left_is_removed(publish: Publish, tmp_path: Path, name: str) -> None:
    published = publish(name)
    leftover = unfinished(published, tmp_path / "data")
    for file in published.files:
        (leftover / file).parent.mkdir(parents=True, exist_ok=True)
        (leftover / file).write_bytes(b"half of it")
    assert_reads(published.module(tmp_path / "data"), published.content)
    assert not leftover.exists()


def read_in_a_process_to_kill(published: PublishedSet, folder: Path) -> None:
    published.module(folder).split("train")


@ONE_OF_A_KIND
def test_a_process_killed_in_its_download_is_made_good(
    publish: Publish, server: Server, tmp_path: Path, name: str
) -> None:
    published = publish(name)
    server.stall = True
    process = forked(read_in_a_process_to_kill, published, tmp_path / "data")
    assert server.stalled.wait(60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    server.released.set()
    assert unfinished(published, tmp_path / "data").is_dir()

    server.stall = False
    assert_reads(published.module(tmp_path / "data"), published.content)
    assert not unfinished(published, tmp_path / "data").exists()


class Killed(BaseException):
    """Ends what is under way as a kill would, but here."""


@ONE_OF_A_KIND
@pytest.mark.parametrize("moves", [1, 3])
def test_a_kill_while_the_files_are_moved_is_made_good(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moves: int
) -> None:
    published = publish(name)
    replace, done = os.replace, []

    def replace_some(source: Any, target: Any) -> None:
        if len(done) == moves:
            raise Killed
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(downloads.os, "replace", replace_some)
        with contextlib.suppress(Killed):
            published.module(tmp_path / "data").split("train")
    assert_reads(published.module(tmp_path / "data"), published.content)


def test_celeba_is_made_good_when_a_kill_came_after_the_list_of_attributes(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish("celeba")
    replace = os.replace

    def replace_until(source: Any, target: Any) -> None:
        if Path(target).name == "list_bbox_celeba.txt":
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(downloads.os, "replace", replace_until)
        with contextlib.suppress(Killed):
            published.module(tmp_path).split("train")
    assert_reads(published.module(tmp_path), published.content)


def read_when_all_are_ready(published: PublishedSet, folder: Path, barrier: Any, results: Any) -> None:
    """What each of several processes does."""
    try:
        barrier.wait(30)
        assert_reads(published.module(folder), published.content)
        results.put(None)
    except BaseException as error:
        results.put(repr(error))


@every_set
def test_two_processes_at_once_download_once(publish: Publish, server: Server, tmp_path: Path, name: str) -> None:
    published = publish(name)
    assert_reads(published.module(tmp_path / "alone"), published.content)
    alone = sorted(server.requests)
    server.requests.clear()
    server.delay = 0.05
    barrier, results = fork.Barrier(2), fork.Queue()
    processes = [forked(read_when_all_are_ready, published, tmp_path / "data", barrier, results) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [results.get(timeout=60) for _ in processes] == [None, None]
    assert sorted(server.requests) == alone
    assert list_files(tmp_path / "data") == list_files(tmp_path / "alone")


@ONE_OF_A_KIND
def test_who_comes_while_the_files_are_moved_waits(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    published = publish(name)
    replace, others, problems = os.replace, [], []

    def read() -> None:
        try:
            assert_reads(published.module(tmp_path / "data"), published.content)
        except BaseException as error:
            problems.append(error)

    def replace_slowly(source: Any, target: Any) -> None:
        replace(source, target)
        if len(others) < 20 and threading.current_thread() is threading.main_thread():
            others.append(threading.Thread(target=read))
            others[-1].start()
            others[-1].join(0.1)

    monkeypatch.setattr(downloads.os, "replace", replace_slowly)
    assert_reads(published.module(tmp_path / "data"), published.content)
    for other in others:
        other.join(60)
    assert others
    assert problems == []


@every_set
def test_a_folder_that_has_all_is_only_read(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    published = publish(name)
    data = tmp_path / "data"
    assert_reads(published.module(data), published.content)
    for lock in data.rglob("*.lock"):
        lock.unlink()
    before = state(data)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    original = builtins.open

    def open_to_read(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if is_below(file, data) and set(mode) & set("wax+"):
            refuse()
        return original(file, mode, *rest, **options)

    for function in ("mkdir", "makedirs", "replace", "rename", "remove", "unlink", "rmdir", "utime"):
        monkeypatch.setattr(os, function, refuse)
    monkeypatch.setattr(builtins, "open", open_to_read)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    server.requests.clear()
    assert_reads(published.module(data), published.content)
    assert server.requests == []
    assert state(data) == before


@every_set
def test_a_folder_that_cannot_be_made_gives_one_line(
    publish: Publish, server: Server, tmp_path: Path, name: str
) -> None:
    published = publish(name)
    file = tmp_path / "file"
    file.write_text("mine")
    refusal(published, file / "data")
    refusal(published, file)
    assert file.read_text() == "mine"
    assert server.requests == []


def fills_up_at(folder: Path, number: int) -> Callable[..., Any]:
    """``open`` for a disk that is full after so many files were written below a folder, and one half."""
    original, opened = builtins.open, []

    def limited(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        handle = original(file, mode, *rest, **options)
        if is_below(file, folder) and "w" in mode:
            opened.append(file)
            if len(opened) > number:
                write = handle.write

                class Full:
                    def __enter__(self) -> "Full":
                        return self

                    def __exit__(self, *_: object) -> None:
                        handle.close()

                    def close(self) -> None:
                        handle.close()

                    def write(self, content: bytes) -> int:
                        write(content[: len(content) // 2])
                        raise OSError(errno.ENOSPC, "No space left on device")

                return Full()
        return handle

    return limited


@every_set
@pytest.mark.parametrize("number", [0, 1])
def test_a_full_disk_gives_one_line_and_leaves_nothing(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    if name == "svhn" and number == 1:
        number = 0
    published = publish(name)
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        limited = fills_up_at(data, number)
        patch.setattr(builtins, "open", limited)
        # tarfile keeps a reference of its own.
        patch.setattr(tarfile, "bltn_open", limited)
        assert "No space left" in refusal(published, data)
    assert list_files(data) <= {"svhn"}
    assert_reads(published.module(data), published.content)


@ONE_OF_A_KIND
@pytest.mark.parametrize("moves", [0, 1])
def test_a_disk_that_is_full_when_the_files_are_moved_leaves_nothing(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moves: int
) -> None:
    published = publish(name)
    data = tmp_path / "data"
    replace, done = os.replace, []

    def replace_some(source: Any, target: Any) -> None:
        if len(done) == moves:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(downloads.os, "replace", replace_some)
        if moves == 0:
            assert "No space left" in refusal(published, data)
        with contextlib.suppress(UserError):
            # What is moved at once comes through.
            assert_reads(published.module(data), {"train": published.content["train"]})
            return
    assert not [path for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert_reads(published.module(data), published.content)


def test_a_mirror_that_is_gone_is_passed_over(
    publish: Publish, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish("mnist")
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.url}gone/", *MNIST.mirrors])
    assert_reads(published.module(tmp_path), published.content)


def test_files_at_hand_are_not_downloaded(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("mnist")
    shutil.copytree(server.folder / "MNIST", tmp_path / "data/MNIST/raw")
    assert_reads(published.module(tmp_path / "data"), published.content)
    assert server.requests == []
    assert list_files(tmp_path / "data") == {f"{file}.gz" for file in published.files}


def test_celeba_is_unpacked_where_its_zip_file_is(publish: Publish, server: Server, tmp_path: Path) -> None:
    published = publish("celeba")
    shutil.copytree(server.folder / "celeba", tmp_path / "data/celeba")
    for _ in range(2):
        assert_reads(published.module(tmp_path / "data"), published.content)
    assert server.requests == []
    assert not [file for file in list_files(tmp_path / "data") if "/." in file]


def test_the_refusal_of_google_drive_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gdown

    def refuse(*_: object, **__: object) -> None:
        raise gdown.exceptions.FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users have viewed it.")

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(UserError, match=r"Too many users.*paths\.data_dir") as caught:
        CelebADataModule(str(tmp_path)).split("train")
    assert "\n" not in str(caught.value)
    assert list_files(tmp_path) == set()


def test_without_gdown_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"CelebA.*pip install.*gdown") as caught:
        CelebADataModule(str(tmp_path)).split("train")
    assert "\n" not in str(caught.value)
    assert list_files(tmp_path) == set()

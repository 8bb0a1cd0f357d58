"""What processes share: images to check, a cache to verify and to fill, a folder that may be another node's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from safevlm.training import fill
from safevlm.training.cache import FeatureCache, cache_identity
from safevlm.training.fill import Filler
from safevlm.training.ranks import Ranks

from safevlm import Taxonomy
from safevlm.backbone import VisionTower, load_tower
from safevlm.data import read_image
from safevlm.errors import DataError, ImageError
from safevlm.labelled import image_keys
from safevlm.labelled.table import Needs, read_table
from tests.training.builders import rows, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")


def _run(rank, world, folder, work):
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=world)
    try:
        found = work(Ranks(rank, world))
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        found = error
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


def in_processes(world, folder, work):
    """What `work` gives, or raises, in each of several processes that can speak to each other."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_run, args=(rank, world, folder, work)) for rank in range(world)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(world)]  # noqa: S301


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Counts, over all processes, what a function was called for."""

    def count(owner, name, number):
        real, log = getattr(owner, name), tmp_path / f"{name}.log"
        log.touch()

        def counting(*args, **kwargs):
            with log.open("a") as file:  # short appends are whole
                file.write(f"{os.getpid()} {number(*args)}\n")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

        def seen():
            lines = [line.split() for line in log.read_text().splitlines()]
            log.write_text("")
            totals = {}
            for process, value in lines:
                totals[process] = totals.get(process, 0) + int(value)
            return sorted(totals.values())

        return seen

    return count


@pytest.fixture
def read(table):
    """The rows of a table, by hash."""
    return {row.key: row for row in read_table(table, TAXONOMY)}


@pytest.fixture
def filler(backbone):
    """Makes this process's filler of a folder."""

    def make(folder, ranks, precision="float16", batch_size=4):
        tower = load_tower(backbone)
        cache = FeatureCache(folder, cache_identity(tower, precision))
        return Filler(cache, tower, ranks=ranks, batch_size=batch_size, silent=True)

    return make


def test_results_are_in_the_order_of_the_items(tmp_path):
    for count in (0, 1, 7):
        found = in_processes(
            3,
            tmp_path / str(count),
            lambda ranks, n=count: ranks.distribute(range(n), lambda own: [x * x for x in own]),
        )
        assert found == [[x * x for x in range(count)]] * 3


def test_images_are_decoded_by_one_process_each(tmp_path, counted):
    made = rows(12)
    made[3]["image"]["bytes"] = made[3]["image"]["bytes"][:60]
    made[5]["risk_level"] = "no such level"
    path = write_parquet(tmp_path / "t.parquet", made)
    decoded = counted(image_keys, "decode", lambda *_: 1)
    alone = read_table(path, TAXONOMY, skip_bad=True)
    decoded()
    first, second = in_processes(
        2,
        tmp_path / "p",
        lambda ranks: read_table(path, TAXONOMY, skip_bad=True, distribute=ranks.distribute),
    )
    assert decoded() == [5, 6]  # eleven rows whose columns are right
    assert first == second == alone
    assert len(alone) == 10
    errors = in_processes(
        2,
        tmp_path / "e",
        lambda ranks: read_table(path, TAXONOMY, needs=Needs(), distribute=ranks.distribute),
    )
    assert [type(error) for error in errors] == [DataError] * 2
    assert "row 4, column image" in str(errors[0]) == str(errors[1])


def test_a_shared_folder_is_filled_and_verified_once(tmp_path, read, filler, counted):
    passed = counted(VisionTower, "__call__", lambda tower, inputs, **_: len(inputs.rows))
    verified = counted(FeatureCache, "_whole", lambda *_: 1)

    def work(ranks):
        own = filler(tmp_path / "c", ranks)
        own.fill(read)
        return own.cache.read(list(read)).groups[0].features

    first, second = in_processes(2, tmp_path / "1", work)
    assert passed() == [12, 12]
    assert torch.equal(first, second)
    verified()
    again = in_processes(2, tmp_path / "2", work)
    assert passed() == []
    assert sum(verified()) == 24
    assert torch.equal(again[0], first)


def test_a_damaged_shard_is_computed_again_by_all(tmp_path, read, filler, counted):
    filler(tmp_path / "c", Ranks()).fill(read)
    expected = filler(tmp_path / "c", Ranks()).cache.read(list(read)).groups[0].features
    data = next((tmp_path / "c").glob("shard-*.npy"))
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(bytes(content))
    passed = counted(VisionTower, "__call__", lambda tower, inputs, **_: len(inputs.rows))

    def work(ranks):
        own = filler(tmp_path / "c", ranks)
        own.fill(read)
        return own.cache.read(list(read)).groups[0].features

    found = in_processes(2, tmp_path / "p", work)
    assert passed() == [12, 12]
    assert all(torch.equal(features, expected) for features in found)


def test_nodes_with_folders_of_their_own_fill_each(tmp_path, read, filler, counted):
    """Ranks 0 and 1 are on one node, rank 2 on another, under the same path as a user gives it."""
    passed = counted(VisionTower, "__call__", lambda tower, inputs, **_: len(inputs.rows))

    def work(ranks):
        own = filler(tmp_path / f"node{ranks.rank // 2}", ranks)
        own.fill(read)
        return len(own.cache.missing(read)), own.ranks.same_folder(own.cache.folder)

    assert in_processes(3, tmp_path / "p", work) == [(0, [0, 1]), (0, [0, 1]), (0, [2])]
    assert passed() == [12, 12, 24]
    assert not list(tmp_path.glob("node*/.rank-*"))


def test_a_failure_of_one_process_ends_all(tmp_path, read, filler, table):
    path = tmp_path / "gone.png"
    keys = list(read)
    read[keys[1]] = SimpleNamespace(key=keys[1], open=lambda: read_image(path))
    errors = in_processes(2, tmp_path / "p", lambda ranks: filler(tmp_path / "c", ranks).fill(read))
    assert [type(error) for error in errors] == [DataError, ImageError]
    assert all("gone.png" in str(error) for error in errors)


def test_space_is_looked_at_before_anything_is_computed(tmp_path, read, filler, monkeypatch, counted):
    filler(tmp_path / "enough", Ranks(), "float32").fill(read)
    needed = sum(file.stat().st_size for file in (tmp_path / "enough").glob("*.npy"))
    needed -= 128 * len(list((tmp_path / "enough").glob("*.npy")))  # the files' headers
    assert needed == 24 * 16 * 32 * 4
    passed = counted(VisionTower, "__call__", lambda *_: 1)
    monkeypatch.setattr(fill.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        DataError, match=r"24 images need 4\.92e-05 GB .*disk has 4\.92e-05 GB left.*--model\.cache\.folder"
    ):
        filler(tmp_path / "c", Ranks(), "float32").fill(read)
    assert passed() == []
    filler(tmp_path / "half", Ranks(), "float16").fill(read)
    filler(tmp_path / "enough", Ranks(), "float32").fill(read)  # nothing to compute


def test_features_that_cannot_be_written_are_an_error(tmp_path, read, filler):
    own = filler(tmp_path / "c", Ranks())
    for file in (tmp_path / "c").iterdir():
        file.unlink()
    (tmp_path / "c").rmdir()
    with pytest.raises(DataError, match=r"cannot write features .*free space"):
        own._compute(list(read.values()))


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_split_the_weights_are_refused(strategy):
    trainer = SimpleNamespace(strategy=strategy(), global_rank=0, world_size=2)
    with pytest.raises(ValueError, match=r"splits the weights .* --trainer.strategy ddp"):
        Ranks.of(trainer)
    assert Ranks.of(SimpleNamespace(strategy=DDPStrategy(), global_rank=1, world_size=2)) == Ranks(1, 2)

"""Splits, mixing and order of the training rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from safevlm.training import base
from safevlm.training.datamodule import SafetyDataModule
from safevlm.training.ranks import Ranks
from safevlm.training.sampler import EpochSampler

from safevlm import Taxonomy
from safevlm.errors import DataError
from safevlm.labelled.table import Needs
from tests.training.builders import rows, write_parquet

TAXONOMY = Taxonomy.preset("safevlm")


def module(table, **options):
    made = SafetyDataModule(str(table), batch_size=4, **options)
    made.read(TAXONOMY, Needs())
    return made


def order(made, epoch, **options):
    sampler = EpochSampler(
        made.train_rows, made.epoch_order, **({"rank": 0, "world": 1, "seed": 0} | options)
    )
    sampler.set_epoch(epoch)
    return sampler, list(sampler)


@pytest.fixture
def clean(tmp_path):
    table = [row | {"risk_level": "", "risk_category": ""} for row in rows(20) if row["risk_level"] == "safe"]
    return write_parquet(tmp_path / "clean.parquet", table)


def test_split_column_decides(table):
    made = module(table)
    assert (len(made.train_rows), len(made.tune_rows)) == (16, 8)
    batch = next(iter(made.tune_dataloader()))
    assert batch["images"][0].size == (16, 16)
    assert batch["index"].tolist() == [0, 1, 2, 3]
    assert all(len(key) == 64 for key in batch["keys"])


def test_without_a_split_column_images_are_drawn_by_hash(tmp_path):
    table = [{k: v for k, v in row.items() if k != "split"} for row in rows(60)]
    table += table[:30]  # the same pictures again: on the same side
    path = write_parquet(tmp_path / "t.parquet", table)
    first, again = (module(path, tune_fraction=0.3) for _ in range(2))
    assert {row.key for row in first.train_rows}.isdisjoint(row.key for row in first.tune_rows)
    assert [row.key for row in first.tune_rows] == [row.key for row in again.tune_rows]
    assert 10 <= len(first.tune_rows) <= 45
    assert {row.key for row in module(path, tune_fraction=0.3, seed=1).tune_rows} != {
        r.key for r in first.tune_rows
    }
    assert module(path, tune_fraction=0).tune_rows == []


def test_test_rows_are_never_used(tmp_path):
    table = [row | {"split": "test" if number < 4 else ""} for number, row in enumerate(rows(12))]
    made = module(write_parquet(tmp_path / "t.parquet", table), tune_fraction=0.5)
    assert len(made.rows) == 8


def test_picture_in_both_splits_is_warned_of(tmp_path, caplog):
    table = rows(4) + [row | {"split": "tune"} for row in rows(2)]
    module(write_parquet(tmp_path / "t.parquet", table))
    assert "2 tune rows show an image that is also trained on" in caplog.text


def test_clean_rows_are_mixed_in(table, clean):
    made = module(table, clean=str(clean))
    assert sorted(order(made, 0)[1]) == list(range(26))
    assert {(row.level, row.category) for row in made.clean_rows} == {
        (0, TAXONOMY.category_names.index("clean"))
    }
    half = module(table, clean=str(clean), clean_fraction=0.5)
    first, second = order(half, 0)[1], order(half, 1)[1]
    assert len(first) == len(second) == 32
    assert sum(number >= 16 for number in first) == 16
    assert set(first) == set(range(26))  # ten clean rows, each once before any twice
    few = module(table, clean=str(clean), clean_fraction=0.2)
    assert {n for n in order(few, 0)[1] if n >= 16} != {n for n in order(few, 1)[1] if n >= 16}


def test_risky_row_among_the_clean_is_refused(table):
    with pytest.raises(DataError, match=r"row 2, column risk_level: the clean table has a risky row"):
        module(table, clean=str(table))


def test_order_depends_on_seed_and_epoch_alone(table):
    made = module(table)
    assert order(made, 3)[1] == order(made, 3)[1]
    assert order(made, 3)[1] != order(made, 4)[1] != order(module(table, seed=1), 4)[1]
    shares = [order(made, 3, rank=rank, world=3)[1] for rank in range(3)]
    assert {len(share) for share in shares} == {6}
    assert set().union(*shares) == set(range(16))


def test_resumed_epoch_goes_on_after_the_batches_done(table):
    made = module(table)
    whole = order(made, 2)[1]
    sampler, _ = order(made, 0)
    sampler.resume(2, 3, batches=4, batch_size=4)
    assert list(sampler) == whole[12:]
    assert list(sampler) == whole  # only once
    sampler.resume(2, 4, batches=4, batch_size=4)
    assert list(sampler) == order(made, 3)[1]


@pytest.mark.parametrize("options", [{"clean_fraction": 0.5}, {"tune_fraction": 1.0}])
def test_options_out_of_range_are_refused(table, options):
    with pytest.raises(ValueError, match=r"needs|needed"):
        SafetyDataModule(str(table), **options)


def test_nothing_to_learn_from_is_an_error(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [row | {"risk_level": ""} for row in rows(4)])
    with pytest.raises(DataError, match="no training row has a risk_level"):
        module(path)
    path = write_parquet(tmp_path / "b.parquet", [row | {"split": "tune"} for row in rows(4)])
    with pytest.raises(DataError, match="no row is left for training"):
        module(path)


@pytest.mark.parametrize(("count", "world"), [(3, 8), (1, 4), (5, 3), (8, 8), (16, 5)])
def test_every_process_gets_as_many_rows_as_the_others(tmp_path, count, world):
    made = module(write_parquet(tmp_path / "t.parquet", rows(count + 1)[1:]), tune_fraction=0)
    shares = [order(made, 0, rank=rank, world=world)[1] for rank in range(world)]
    assert {len(share) for share in shares} == {len(order(made, 0, world=world)[0])} == {-(-count // world)}
    seen = sorted(number for share in shares for number in share)
    assert set(seen) == set(range(count))
    assert max(map(seen.count, seen)) - min(map(seen.count, seen)) <= 1  # padded evenly


def test_the_data_needs_neither_a_stage_nor_a_trainer(table, clean):
    """What a stage uses of it: rows, counts, batches and the loaders."""
    made = module(table, clean=str(clean), clean_fraction=0.5)
    assert made.batches() == len(made.train_dataloader()) == 32 / 4
    assert sum(times for _, times in made.rows_per_epoch()) == pytest.approx(32)
    batches = list(made.train_dataloader())
    assert [n for batch in batches for n in batch["index"].tolist()] == made.epoch_order(0)
    assert batches[0]["images"][0].size == (16, 16)
    made.decode_images = False
    assert made.example_batch()["images"] == [None] * 4
    assert made.example_batch()["keys"] == [row.key for row in made.train_rows[:4]]


def test_processes_have_a_part_of_the_batches(table):
    parts = []
    for rank in range(2):
        made = SafetyDataModule(str(table), batch_size=4)
        made.ranks = Alone(rank, 2)
        made.read(TAXONOMY, Needs())
        assert made.batches() == 2
        parts.append([n for batch in made.train_dataloader() for n in batch["index"].tolist()])
    assert sorted(parts[0] + parts[1]) == list(range(16))


class Alone(Ranks):
    """One of two processes, which reads every image itself."""

    def distribute(self, items, work):
        return work(items)


class StopHereError(Exception):
    """Ends a stage's setup."""


def test_rows_that_were_read_before_there_was_a_trainer_are_split_among_its_processes(table, monkeypatch):
    def stop(trainer, batches):
        raise StopHereError(batches)

    data = SafetyDataModule(str(table), batch_size=4)
    data.read(TAXONOMY, Needs())
    assert data.batches() == 4
    monkeypatch.setattr(base.Ranks, "of", classmethod(lambda cls, trainer: Ranks(1, 2)))
    monkeypatch.setattr(base, "check_batches", stop)
    with pytest.raises(StopHereError, match="2"):
        base.TrainingStage.setup(SimpleNamespace(data=data, trainer=None, global_rank=0), "fit")

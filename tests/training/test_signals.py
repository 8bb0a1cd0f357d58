"""Ctrl-C and SIGTERM end a run at once: no output folder, the way to go on, exit codes 130 and 143."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest
from lightning.pytorch import Callback
from safevlm.training.cli import command

from safevlm.cli import main
from safevlm.errors import TrainingInterrupted


class Signal(Callback):
    def __init__(self, number, step, hook="on_train_batch_start"):
        self.number, self.step = number, step
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """As in a terminal: a shell starts background jobs, a test run among them, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "step", "hook", "code", "told"),
    [
        (
            signal.SIGINT,
            6,
            "on_train_batch_start",
            130,
            "interrupted in optimizer step 7; .* --ckpt_path last",
        ),
        (signal.SIGTERM, 6, "on_validation_batch_start", 143, None),
        (signal.SIGTERM, 6, "on_train_batch_start", 143, "no weights were written.* --ckpt_path last"),
        (
            signal.SIGTERM,
            2,
            "on_before_backward",
            143,
            "no checkpoint .* was saved yet: give the same command again",
        ),
        (signal.SIGTERM, 0, "setup", 143, "the same command again"),
        (signal.SIGINT, 8, "on_train_end", 130, "--ckpt_path last"),
    ],
)
def test_interrupted_run_says_how_to_go_on(quick, tmp_path, number, step, hook, code, told):
    if told is None:
        step, told = 4, "no weights were written"
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    made = command("head", quick(tmp_path / "out"))
    made.trainer.callbacks.append(Signal(number, step, hook))
    with pytest.raises(TrainingInterrupted, match=told) as stopped:
        made.fit()
    assert stopped.value.exit_code == code
    assert not (tmp_path / "out").exists()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def wait_for(path):
    end = time.monotonic() + 120
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)


def test_command_line_ends_with_the_signals_code(quick, tmp_path):
    argv = ["train", "head", *quick(tmp_path / "out", **{"trainer.max_epochs": 10_000, "save_every": 1})]
    child = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(main(argv)))
    child.start()
    wait_for(tmp_path / "out.run" / "checkpoints" / "last.ckpt")
    os.kill(child.pid, signal.SIGTERM)
    child.join(120)
    assert child.exitcode == 143
    assert not (tmp_path / "out").exists()


def test_every_process_of_a_run_ends(quick, tmp_path):
    more = {
        "trainer.strategy": "ddp_fork",
        "trainer.devices": 2,
        "trainer.max_epochs": 10_000,
        "save_every": 1,
    }
    made = command("head", quick(tmp_path / "out", **more))

    def send():
        wait_for(tmp_path / "out.run" / "checkpoints" / "last.ckpt")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(TrainingInterrupted, match="--ckpt_path last") as stopped:
        made.fit()
    assert stopped.value.exit_code == 143
    for process in made.trainer.strategy.launcher.procs:
        process.join(60)
        assert not process.is_alive()
    assert not (tmp_path / "out").exists()

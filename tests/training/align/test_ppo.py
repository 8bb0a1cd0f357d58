"""PPO: each step of the algorithm against what it is by definition."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from safevlm.training.align.ppo_options import Ppo
from safevlm.training.align.rewards import JudgeReward
from safevlm.training.cli import command

from safevlm.errors import DataError, TrainingError
from tests.training.align.builders import FirstWordJudge
from tests.training.builders import write_jsonl


def letters(answers, samples):
    """1 for an answer of one lower-case letter."""
    return [float(answer.isalpha() and answer.islower()) for answer in answers]


def by_length(answers, samples):
    """The share of letters, which differs from answer to answer."""
    return [sum(map(str.isalpha, answer)) / 6 for answer in answers]


class Watch(Callback):
    """What each step logged, and the rollout and targets of each update."""

    def __init__(self):
        self.logged, self.updates = [], []

    def on_train_start(self, trainer, module):
        update = module.update

        def watched(*args):
            before = {name: value.detach().clone() for name, value in module.trained.items()}
            found = update(*args)
            after = {name: value.detach().clone() for name, value in module.trained.items()}
            self.updates.append((args, before, after, found))
            return found

        module.update = watched

    def on_train_batch_end(self, trainer, module, *_):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def run(argv, *, reward=by_length, watch=None):
    made = command("ppo", argv)
    made.model.reward = reward
    made.trainer.callbacks.append(watch or Watch())
    made.fit()
    return made


@pytest.fixture(scope="module")
def once():
    """Options of a run of one batch, whose reward tells the answers apart."""
    return {"trainer.max_steps": 1, "model.shaping.no_end_penalty": 0, "model.ppo.temperature": 0.8}


@pytest.mark.parametrize(("value_lora", "checkpointing"), [("separate", "true"), ("shared", "false")])
def test_one_update_by_hand_equals_the_file(quick, once, value_lora, checkpointing):
    """The whole batch at once, advantages in NumPy, losses written out, torch's own AdamW."""
    options = {"model.ppo.value_lora": value_lora, "model.ppo.micro_batch": 3}
    options |= {"model.gradient_checkpointing": checkpointing, "model.ppo.grad_norm": 0.5}
    watch = Watch()
    made = run(quick("ppo", **once, **options), watch=watch)
    module = made.model
    (rollout, advantages, returns, taught), before, after, _ = watch.updates[0]

    # the targets: rewards, values of 0 from a head of zeros, gamma = lambda = 1
    reward = np.array(by_length(rollout.texts, rollout.samples))
    reward = (reward - reward.min()) / (np.ptp(reward) + 1e-6)
    mask, lengths = rollout.mask.numpy(), np.array(rollout.lengths)
    tokens = np.zeros(mask.shape)
    tokens[np.arange(len(lengths)), lengths - 1] = 10 * (reward + 4 * lengths / 512)
    expected = np.flip(np.flip(tokens, 1).cumsum(1), 1) * mask
    np.testing.assert_allclose(returns, expected, rtol=1e-4, atol=1e-4)
    own = expected[mask]
    np.testing.assert_allclose(advantages[taught], (own - own.mean()) / own.std(), rtol=1e-3, atol=1e-3)

    with torch.no_grad():
        for name, parameter in module.trained.items():
            parameter.copy_(before[name])
            parameter.grad = None
    policy, log_probs, states = module.policy, [], []
    for number, length in enumerate(lengths):  # one answer at a time
        part = rollout.parts[number // 3]
        row = number - part.rows.start
        inputs = part.answered.inputs
        end = int(inputs.tensors["attention_mask"][row].sum())
        arguments = {
            "input_ids": inputs.tensors["input_ids"][row : row + 1, :end],
            "pixel_values": part.answered.passed.pixels[inputs.images[row][0]][None],
        }
        answer = arguments["input_ids"][0, end - length :]

        def forward(arguments=arguments, length=length, end=end):
            out = policy.backbone.model(**arguments, output_hidden_states=True)
            return out.logits[0, end - length - 1 : end - 1] / 0.8, out.hidden_states[-1][
                0, end - length - 1 : end - 1
            ]

        logits, own_states = forward()
        logits[:, [0, 1, 3]] = -1e9
        log_probs.append(logits.log_softmax(-1))
        if value_lora == "separate":
            with module.value_layers():
                own_states = forward()[1]
        states.append(own_states)
        rollout_old = rollout.log_probs[number, :length]
        torch.testing.assert_close(
            log_probs[-1][torch.arange(length), answer], rollout_old, rtol=1e-4, atol=1e-4
        )
        log_probs[-1] = (log_probs[-1], answer)
    total, count = 0, mask.sum()
    for number, (distribution, answer) in enumerate(log_probs):
        length = len(answer)
        new = distribution[torch.arange(length), answer]
        ratio = (new - rollout.log_probs[number, :length]).exp()
        gain = torch.minimum(
            ratio * advantages[number, :length], ratio.clamp(0.8, 1.2) * advantages[number, :length]
        )
        value = (states[number] @ module.value_head.weight.T)[:, 0] + module.value_head.bias
        worst = torch.maximum(
            (value - returns[number, :length]) ** 2, (value.clamp(-0.2, 0.2) - returns[number, :length]) ** 2
        )
        entropy = -(distribution.exp() * distribution).sum()
        total = total + (-gain.sum() + 0.1 * 0.5 * worst.sum() - 0.02 * entropy) / count
    total.backward()
    parameters = list(module.trained.values())
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
    assert norm > 0.5
    torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0).step()
    for name, parameter in module.trained.items():
        big = (
            after[name] - before[name]
        ).abs() > 9e-4  # Adam's first step is lr * sign, but where a gradient is about 0
        assert not torch.equal(after[name], before[name]) or not parameter.grad.any(), name
        torch.testing.assert_close(parameter[big], after[name][big], rtol=1e-3, atol=2e-5, msg=name)


def test_the_ratio_is_exactly_1_in_the_first_inner_epoch_and_not_in_the_second(quick, once):
    watch = Watch()
    run(
        quick(
            "ppo",
            **{**once, "trainer.max_steps": 2},
            **{"model.ppo.inner_epochs": 2, "model.ppo.micro_batch": 3},
        ),
        watch=watch,
    )
    (_, _, _, first), (_, _, _, second) = watch.updates
    assert first == 0.0
    assert second != 0.0
    (rollout, *_), *_ = watch.updates[0]
    assert torch.equal(rollout.log_probs, rollout.reference)  # new LoRA layers
    assert watch.logged[0]["train/kl"] == 0.0


def test_inner_epochs_end_where_the_policy_has_moved(quick, once):
    watch = Watch()
    options = {"model.ppo.inner_epochs": 4, "model.ppo.inner_kl": 1e-9, "model.schedule.lr": 1e-2}
    run(quick("ppo", **{**once, "trainer.max_steps": 3}, **options), watch=watch)
    moved = [found for *_, found in watch.updates]
    assert moved[0] == 0.0
    assert all(found <= 1e-9 or later == 0.0 for found, later in pairwise(moved))


@pytest.mark.parametrize(("advantages", "answers"), [("gae", 1), ("group", 8)])
def test_a_bandit_is_learned(quick, tmp_path, advantages, answers):
    """One token after a prompt without an image: 1 for a lower-case letter, a tenth of the vocabulary, and 0 for all else."""
    rows = [{"prompt": "Say.", "chosen": "a", "rejected": "b", "images": []}] * 32
    options = {
        "data.concepts": None, "data.preferences": write_jsonl(tmp_path / "p.jsonl", rows), "data.batch_size": 32 // answers,
        "model.ppo.advantages": advantages, "model.ppo.answers_per_prompt": answers, "model.ppo.max_new_tokens": 1,
        "model.ppo.micro_batch": 32, "model.ppo.temperature": 0.3, "model.ppo.entropy_weight": 0, "model.schedule.lr": 0.02,
        "model.shaping.length_bonus": 0, "model.shaping.no_end_penalty": 0, "model.shaping.kl_weight": 0,
        "trainer.max_epochs": 25, "trainer.max_steps": 25, "trainer.enable_checkpointing": "false", "trainer.logger": "false",
        "model.reward": "tests.training.align.test_ppo.letters",
    }  # fmt: skip
    watch = Watch()
    made = command("ppo", quick("ppo", **options))
    made.trainer.callbacks.append(watch)
    made.fit()
    rewards = [row["train/reward"] for row in watch.logged]
    assert np.mean(rewards[:3]) < 0.4
    assert np.mean(rewards[-5:]) > 0.9
    rows = [json.loads(line) for line in (tmp_path / "out.run" / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 25
    assert {"step", "prompt", "concept", "gold", "answer", "reward"} == set(rows[0])


def test_equal_rewards_are_no_nan_and_the_run_is_logged(quick):
    watch = Watch()
    run(
        quick("ppo", **{"trainer.max_steps": 2}),
        reward=lambda answers, samples: [0.5] * len(answers),
        watch=watch,
    )
    names = (
        "reward",
        "shaped_reward",
        "kl",
        "clip_share",
        "policy",
        "value",
        "entropy",
        "length",
        "ended",
        "na_share",
    )
    for row in watch.logged:
        assert all(math.isfinite(row[f"train/{name}"]) for name in names)
    assert watch.logged[0]["train/reward"] == 0.5


def test_what_the_judge_failed_on_teaches_nothing(quick, once, tmp_path):
    def some(answers, samples):
        return [None, *by_length(answers, samples)[1:]]

    watch = Watch()
    run(quick("ppo", **once), reward=some, watch=watch)
    (rollout, advantages, returns, taught), *_ = watch.updates[0]
    assert not taught[0].any()
    assert not advantages[0].any()
    assert not returns[0].any()
    assert torch.equal(taught[1:], rollout.mask[1:])
    assert watch.logged[0]["train/na_share"] == 0.25

    class Down(FirstWordJudge):
        def log_likelihoods(self, questions, answers):
            return [None] * len(answers)

    watch = Watch()
    with pytest.raises(TrainingError, match="no weight changed in 0 optimizer steps"):
        run(quick("ppo", **{"model.output_dir": tmp_path / "none"}), reward=JudgeReward(Down()), watch=watch)
    assert not watch.updates
    assert watch.logged[0]["train/na_share"] == 1
    assert not (tmp_path / "none").exists()


def test_a_bad_reward_and_a_broken_step_write_no_folder(quick, tmp_path):
    with pytest.raises(TrainingError, match="gave nan for the answer"):
        run(quick("ppo"), reward=lambda answers, samples: [math.nan] * len(answers))
    with pytest.raises(TrainingError, match="gave 3 rewards for 4 answers"):
        run(quick("ppo"), reward=lambda answers, samples: [0.0] * 3)
    with pytest.raises(TrainingError, match="not finite.*lower the learning rate"):
        run(quick("ppo", **{"model.schedule.lr": 1e30}))
    assert not (tmp_path / "out").exists()


def test_the_run_ends_where_the_policy_is_too_far_from_the_reference(quick, tmp_path):
    watch = Watch()
    options = {
        "model.ppo.stop_kl": 0.02,
        "model.schedule.lr": 0.05,
        "trainer.max_epochs": 10,
        "model.shaping.no_end_penalty": 0,
    }
    run(quick("ppo", **options), watch=watch)
    kl = [row["train/kl"] for row in watch.logged]
    assert len(kl) < 40
    assert kl[-1] > 0.02
    assert max(kl[:-1]) <= 0.02
    assert (tmp_path / "out" / "alignment.json").is_file()


def test_a_prompt_that_fills_the_context_is_refused(quick, tmp_path):
    with pytest.raises(
        DataError, match=r"leave no room for their answer in the model's 512 positions; .*max_new_tokens"
    ):
        run(quick("ppo", **{"model.ppo.max_new_tokens": 500}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clip": 0}, "ppo.clip is 0; a number above 0"),
        ({"gamma": 1.5}, r"ppo.gamma is 1.5; a number in \[0, 1\]"),
        ({"inner_epochs": 0}, "ppo.inner_epochs is 0; at least 1"),
        ({"advantages": "group"}, "compares the answers to one prompt, and ppo.answers_per_prompt is 1"),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        Ppo(**options)

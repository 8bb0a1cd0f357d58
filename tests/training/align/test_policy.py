"""The policy and its reference: one set of weights, scored token by token."""

from __future__ import annotations

import pytest
import torch
from safevlm.training.align.policy import Policy
from safevlm.training.align.samples import Sample
from safevlm.training.lora import Lora, lora_active

from tests.tiny import picture, tiny_backbone

ANSWERS = ["Yes, it is.", "No."]
TOWER = "model.vision_tower"


def asked(policy, count=2):
    samples = [Sample((), "Is it fine?" + "!" * number, "", "") for number in range(count)]
    return policy.see(samples, [[picture(number)] for number in range(count)])


def moved(policy, seed=0):
    """LoRA layers that change the model."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return policy


@pytest.fixture
def policy():
    return Policy(tiny_backbone(), Lora(r=2, alpha=4, dropout=0.0))


def test_new_layers_are_at_no_distance_from_the_reference(policy):
    answered = policy.answered(asked(policy), ANSWERS)
    now = policy.scores(answered).log_probs
    with policy.reference():
        assert torch.equal(policy.scores(answered).log_probs, now)
    moved(policy)
    with policy.reference():
        assert torch.equal(policy.scores(answered).log_probs, now)
    assert not torch.allclose(policy.scores(answered).log_probs, now, atol=0.1)


def test_only_lora_on_the_language_model_is_trained(policy):
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)


def test_scores_are_those_of_the_model_alone(policy):
    """A plain forward pass of each prompt and answer by itself, without padding and without a replayed tower pass."""
    moved(policy)
    backbone, prompts = policy.backbone, asked(policy)
    answers = [[*backbone.tokenizer(text, add_special_tokens=False).input_ids, 2] for text in ANSWERS]
    by_text, by_tokens = (policy.scores(policy.answered(prompts, given)) for given in (ANSWERS, answers))
    assert torch.equal(by_text.log_probs, by_tokens.log_probs)
    for row, answer in enumerate(answers):
        text = f"USER: <image>\nIs it fine?{'!' * row} ASSISTANT: "
        inputs = backbone.processor(text=[text], images=[picture(row)], return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        whole = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        logits = backbone.model(input_ids=whole, pixel_values=inputs["pixel_values"]).logits[
            0, start - 1 : -1
        ]
        log_probs = logits.log_softmax(-1)
        expected = log_probs[torch.arange(len(answer)), torch.tensor(answer)]
        own = by_tokens.mask[row]
        assert int(own.sum()) == len(answer)
        torch.testing.assert_close(by_tokens.log_probs[row][own], expected, rtol=1e-4, atol=1e-4)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        torch.testing.assert_close(by_tokens.entropies[row][own], entropies, rtol=1e-4, atol=1e-4)
        assert not by_tokens.log_probs[row][~own].any()


def test_the_tower_sees_each_image_once(policy):
    seen = []
    first = next(
        m for m in policy.backbone.model.get_submodule(TOWER).modules() if isinstance(m, torch.nn.Conv2d)
    )
    first.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    prompts = asked(policy).repeated(2)
    answers = policy.sample(prompts, max_new_tokens=3, temperature=1.0)
    policy.scores(policy.answered(prompts, answers))
    with policy.reference():
        policy.scores(policy.answered(prompts.part(slice(1, 3)), answers[1:3]))
    assert seen == [2]


def test_sampling_follows_the_scores(policy):
    """The first token of many answers, against the probabilities of the scores, which leave special tokens out."""
    prompts = asked(policy, 1).repeated(600)
    torch.manual_seed(0)
    answers = policy.sample(prompts, max_new_tokens=1, temperature=0.5)
    assert not {answer[0] for answer in answers} & {0, 1, 3}  # padding, begin, image
    scores = policy.scores(policy.answered(prompts.part(slice(0, 1)), answers[:1]), temperature=0.5)
    probabilities = scores.logits[0, 0].softmax(-1)
    assert probabilities[[0, 1, 3]].sum() == 0
    found = torch.bincount(torch.tensor(answers)[:, 0], minlength=len(probabilities)) / len(answers)
    top = probabilities.argsort(descending=True)[:5]
    torch.testing.assert_close(found[top], probabilities[top].detach(), rtol=0, atol=0.06)


def test_answers_end_with_their_end_and_may_be_empty(policy):
    class Ends(torch.nn.Module):
        """Adds to the logit of the token that ends answers."""

        def __init__(self, head, by):
            super().__init__()
            self.head, self.by = head, by

        def forward(self, states):
            return self.head(states) + torch.nn.functional.one_hot(torch.tensor(2), 264) * self.by

    model = policy.backbone.model
    model.lm_head = Ends(model.lm_head, 100.0)
    answers = policy.sample(asked(policy), max_new_tokens=4, temperature=1.0)
    assert answers == [[2], [2]]
    assert policy.texts(answers) == ["", ""]
    assert all(map(policy.ended, answers))
    scores = policy.scores(policy.answered(asked(policy), answers))
    assert scores.mask.tolist() == [[True], [True]]
    model.lm_head.by = -100.0
    cut = policy.sample(asked(policy), max_new_tokens=4, temperature=1.0)
    assert [len(answer) for answer in cut] == [4, 4]
    assert not any(map(policy.ended, cut))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_second_set_of_layers_is_its_own(checkpointing):
    policy = Policy(
        tiny_backbone(),
        Lora(r=2, alpha=4, dropout=0.0),
        value_lora="value",
        gradient_checkpointing=checkpointing,
    )
    moved(policy)
    answered = policy.answered(asked(policy), ANSWERS)
    first = policy.scores(answered)
    with lora_active(policy.model, "value"):
        second = policy.scores(answered)
        assert not torch.allclose(first.states, second.states)
        second.states.sum().backward()
    touched = {
        name.split(".")[-2] for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert touched == {"value"}
    assert torch.equal(policy.scores(answered).log_probs, first.log_probs)

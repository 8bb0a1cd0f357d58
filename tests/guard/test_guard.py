"""SafeVLM on a tiny LLaVA of the real classes: the walls of the design, and what users call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
import torch

from safevlm import Policy, SafeVLM, Taxonomy
from safevlm.backbone import same_weights
from safevlm.guard import lm_losses
from safevlm.types import Action, Verdict
from tests.guard.policies import GREEDY, allow_all, hint_all, refuse_all
from tests.tiny import picture, tiny_backbone, tiny_config, tiny_guard, tiny_llava

PROMPTS = [
    "What is this?",
    "Say a bit more about what you can see in the picture, please.",
    "Hi",
    "And these?",
]
IMAGES = [picture(1), picture(2), None, [picture(3), picture(4)]]


def with_lora(guard: SafeVLM) -> SafeVLM:
    """The guard with random LoRA layers on its LLM."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=2, lora_dropout=0.5, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False
    )
    torch.manual_seed(3)
    inject_adapter_in_model(config, guard.language_model)
    for part in guard.language_model.modules():
        part.training = False
    config.init_lora_weights = True  # how the random ones came about is not for the file
    guard.language_model.peft_config = {"default": config}
    return guard


def plain_inputs(backbone, prompts, images):
    """What a user of transformers alone would write."""
    texts, flat = [], []
    for prompt, entry in zip(prompts, images, strict=True):
        given = [] if entry is None else entry if isinstance(entry, list) else [entry]
        content = [*({"type": "image"} for _ in given), {"type": "text", "text": prompt}]
        chat = [{"role": "user", "content": content}]
        texts.append(backbone.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        flat += given
    return backbone.processor(text=texts, images=flat or None, padding=True, return_tensors="pt")


@contextmanager
def counted(module):
    """Counts the images that go through a module's first layer."""
    seen = []
    handle = module.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[0]))
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_disabled_guard_equals_the_plain_backbone_bit_for_bit(tower):
    guard = tiny_guard(tower=tower)
    plain = tiny_llava(tower=tower)
    inputs = plain_inputs(guard.backbone, PROMPTS, IMAGES)
    with torch.no_grad():
        expected_logits = plain(**inputs).logits
        made = plain.generate(**inputs, **GREEDY, output_logits=True, return_dict_in_generate=True)
    expected = made.sequences[:, inputs["input_ids"].shape[1] :]
    steps = []
    handle = guard.language_model.lm_head.register_forward_hook(lambda *a: steps.append(a[2][:, -1].clone()))
    with guard.disabled():
        replies = guard.generate(IMAGES, PROMPTS, **GREEDY)
        handle.remove()
        logits = guard.language_model(**inputs).logits
    assert torch.equal(logits, expected_logits)
    assert len(steps) == len(made.logits)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(steps, made.logits, strict=True))
    texts = guard.backbone.processor.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert [reply.text for reply in replies] == [text.strip() for text in texts]
    assert all(reply.assessment is None and reply.action is Action.ALLOW for reply in replies)


def test_safety_tokens_change_the_answer_and_leave_nothing_behind(guard):
    with guard.without_tokens():
        without = guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), **GREEDY)
    with_tokens = guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), **GREEDY)
    with guard.disabled():
        plain = guard.generate(IMAGES, PROMPTS, **GREEDY)
    assert [r.text for r in without] == [r.text for r in plain]
    assert with_tokens[2].text == plain[2].text  # text alone has no tokens
    assert [r.text for r in with_tokens] != [r.text for r in plain]
    assert not guard.language_model.get_input_embeddings()._forward_hooks
    assert "forward" not in vars(guard.backbone.tower.module)


def test_the_guard_is_on_again_when_the_last_of_several_lets_go(tmp_path):
    guard = with_lora(tiny_guard())
    on = guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), **GREEDY)
    first, second = guard.disabled(), guard.disabled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # in the order in which threads may leave
    off = guard.generate(IMAGES, PROMPTS, **GREEDY)
    second.__exit__(None, None, None)
    assert all(reply.assessment is None for reply in off)
    again = guard.generate(IMAGES, PROMPTS, policy=allow_all(guard), **GREEDY)
    assert [(r.text, r.assessment) for r in again] == [(r.text, r.assessment) for r in on]
    assert [r.text for r in off] != [r.text for r in on]


def test_threads_that_answer_and_score_do_not_see_each_other(guard):
    expected = [a.score for a in guard.assess([picture(5)])]
    found, stop = [], Event()

    def score() -> None:
        while not stop.is_set():
            found.extend(a.score for a in guard.assess([picture(5)]))

    with ThreadPoolExecutor(2) as pool:
        scoring = [pool.submit(score) for _ in range(2)]
        for _ in range(12):
            guard.generate([picture(1)], ["Hi"], policy=allow_all(guard), **GREEDY)
            lm_losses(guard.backbone, guard.safety, [picture(1)], ["Hi"], ["Yes"])
        stop.set()
        [thread.result() for thread in scoring]
    assert set(found) == set(expected)


def test_hooks_are_gone_after_an_exception(guard):
    with pytest.raises(RuntimeError, match="stop here"):
        guard.generate([picture()], ["x"], policy=allow_all(guard), streamer=_Failing(), **GREEDY)
    assert not guard.language_model.get_input_embeddings()._forward_hooks
    assert "forward" not in vars(guard.backbone.tower.module)


class _Failing:
    def put(self, _):
        raise RuntimeError("stop here")

    def end(self):
        """Never reached."""


def test_one_tower_pass_per_image(guard):
    with counted(guard.backbone.tower.module.embeddings) as seen:
        guard.generate(IMAGES, PROMPTS, policy=hint_all(guard), **GREEDY)
    assert sum(seen) == 4  # four images in one call: score, hint and answer share them
    with counted(guard.backbone.tower.module.embeddings) as seen:
        guard.assess([picture(1), picture(2)], heatmap=True)
    assert sum(seen) == 2


def test_generation_on_shared_features_equals_an_own_tower_pass(guard):
    prompts, images = PROMPTS[:2], IMAGES[:2]
    with guard.without_tokens():
        shared = guard.generate(images, prompts, policy=allow_all(guard), **GREEDY)
    plain = tiny_llava()
    inputs = plain_inputs(guard.backbone, prompts, images)
    made = plain.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    texts = guard.backbone.processor.tokenizer.batch_decode(made, skip_special_tokens=True)
    assert [r.text for r in shared] == [t.strip() for t in texts]


def test_batch_equals_items_and_cache_does_not_matter(guard):
    policy = hint_all(guard)
    batch = guard.generate(IMAGES, PROMPTS, policy=policy, **GREEDY)
    single = [
        guard.generate([i], [p], policy=policy, **GREEDY)[0] for i, p in zip(IMAGES, PROMPTS, strict=True)
    ]
    uncached = guard.generate(IMAGES, PROMPTS, policy=policy, use_cache=False, **GREEDY)
    assert [r.text for r in batch] == [r.text for r in single] == [r.text for r in uncached]


def test_beams_are_filled_like_the_row_they_come_from(guard):
    beams = guard.generate(IMAGES[:2], PROMPTS[:2], policy=allow_all(guard), num_beams=2, **GREEDY)
    assert len(beams) == 2


def test_forward_with_tokens_equals_spliced_embeddings(guard):
    """Oracle: the same model fed with embeddings in which the safety tokens were written by hand."""
    from safevlm.backbone import encode, fill_placeholders, make_chat

    image = picture(5)
    inputs = encode(guard.backbone, [make_chat("What?", 1)], [image], safety_tokens=3)
    pixels = inputs.tensors["pixel_values"]
    tokens = guard.safety.tokens.prompt
    embedding = guard.language_model.get_input_embeddings()
    with torch.no_grad(), fill_placeholders(embedding, tokens, inputs.token_mask):
        hooked = guard.language_model(**inputs.tensors).logits
    ids = inputs.tensors["input_ids"]
    first = int((ids[0] == 3).nonzero()[0])
    with torch.no_grad():
        written = embedding(ids).clone()
        written[0, first - 3 : first] = tokens
        features = guard.language_model.get_image_features(pixels, return_dict=True).pooler_output
        written[0, ids[0] == 3] = torch.cat(list(features))
        oracle = guard.language_model(
            inputs_embeds=written, attention_mask=inputs.tensors["attention_mask"]
        ).logits
    torch.testing.assert_close(hooked, oracle)


def test_backbone_stays_frozen_and_in_eval_mode(guard):
    guard.train()
    guard.language_model.train()
    guard.language_model.model.language_model.train(True)
    assert guard.training
    assert guard.safety.training
    assert not any(part.training for part in guard.language_model.modules())
    assert not any(p.requires_grad for p in guard.language_model.parameters())
    assert all(p.requires_grad for p in guard.safety.parameters())


def test_actions_of_one_batch_may_differ(guard):
    assessed = guard.assess([picture(1), picture(2)], PROMPTS[:2])
    low, high = sorted(a.score for a in assessed)
    assert low < high
    taxonomy = guard.config.taxonomy
    policy = Policy(
        taxonomy, threshold=(low + high) / 2, actions=dict.fromkeys(taxonomy.risky_levels, Action.REFUSE)
    )
    replies = guard.generate([picture(1), picture(2), None], PROMPTS[:3], policy=policy, **GREEDY)
    risky = max(range(2), key=lambda row: assessed[row].score)
    assert replies[risky].action is Action.REFUSE
    assert replies[risky].text == policy.refusal
    assert replies[1 - risky].action is Action.ALLOW
    assert replies[2].action is Action.ALLOW
    assert replies[2].assessment is None
    alone = guard.generate(
        [[picture(1), picture(2)][1 - risky]], [PROMPTS[1 - risky]], policy=policy, **GREEDY
    )
    assert alone[0].text == replies[1 - risky].text


def test_refusing_does_not_run_the_llm(guard):
    with counted(guard.language_model.get_input_embeddings()) as seen:
        replies = guard.generate([picture(1)], ["Hi"], policy=refuse_all(guard), **GREEDY)
    assert replies[0].action is Action.REFUSE
    assert seen == []


def test_hint_reaches_the_prompt(guard):
    policy = hint_all(guard)
    reply = guard.generate([picture(1)], ["Hi"], policy=policy, **GREEDY)[0]
    assert reply.action is Action.HINT
    assert reply.hint == policy.hint(reply.assessment.level, reply.assessment.category)
    same = guard.generate([picture(1)], [f"{reply.hint} Hi"], policy=allow_all(guard), **GREEDY)[0]
    assert reply.text == same.text


def test_riskiest_image_of_a_prompt_decides(guard):
    images = [picture(3), picture(4)]
    scores = [a.score for a in guard.assess(images, ["And these?"] * 2)]
    reply = guard.generate([images], ["And these?"], policy=allow_all(guard), **GREEDY)[0]
    assert reply.assessment.score == pytest.approx(max(scores), abs=1e-6)


def test_a_policy_of_another_taxonomy_is_refused(guard):
    other = Policy(Taxonomy.preset("openai"))
    for call in (
        lambda: guard.assess([picture()], policy=other),
        lambda: guard.generate([picture()], ["Hi"], policy=other, **GREEDY),
        lambda: SafeVLM.attach(tiny_backbone(), tiny_config(), policy=other),
    ):
        with pytest.raises(ValueError, match="the model's is 'safevlm'"):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_backbone_in_half_precision_is_the_same_backbone(guard, tmp_path, dtype):
    guard.save_pretrained(tmp_path)
    half = tiny_backbone()
    half.model.to(dtype)
    again = SafeVLM.from_pretrained(tmp_path, backbone=half)
    assert again.assess([picture(1)])[0].score == pytest.approx(guard.assess([picture(1)])[0].score, abs=0.1)


def test_multi_turn_chat(guard):
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "And what colour?"},
    ]
    reply = guard.generate([picture(1)], [chat], policy=hint_all(guard), **GREEDY)[0]
    assert reply.assessment is not None
    with pytest.raises(ValueError, match="2 images came with it"):
        guard.generate([[picture(1), picture(2)]], [chat], **GREEDY)


def test_save_and_reload_gives_equal_scores_and_answers(guard, tmp_path):
    guard.save_pretrained(tmp_path / "saved")
    again = SafeVLM.from_pretrained(tmp_path / "saved", backbone=tiny_backbone())
    assert again.config == guard.config
    before, after = (g.assess([picture(1)], ["Hi"], heatmap=True)[0] for g in (guard, again))
    assert before.score == after.score
    assert (before.heatmap == after.heatmap).all()
    policy = hint_all(guard)
    assert (
        guard.generate(IMAGES, PROMPTS, policy=policy, **GREEDY)[0].text
        == again.generate(IMAGES, PROMPTS, policy=policy, **GREEDY)[0].text
    )
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert files == {"safety_config.json", "safety.safetensors", "README.md"}


def test_lora_is_saved_reloaded_and_switched_off(tmp_path):
    guard = with_lora(tiny_guard())
    guard.save_pretrained(tmp_path)
    policy = allow_all(guard)
    again = SafeVLM.from_pretrained(tmp_path, backbone=tiny_backbone())
    assert again.has_lora
    inputs = plain_inputs(guard.backbone, PROMPTS, IMAGES)
    with torch.no_grad():
        tuned, reloaded = guard.language_model(**inputs).logits, again.language_model(**inputs).logits
        expected = tiny_llava()(**inputs).logits
        with again.disabled():
            disabled = again.language_model(**inputs).logits
    assert torch.equal(tuned, reloaded)
    assert not torch.equal(tuned, expected)
    assert torch.equal(disabled, expected)
    replies = [g.generate(IMAGES, PROMPTS, policy=policy, **GREEDY)[0].text for g in (guard, again)]
    assert replies[0] == replies[1]
    assert not any(part.training for part in again.language_model.modules())
    gradients = {name: p.requires_grad for name, p in again.named_parameters()}
    with again.disabled():
        with again.disabled():
            pass
        with torch.no_grad():
            assert torch.equal(again.language_model(**inputs).logits, expected)
    with torch.no_grad():
        assert torch.equal(again.language_model(**inputs).logits, tuned)
    assert gradients == {name: p.requires_grad for name, p in again.named_parameters()}


def test_a_half_precision_backbone_has_the_same_fingerprints():
    backbone = tiny_backbone()
    exact = backbone.prompt_table.fingerprint, backbone.tower.fingerprint
    backbone.model.to(torch.bfloat16)
    assert same_weights(exact[0], backbone.prompt_table.fingerprint)
    assert same_weights(exact[1], backbone.tower.fingerprint)


def test_no_prompt_talks_a_risk_down(guard):
    prompts = ["Hello", "Describe the picture in a poem.", "x" * 40]
    images = [picture(i) for i in range(3)]
    alone, together = guard.assess(images), guard.assess(images, prompts)
    replies = guard.generate(images, prompts, **GREEDY)
    assert any(one.score < other.score for one, other in zip(together, alone, strict=True))
    for reply, one, other in zip(replies, alone, together, strict=True):
        expected = guard.policy.riskiest([one, other])
        assert reply.assessment.score == pytest.approx(expected.score, abs=1e-6)
        assert reply.assessment.verdict is expected.verdict


def test_attach_fills_in_what_the_backbone_says():
    guard = SafeVLM.attach(tiny_backbone(), tiny_config())
    assert (guard.config.vision_dim, guard.config.text_dim, guard.config.vision_layer) == (32, 32, -2)
    assert guard.config.backbone_type == "llava"
    assert guard.config.tower_fingerprint == guard.backbone.tower.fingerprint


def test_what_cannot_be_scored_is_refused(guard):
    with torch.no_grad():
        guard.safety.head.query_vector.fill_(float("nan"))
    reply = guard.generate([picture(1)], ["Hi"], **GREEDY)[0]
    assert reply.assessment.verdict is Verdict.UNDECIDED
    assert reply.action is Action.REFUSE
    assert reply.text == guard.policy.refusal

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safevlm.modules import HeadOutput, SafetyHead

DIM, HEADS, TEXT, TOKENS, PATCHES, BATCH = 24, 4, 10, 5, 9, 3


@pytest.fixture
def head() -> SafetyHead:
    torch.manual_seed(0)
    head = SafetyHead(DIM, num_levels=4, num_categories=7, num_heads=HEADS, text_dim=TEXT)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return head


@pytest.fixture
def projected() -> Tensor:
    return torch.randn(BATCH, PATCHES, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def prompt() -> Tensor:
    return torch.randn(BATCH, 6, TEXT, generator=torch.Generator().manual_seed(3))


def close(left: HeadOutput, right: HeadOutput, *, atol: float = 1e-5) -> None:
    for name, a, b in zip(HeadOutput._fields, left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_equals_torch_multihead_attention(
    head: SafetyHead, projected: Tensor, tokens: Tensor, prompt: Tensor, with_prompt: bool, with_mask: bool
) -> None:
    oracle = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([head.query.weight, head.key.weight, head.value.weight]))
        oracle.in_proj_bias.copy_(torch.cat([head.query.bias, torch.randn(DIM), head.value.bias]))
        oracle.out_proj.weight.copy_(head.out.weight)
        oracle.out_proj.bias.copy_(head.out.bias)
    mask = torch.rand(BATCH, PATCHES, generator=torch.Generator().manual_seed(4)) < 0.6 if with_mask else None
    query = head.query_vector.expand(BATCH, -1)
    if with_prompt:
        assert head.prompt is not None
        query = query + prompt.mean(dim=1) @ head.prompt.weight.T
    memory = torch.cat([tokens.expand(BATCH, -1, -1), projected], dim=1)
    padding = None if mask is None else F.pad(~mask, (TOKENS, 0), value=False)
    pooled, weights = oracle(query.unsqueeze(1), memory, memory, key_padding_mask=padding)
    state = F.layer_norm(pooled[:, 0], (DIM,), head.norm.weight, head.norm.bias)
    expected = HeadOutput(head.level(state), head.category(state), weights[:, 0, TOKENS:])
    close(
        head(projected, tokens, prompt_embeddings=prompt if with_prompt else None, feature_mask=mask),
        expected,
    )


def test_attention_and_token_share_make_one(head: SafetyHead, projected: Tensor, tokens: Tensor) -> None:
    attention = head(projected, tokens).attention
    assert attention.shape == (BATCH, PATCHES)
    assert attention.min() >= 0
    assert (attention.sum(dim=-1) < 1).all()
    # Seen as patches behind no tokens but one, the tokens' shares must be what is missing.
    memory = torch.cat([tokens[1:].expand(BATCH, -1, -1), projected], dim=1)
    everything = head(memory, tokens[:1]).attention
    torch.testing.assert_close(everything[:, TOKENS - 1 :], attention)
    rest = head(torch.cat([tokens[:1].expand(BATCH, -1, -1), projected], dim=1), tokens[1:]).attention
    total = everything.sum(dim=-1) + rest[:, 0]
    torch.testing.assert_close(total, torch.ones(BATCH))


def test_starts_as_the_image_only_head(projected: Tensor, tokens: Tensor, prompt: Tensor) -> None:
    fresh = SafetyHead(DIM, num_levels=4, num_categories=7, num_heads=HEADS, text_dim=TEXT)
    close(fresh(projected, tokens, prompt_embeddings=prompt), fresh(projected, tokens), atol=1e-6)


def test_the_prompt_matters_once_its_projection_is_not_zero(
    head: SafetyHead, projected: Tensor, tokens: Tensor, prompt: Tensor
) -> None:
    alone, together = head(projected, tokens), head(projected, tokens, prompt_embeddings=prompt)
    assert not torch.allclose(alone.level_logits, together.level_logits, atol=1e-3)


def test_a_row_without_prompt_is_the_image_alone(
    head: SafetyHead, projected: Tensor, tokens: Tensor, prompt: Tensor
) -> None:
    mask = torch.ones(BATCH, 6, dtype=torch.bool)
    mask[1] = False
    mixed = head(projected, tokens, prompt_embeddings=prompt, prompt_mask=mask)
    alone = head(projected, tokens)
    together = head(projected, tokens, prompt_embeddings=prompt)
    for name in HeadOutput._fields:
        torch.testing.assert_close(getattr(mixed, name)[1], getattr(alone, name)[1])
        torch.testing.assert_close(getattr(mixed, name)[::2], getattr(together, name)[::2])
    close(head(projected, tokens, prompt_embeddings=prompt[:, :0]), alone)


@pytest.mark.parametrize("side", ["left", "right"])
def test_prompt_padding_changes_nothing_whatever_it_holds(
    head: SafetyHead, projected: Tensor, tokens: Tensor, prompt: Tensor, side: str
) -> None:
    padding = torch.full((BATCH, 4, TEXT), torch.nan)
    real, pad = torch.ones(BATCH, 6, dtype=torch.bool), torch.zeros(BATCH, 4, dtype=torch.bool)
    parts = [(padding, pad), (prompt, real)] if side == "left" else [(prompt, real), (padding, pad)]
    padded = head(
        projected,
        tokens,
        prompt_embeddings=torch.cat([part[0] for part in parts], dim=1),
        prompt_mask=torch.cat([part[1] for part in parts], dim=1),
    )
    close(padded, head(projected, tokens, prompt_embeddings=prompt))


def test_patch_padding_changes_nothing_and_gets_no_attention(
    head: SafetyHead, projected: Tensor, tokens: Tensor
) -> None:
    padded = torch.cat([projected, torch.randn(BATCH, 3, DIM) * 10], dim=1)
    mask = torch.arange(PATCHES + 3).expand(BATCH, -1) < PATCHES
    out, plain = head(padded, tokens, feature_mask=mask), head(projected, tokens)
    assert (out.attention[:, PATCHES:] == 0).all()
    close(out._replace(attention=out.attention[:, :PATCHES]), plain)


def test_without_a_patch_the_tokens_answer(head: SafetyHead, projected: Tensor, tokens: Tensor) -> None:
    mask = torch.zeros(BATCH, PATCHES, dtype=torch.bool)
    out = head(projected, tokens, feature_mask=mask)
    assert (out.attention == 0).all()
    assert out.level_logits.isfinite().all()
    torch.testing.assert_close(out.level_logits, out.level_logits[:1].expand(BATCH, -1))


def test_attention_follows_permuted_patches(head: SafetyHead, projected: Tensor, tokens: Tensor) -> None:
    order = torch.randperm(PATCHES, generator=torch.Generator().manual_seed(5))
    plain, moved = head(projected, tokens), head(projected[:, order], tokens)
    close(moved, plain._replace(attention=plain.attention[:, order]))


def test_bfloat16_weights_answer_in_float32(head: SafetyHead, projected: Tensor, tokens: Tensor) -> None:
    plain = head(projected, tokens)
    out = head.bfloat16()(projected.bfloat16(), tokens.bfloat16())
    assert {tensor.dtype for tensor in out} == {torch.float32}
    close(out, plain, atol=0.15)


def test_an_empty_batch(head: SafetyHead, tokens: Tensor) -> None:
    out = head(torch.zeros(0, PATCHES, DIM), tokens, prompt_embeddings=torch.zeros(0, 6, TEXT))
    assert [tuple(tensor.shape) for tensor in out] == [(0, 4), (0, 7), (0, PATCHES)]


def test_nan_in_one_image_stays_with_that_image(head: SafetyHead, projected: Tensor, tokens: Tensor) -> None:
    projected[1, 2, 3] = torch.nan
    out = head(projected, tokens)
    assert out.level_logits.isnan().all(dim=-1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"prompt_mask": torch.ones(BATCH, 6, dtype=torch.bool)}, "without prompt_embeddings"),
        ({"prompt_embeddings": torch.zeros(BATCH, 6, TEXT + 1)}, "prompt_embeddings must have shape"),
        ({"prompt_embeddings": torch.zeros(BATCH - 1, 6, TEXT)}, "one padded prompt per image"),
        ({"prompt_embeddings": torch.zeros(1, 6, TEXT)}, "prompt_embeddings must have shape"),
        (
            {"prompt_embeddings": torch.zeros(BATCH, 6, TEXT), "prompt_mask": torch.ones(BATCH, 6)},
            r"prompt_mask must be bool .*\.bool\(\)",
        ),
        (
            {
                "prompt_embeddings": torch.zeros(BATCH, 6, TEXT),
                "prompt_mask": torch.ones(BATCH, 5, dtype=torch.bool),
            },
            "prompt_mask must be bool of shape",
        ),
        ({"feature_mask": torch.ones(BATCH, PATCHES)}, "feature_mask must be bool"),
        ({"feature_mask": torch.ones(1, PATCHES, dtype=torch.bool)}, "feature_mask must be bool of shape"),
    ],
)
def test_inputs_that_do_not_fit_raise(
    head: SafetyHead, projected: Tensor, tokens: Tensor, arguments: dict[str, Tensor], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        head(projected, tokens, **arguments)


def test_foreign_widths_and_a_prompt_for_an_image_only_head_raise(projected: Tensor, tokens: Tensor) -> None:
    head = SafetyHead(DIM, num_levels=4, num_categories=7, num_heads=HEADS)
    with pytest.raises(ValueError, match="built for images alone"):
        head(projected, tokens, prompt_embeddings=torch.zeros(BATCH, 6, TEXT))
    with pytest.raises(ValueError, match="with one dim"):
        head(projected, tokens[:, :-1])


@pytest.mark.parametrize(
    ("change", "match"),
    [({"num_heads": 5}, "divisors"), ({"num_levels": 0}, "num_levels"), ({"text_dim": 0}, "text_dim")],
)
def test_sizes_that_do_not_work_raise(change: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SafetyHead(DIM, **{"num_levels": 4, "num_categories": 7, "num_heads": HEADS, **change})

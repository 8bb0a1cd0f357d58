"""Publishing the embedded model: LoRA layers of a lower rank."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from safevlm.training.mini.publish import cut_rank

from safevlm import checkpoint


def updates(folder):
    """What each adapted matrix gets added."""
    config = json.loads((folder / "lora" / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(folder / "lora" / "adapter_model.safetensors")
    return config["r"], {
        name: config["lora_alpha"]
        / config["r"]
        * tensors[name.replace(".lora_A.", ".lora_B.")].double()
        @ tensor.double()
        for name, tensor in tensors.items()
        if ".lora_A." in name
    }


@pytest.mark.parametrize("rank", [14, 3])
def test_layers_of_a_lower_rank_are_the_nearest_ones(rank, tmp_path):
    shutil.copytree(checkpoint.fetch("safevlm-mini"), tmp_path / "mini")
    _, before = updates(tmp_path / "mini")
    cut_rank(tmp_path / "mini", rank)
    found, after = updates(tmp_path / "mini")
    assert found == rank
    for name, matrix in before.items():
        values = torch.linalg.svdvals(matrix)
        # Eckart and Young (1936): the least squared error is the sum of the squared singular values left out
        assert (after[name] - matrix).square().sum() == pytest.approx(
            float(values[rank:].square().sum()), rel=1e-3, abs=1e-9
        )
        assert torch.linalg.matrix_rank(after[name], rtol=1e-5) <= rank

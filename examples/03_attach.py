"""Attach fresh safety modules to a LLaVA of your own; training them comes next."""

from safevlm import SafetyConfig, SafeVLM, Taxonomy, load_backbone
from safevlm.checkpoint import resolve

backbone = load_backbone(resolve("safevlm-mini-base"))  # or "llava-hf/llava-1.5-7b-hf"
config = SafetyConfig(Taxonomy.preset("safevlm"), hidden_dim=64, num_tokens=8)
guard = SafeVLM.attach(backbone, config)

trainable = sum(p.numel() for p in guard.parameters() if p.requires_grad)
print(f"{trainable:,} trainable parameters on a frozen {backbone.model_type}")
guard.save_pretrained("my-guard")

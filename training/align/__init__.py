"""Alignment of a vision-language model on a concept set: SFT, DPO and PPO (arXiv 2507.11155); docs/alignment.md is the guide."""

"""Recipe of the embedded model: a small LLaVA trained from scratch on scenes that it renders itself."""

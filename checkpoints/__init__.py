"""The embedded checkpoints, as package data; `manifest.toml` says where they come from."""

"""No LLaVA needed: train a scorer on a vision tower alone with a folder of labelled pictures, and scan with it."""

from pathlib import Path

from safevlm.training import train
from safevlm.training.mini.scenes import render

from safevlm.data import open_source
from safevlm.scan import Checkpoint, scan, write_report

tower = "safevlm-mini-base"  # its tower alone is read; or one of timm: "timm:tf_efficientnet_lite0.in1k"

for split, count in {"train": 48, "tune": 12, "test": 12}.items():  # put your own pictures here
    for seed in range(count):
        scene = render(seed, split, "risky" if seed % 2 else "ordinary", 128)
        folder = Path("scan-me") if split == "test" else Path("labelled", split, scene.risk_category)
        folder.mkdir(parents=True, exist_ok=True)
        scene.image.save(folder / f"{seed:03d}.jpg")

flags = {
    "config": "mini_head",  # its sizes and taxonomy; write your own YAML for others
    "model.backbone": tower,
    "model.train_tokens": "false",  # that would need an LLM
    "model.output_dir": "own-scorer",
    "data.table": "labelled",
    "data.batch_size": "16",
    "trainer.max_epochs": "3",
    "trainer.enable_progress_bar": "false",
}
train("head", [f"--{name}={value}" for name, value in flags.items()])

summary = scan(open_source("folder:scan-me"), Checkpoint("own-scorer"), "own-scan", fresh=True)
print(dict(summary.verdicts), write_report("own-scan", summary))

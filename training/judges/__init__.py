"""Training and test of the judge that `safevlm.judges.TrainedJudge` loads: `python -m safevlm.training.judges`."""

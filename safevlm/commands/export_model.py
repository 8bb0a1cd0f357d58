"""`safevlm export-model`."""

from __future__ import annotations

from .options import MINI


def export_model(*, out: str, model: str = MINI) -> int:
    """Write a scorer as ONNX: tower, safety modules and calibration in one file that onnxruntime runs without torch.

    Args:
        out: new folder for model.onnx, scorer.json and preprocessor_config.json.
        model: name, folder or hub id of the safety modules.
    """
    from safevlm.onnx_export import DESCRIPTION, MODEL, export_onnx
    from safevlm.scorer import RiskScorer

    export_onnx(RiskScorer.from_pretrained(model), out)
    print(f"wrote {out}/{MODEL} and {out}/{DESCRIPTION}")
    return 0

"""Concept sets of the Hugging Face Hub: their Parquet files, downloaded with the user's own access."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from safevlm.errors import DataError
from safevlm.printable import shortened

HUB_SETS = ("yiting/UnsafeConcepts", "yiting/UnsafeBench")
"""Sets that are known by name: arXiv 2507.11155 and 2405.03486. Both are gated and for research alone."""


def download(name: str, *, token: str | None = None) -> Path:
    """The folder with a data set's Parquet files, from the hub or its cache; nothing else is downloaded, no code is run.

    Args:
        name: `<org>/<name>` on the hub.
        token: the user's; None: what `hf auth login` or HF_TOKEN left.

    Raises:
        DataError: no such data set, no access to it, or no network.
    """
    try:
        return Path(
            HfApi().snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet", token=token)
        )
    except GatedRepoError as error:
        raise DataError(
            f"{name}: is gated, and this account has no access to it. Ask for access on https://huggingface.co/datasets/{name}, "
            "then run `hf auth login`, or set HF_TOKEN to a token that may read it"
        ) from error
    except (OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: cannot be had from the hub ({shortened(first)}); check the name and the network, and log in with "
            "`hf auth login` where the data set needs it"
        ) from error

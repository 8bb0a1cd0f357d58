import copy
import pickle

import pytest

from safevlm.data import read_image
from safevlm.errors import ImageError, MissingExtraError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("a.png", "is empty (0 bytes)", "save it again"), "a.png: is empty (0 bytes); save it again"),
        (
            ("d: x; y.png", "is damaged (a: b; c)", "shrink it"),
            "d: x; y.png: is damaged (a: b; c); shrink it",
        ),
        (("a.png", "has 9 bytes, more than the limit of 8"), "a.png: has 9 bytes, more than the limit of 8"),
    ],
)
def test_an_image_error_composes_its_message_and_survives_pickling(fields, message):
    error = ImageError(*fields)
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert str(same) == message
        assert (same.name, same.reason, same.remedy) == (*fields, "")[:3]


def test_the_fields_of_a_real_error(tmp_path):
    path = tmp_path / "a: b; c.png"
    path.write_bytes(b"")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.name == str(path)
    assert caught.value.reason == "is empty (0 bytes)"
    assert str(caught.value) == f"{path}: is empty (0 bytes); save or download it again"


def test_a_missing_extra_survives_pickling():
    error = MissingExtraError("ray", "ray")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (
        str(again)
        == str(error)
        == ("this feature needs the package 'ray', which is not installed; run: pip install 'safevlm[ray]'")
    )
    assert isinstance(again, ImportError)

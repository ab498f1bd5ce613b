"""An editable install whose library and sources do not fit together."""

from pathlib import Path

import pytest

from emix import _library


@pytest.mark.skipif(
    not (Path(_library.__file__).parents[2] / "csrc").is_dir(), reason="an installed wheel has no sources beside it"
)
def test_a_library_older_than_its_sources_says_so(monkeypatch):
    _library.load()  # as they are, they fit
    monkeypatch.setattr(
        _library, "_declared", lambda text: ["new_op(Tensor q) -> Tensor", "uncertainty_weight(Tensor q) -> Tensor"]
    )
    with pytest.raises(
        ImportError, match=r"was built from older sources .*new_op, uncertainty_weight differ.*make setup"
    ):
        _library.load()

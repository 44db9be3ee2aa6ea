"""Processes that would train different networks are refused; test_distributed.py starts real ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sphereface.errors import UserError
from sphereface.plugins import OF_LOSS, OF_NETWORK, OF_TEACHER
from sphereface.training.alike import check_files


@pytest.mark.parametrize("plugin", [OF_NETWORK, OF_LOSS, OF_TEACHER])
def test_other_code_of_a_plugin_is_refused(plugin):
    """Process 1 of two, of which process 0 has other code."""
    codes = dict.fromkeys([OF_NETWORK, OF_LOSS, OF_TEACHER], "0123456789ab")
    first = {f"the {key}": "fedcba987654" if key == plugin else code for key, code in codes.items()}
    world = SimpleNamespace(
        size=2, rank=1, all_gather=lambda value: ["", value], broadcast=lambda own: {**own, **first}
    )
    with pytest.raises(UserError, match=f"^the {plugin}: process 1 has other content than process 0 · allowed: "):
        check_files(world, None, codes, {})

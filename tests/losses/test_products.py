"""Matrix products, whoever makes them: against float64, of every layout."""

import pytest
import torch

from sphereface.losses import products
from sphereface.losses.products import add_product, product, put_product

LAYOUTS = {
    "rows": lambda m: m,
    "transposed": lambda m: m.t().contiguous().t(),
    "every other column": lambda m: torch.stack([m, -m], 2).reshape(len(m), -1)[:, ::2],
    "rows of a larger one": lambda m: torch.cat([m, m])[: len(m)],
}


@pytest.fixture(params=[True, False], ids=["oneDNN", "torch.mm"])
def library(request, monkeypatch):
    if request.param and not products._HAS_ONEDNN:
        pytest.skip("this torch has no oneDNN product")
    monkeypatch.setattr(products, "_HAS_ONEDNN", request.param)


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (5, 1, 4), (33, 65, 17)], ids=str)
def test_all_three_equal_float64(shape, of_a, of_b, library):
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    a, b, start = (torch.randn(*size, generator=generator) for size in ((m, k), (k, n), (m, n)))
    exact = a.double() @ b.double()
    a, b = LAYOUTS[of_a](a), LAYOUTS[of_b](b)
    put, added = torch.full_like(start, torch.nan), start.clone()
    put_product(a, b, put)
    add_product(a, b, added)
    for got, expected in ((product(a, b), exact), (put, exact), (added, exact + start)):
        assert got.dtype == torch.float32
        assert (got - expected).abs().max() <= 2e-6 * k**0.5


@pytest.mark.parametrize(("low", "rounding"), [(torch.bfloat16, 2**-9), (torch.float16, 2**-12)])
def test_lower_types_are_added_in_the_type_of_the_sum(low, rounding, library):
    a, b = torch.full((2, 3), 1 / 3, dtype=low), torch.ones(3, 2, dtype=low)
    total = torch.full((2, 2), 100.0)
    add_product(a, b, total)
    assert total[0, 0].item() == pytest.approx(101, abs=2 * rounding)
    put_product(a, b, total)
    assert total[0, 0].item() == pytest.approx(1, abs=2 * rounding)


def test_float64_stays_float64(library):
    a = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    assert product(a, a)[0, 0].item() == pytest.approx(2 / 9, abs=1e-16)


def test_the_switch_of_torch_is_obeyed(monkeypatch):
    monkeypatch.setattr(products, "_linear", None)  # a call would fail
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert product(torch.eye(2), torch.eye(2)).tolist() == [[1, 0], [0, 1]]

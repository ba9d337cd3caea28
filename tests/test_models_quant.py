"""What weights of 8 and 4 bits promise: nearly the same logits, and nothing touched that counts."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mdmbench.errors import UserError
from mdmbench.models import checkpoint, quant
from mdmbench.models.checkpoint import Options
from mdmbench.models.encoder import NativeModel

GOLDEN = Path(__file__).parent / "golden"


def load(name: str, kind: quant.Kind | None, dtype: torch.dtype = torch.float32) -> NativeModel:
    options = Options(mask_id=250, quant=kind)
    return checkpoint.load(GOLDEN / name, device=torch.device("cpu"), dtype=dtype, options=options)


def logits(model: NativeModel, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.encoder.lm_head(model.encoder(tokens)).float()


def error(name: str, kind: quant.Kind, dtype: torch.dtype = torch.float32) -> float:
    """Of the logits, relative to their norm."""
    tokens = load_file(GOLDEN / name / "expected.safetensors")["input_ids"]
    plain = logits(load(name, None, dtype), tokens)
    return float((logits(load(name, kind, dtype), tokens) - plain).norm() / plain.norm())


@pytest.mark.parametrize("name", ["llada", "dream", "qwen3", "lladamoe"])
def test_int8_moves_the_logits_by_less_than_a_twentieth(name: str) -> None:
    assert 0 < error(name, "int8") < 0.05


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_in_bfloat16_int8_moves_them_hardly_more_than_bfloat16_does(name: str) -> None:
    tokens = load_file(GOLDEN / name / "expected.safetensors")["input_ids"]
    exact, plain = (logits(load(name, None, d), tokens) for d in (torch.float32, torch.bfloat16))
    assert error(name, "int8", torch.bfloat16) < 2 * (plain - exact).norm() / exact.norm()


@pytest.mark.parametrize("name", ["llada", "llada2"])
def test_head_embedding_router_norms_and_biases_are_left_alone(name: str) -> None:
    plain, small = load(name, None).encoder, load(name, "int8").encoder
    kept = small.state_dict()
    assert all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in kept.items())
    gone = set(plain.state_dict()) - set(kept)
    assert gone
    assert all(key.startswith("layers.") and "_proj.weight" in key for key in gone)
    assert isinstance(small.lm_head, nn.Linear)


def test_no_linear_map_of_a_layer_stays_wide() -> None:
    net = load("dream", "int8").encoder
    assert not quant.linears(net)
    packed = [m for m in net.modules() if isinstance(m, quant.Int8Linear)]
    assert len(packed) == 3 * 7
    assert {m.codes.dtype for m in packed} == {torch.int8}
    assert not any(m.codes.is_meta or m.scale.is_meta for m in packed)


def test_int8_is_off_by_half_a_level_at_most_and_keeps_zeros() -> None:
    weight = torch.randn(9, 40) * torch.logspace(-3, 3, 9)[:, None]
    weight[4] = 0
    packed = quant.Int8Linear(nn.Linear(40, 9, bias=False))
    packed.pack(weight)
    with torch.no_grad():
        back = packed(torch.eye(40)).T
    assert ((back - weight).abs().amax(1) <= weight.abs().amax(1) / 254 * 1.001).all()
    assert torch.equal(back[4], weight[4])


def test_int8_adds_the_bias() -> None:
    plain = nn.Linear(6, 3)
    packed = quant.Int8Linear(plain)
    packed.pack(plain.weight)
    assert torch.equal(packed(torch.zeros(2, 6)), plain.bias.expand(2, 3))


def test_nf4_keeps_nine_tenths_of_a_weight() -> None:
    pytest.importorskip("bitsandbytes")
    weight = torch.randn(128, 256)
    packed = quant.NF4Linear(nn.Linear(256, 128))
    packed.pack(weight)
    with torch.no_grad():
        back = (packed(torch.eye(256)) - packed.bias).T
    assert 0.05 < (back - weight).norm() / weight.norm() < 0.12
    net = load("llada", "nf4").encoder
    assert sum(isinstance(module, quant.NF4Linear) for module in net.modules()) == 3 * 7


def test_nf4_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"needs bitsandbytes.*\n.*'mdmbench\[quant\]'"):
        load("llada", "nf4")

"""The engine gives the plain network's features, however fast."""

from __future__ import annotations

import copy

import pytest
import torch
from classifier import engine as engines
from classifier.engine import Engine, chosen_precision
from classifier.network import build, head_name, replace
from torch import nn

AVX512_BF16 = "processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"


def backbone(name: str, image_size: int) -> nn.Module:
    """A network without its head, whose BatchNorm does something."""
    torch.manual_seed(0)
    network = build(name, 3, image_size)
    replace(network, head_name(network), nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


class Untraceable(nn.Module):
    """Which way it goes depends on values."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, pixels):
        maps = self.norm(self.convolution(pixels))
        return (maps if pixels.abs().sum() > 0 else -maps).mean((2, 3))


def difference(network: nn.Module, precision: str, image_size: int, compiled: bool = False) -> tuple[float, Engine]:
    """The distance of the engine's features from the plain path's, as a share of their length."""
    pixels = torch.randn(5, 3, image_size, image_size)
    with torch.no_grad():
        expected = network(pixels)
    made = Engine(network, precision, compiled, image_size)
    features = made(pixels)
    assert features.dtype == torch.float32 and features.shape == expected.shape
    return float((features - expected).norm() / expected.norm()), made


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_small", "efficientnet_b0", "vit_b_16"])
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("bf16", 0.01)])
def test_features_equal_the_plain_path(name, precision, allowed):
    found, made = difference(backbone(name, 64), precision, 64)
    assert found <= allowed
    assert made.description == f"{precision}, channels_last, BatchNorm folded, fused"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_cannot_be_traced_runs_as_it_is(precision):
    found, made = difference(Untraceable().eval(), precision, 64)
    assert found <= 0.01
    assert made.description == f"{precision}, channels_last, not traceable"


def test_what_gives_other_features_is_not_taken(monkeypatch):
    def wrong(network, *_):
        network = copy.deepcopy(network)
        network.get_submodule("layer4.1.conv2").bias.data += 0.1
        return network

    monkeypatch.setattr(engines, "fused", wrong)
    found, made = difference(backbone("resnet18", 64), "fp32", 64)
    assert found <= 1e-5
    assert made.description == "fp32, channels_last, BatchNorm folded, not fused"


def test_a_torch_without_the_fused_operators_does_without(monkeypatch):
    monkeypatch.setattr(engines, "fused", lambda *_: torch.ops.mkldnn.no_such_operator())
    found, made = difference(backbone("resnet18", 64), "bf16", 64)
    assert found <= 0.01
    assert made.description == "bf16, channels_last, BatchNorm folded, not fused"


def test_a_network_that_is_used_at_two_places_is_fused_at_each():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.relu, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 8, 1)

        def forward(self, pixels):
            first = self.relu(self.convolution(pixels))
            # The sum's other term is used again, the second activation is none that follows an addition.
            second = nn.functional.silu(self.convolution(first) + first)
            return (self.last(second + first) + self.last(first)).mean((2, 3))

    found, made = difference(Twice(), "fp32", 32)
    assert found <= 1e-6 and made.description.endswith(", fused")


def test_the_network_is_left_as_it_is():
    network = backbone("resnet18", 64).train()
    before = copy.deepcopy(network.state_dict())
    Engine(network, "bf16", False, 64)(torch.randn(2, 3, 64, 64))
    assert network.training
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pictures_features_do_not_depend_on_its_neighbours_or_on_threads(precision):
    made = Engine(backbone("resnet18", 64), precision, False, 64)
    pixels = torch.randn(16, 3, 64, 64)
    order = torch.randperm(16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = made(pixels)
        alone = torch.zeros_like(pixels)
        alone[3] = pixels[3]
        assert torch.equal(made(pixels[order]), expected[order])
        assert torch.equal(made(alone)[3], expected[3])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("cpu", "precision"),
    [
        (AVX512_BF16, "bf16"),
        ("flags\t: avx512f amx_bf16 amx_tile\n", "bf16"),
        # As on ml.m5: its instructions are for integers.
        ("flags\t: avx2 avx512f avx512_vnni\n", "fp32"),
        ("Features\t: fp asimd sve bf16 i8mm\n", "bf16"),
        ("model name: bf16 amx_bf16\n", "fp32"),
        (None, "fp32"),
    ],
)
def test_precision_follows_the_cpu(tmp_path, monkeypatch, cpu, precision):
    monkeypatch.setattr(engines, "CPU", tmp_path / "cpuinfo")
    if cpu is not None:
        engines.CPU.write_text(cpu)
    assert chosen_precision("auto") == precision
    assert chosen_precision("fp32") == "fp32" and chosen_precision("bf16") == "bf16"


class Compiled(nn.Module):
    """What torch.compile would give, without the minute."""

    def __init__(self, network: nn.Module, **keywords):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(pixels)


@pytest.mark.parametrize(
    ("can_be_fused", "asked", "views", "compiler", "compiled"),
    [
        (True, None, 10**6, True, False),
        (False, None, 10**6, True, True),
        (False, None, 10**6, False, False),
        (False, None, 7_000, True, False),
        (False, False, 10**6, True, False),
        (True, True, 10, True, True),
    ],
)
def test_it_is_compiled_where_that_pays_or_is_asked_for(monkeypatch, can_be_fused, asked, views, compiler, compiled):
    monkeypatch.setattr(torch, "compile", Compiled)
    monkeypatch.setattr(engines, "has_compiler", lambda: compiler)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()) if can_be_fused else Untraceable()
    assert Engine(network, "fp32", asked, 64, views).description.endswith(", compiled") == compiled


def test_a_compilation_that_fails_is_said_and_survived(monkeypatch):
    def broken(network, **keywords):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    found, made = difference(backbone("resnet18", 64), "fp32", 64, compiled=True)
    assert found <= 1e-5
    assert made.description == "fp32, channels_last, BatchNorm folded, fused, not compiled"


@pytest.mark.slow
@pytest.mark.skipif(not engines.has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("bf16", 0.01)])
def test_a_compiled_network_gives_the_plain_features(precision, allowed):
    found, made = difference(backbone("resnet18", 64), precision, 64, compiled=True)
    assert found <= allowed
    assert made.description == f"{precision}, channels_last, BatchNorm folded, fused, compiled"

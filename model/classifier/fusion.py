"""A network with its BatchNorm folded into convolutions, and activations and additions into what precedes them.

Fusing is what torch.compile's freezing does too, at the price of a C++ compiler and about a minute. Its operators are
called here directly; they are torch's own and not documented, so that whoever fuses compares the results.
"""

import copy
import operator
from collections.abc import Sequence

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.passes.shape_prop import ShapeProp

# How oneDNN calls what it can apply to a convolution's result before that is written to memory: (name, scalars).
ACTIVATIONS = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
    nn.Hardswish: ("hardswish", []),
}
AFTER_ADDITION = [ACTIVATIONS[nn.ReLU]]
ADDITIONS = (operator.add, operator.iadd, torch.add)


class Convolution(nn.Module):
    """nn.Conv2d with weights packed for this CPU, and what follows it, in one pass over the memory."""

    def __init__(
        self, convolution: nn.Conv2d, input_size: list[int], name: str = "none", scalars: Sequence[float] = ()
    ):
        super().__init__()
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self.name, self.scalars = name, list(scalars)
        # Packed for another size, weights would be packed anew at every call.
        pack = torch.ops.mkldnn._reorder_convolution_weight
        self.weight = pack(convolution.weight.detach(), *self.geometry, input_size)
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, maps: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """The activation of the convolution, or of its sum with `other`."""
        maps = maps.to(self.weight.dtype)
        weights = (self.weight, self.bias, *self.geometry)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(maps, *weights, self.name, self.scalars, "")
        activation = (None, [], "") if self.name == "none" else (self.name, self.scalars, "")
        return torch.ops.mkldnn._convolution_pointwise.binary(maps, other, *weights, "add", 1.0, *activation)


def folded(network: nn.Module) -> fx.GraphModule:
    """A copy of a network in eval mode whose BatchNorm is part of the convolutions before it.

    Raises whatever tracing raises where the network cannot be traced.
    """
    return fuse(network)


def fused(network: fx.GraphModule, example: torch.Tensor, batch_size: int) -> fx.GraphModule:
    """A copy of a folded network whose convolutions are packed, with the additions and activations after them.

    example: pixels float32 [n, 3, S, S], of any n. batch_size: of the batches that are to come.
    """
    network = copy.deepcopy(network)
    ShapeProp(network).propagate(example)
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        if node.op != "call_module" or not _is_plain(modules[node.target]):
            continue
        chain, operands, activation = [node], node.args, None
        if (user := _only_user(node)) and _adds_two(user):
            chain.append(user)
            operands = (*operands, next(argument for argument in user.args if argument is not node))
        if (user := _only_user(chain[-1])) and user.op == "call_module":
            activation = ACTIVATIONS.get(type(modules[user.target]))
            if activation and (len(chain) == 1 or activation in AFTER_ADDITION):
                chain.append(user)
            else:
                activation = None
        # A name of its own: one module may be called at several places, with another follower at each.
        name = f"fused_{node.name}"
        input_size = [batch_size, *node.args[0].meta["tensor_meta"].shape[1:]]
        modules[name] = Convolution(modules[node.target], input_size, *(activation or ()))
        network.add_submodule(name, modules[name])
        with network.graph.inserting_after(chain[-1]):
            replacement = network.graph.call_module(name, operands)
        replacement.meta = chain[-1].meta
        chain[-1].replace_all_uses_with(replacement)
        for gone in reversed(chain):
            network.graph.erase_node(gone)
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    return network


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _adds_two(node: fx.Node) -> bool:
    if node.op != "call_function" or node.target not in ADDITIONS or node.kwargs or len(node.args) != 2:
        return False
    first, second = node.args
    return isinstance(first, fx.Node) and isinstance(second, fx.Node) and first is not second

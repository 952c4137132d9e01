"""A frozen backbone's features: computed once, then every epoch and trial trains only the head on them."""

from collections.abc import Callable

import torch
from torch import nn

from classifier.network import head_name, replace
from classifier.samples import FeatureSamples, PictureSamples

EXTRACTION_BATCH_SIZE = 16


def extract(
    network: nn.Module,
    samples: PictureSamples,
    seed: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureSamples:
    """What the network's head would see of each picture as it is served, float32 [N, features].

    In eval mode throughout, so that BatchNorm's statistics stay those of the pretrained weights.
    on_batch(done, total) is called with counts of pictures.
    """
    name = head_name(network)
    head = network.get_submodule(name)
    replace(network, name, nn.Identity())
    network.eval().to(memory_format=torch.channels_last)
    features, done = [], 0
    try:
        with torch.inference_mode():
            for pixels, _ in samples.in_order(EXTRACTION_BATCH_SIZE):
                features.append(network(pixels.contiguous(memory_format=torch.channels_last)))
                done += len(pixels)
                on_batch(done, len(samples.targets))
    finally:
        replace(network, name, head)
    # A copy made outside inference mode: its tensors could not take part in the head's gradients.
    return FeatureSamples(torch.cat(features).clone(), samples.targets, seed)

"""The reference: an inference script as most are written, eager PyTorch and Pillow, for the SageMaker toolkit.

Beside it lies model.pth, a torchvision classifier's state dict, and network.json: {"backbone", "classes",
"image_size"}.
"""

import json
from io import BytesIO
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms


def model_fn(model_dir):
    """The network in eval mode, and its transform."""
    description = json.loads(Path(model_dir, "network.json").read_text())
    network = torchvision.models.get_model(description["backbone"])
    network.fc = nn.Linear(network.fc.in_features, description["classes"])
    network.load_state_dict(torch.load(Path(model_dir, "model.pth"), weights_only=True))
    size = description["image_size"]
    transform = transforms.Compose(
        [
            transforms.Resize(size * 256 // 224),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return network.eval(), transform


def input_fn(body, content_type):
    """The picture."""
    if content_type not in ("image/jpeg", "image/png"):
        raise ValueError(f"unsupported content type {content_type}")
    return Image.open(BytesIO(body)).convert("RGB")


def predict_fn(image, model):
    """Logits [1, classes]."""
    network, transform = model
    with torch.no_grad():
        return network(transform(image).unsqueeze(0))


def output_fn(logits, accept):
    """JSON."""
    return json.dumps(logits.tolist()), "application/json"

"""Lets torchvision's Python files be imported without its own library, which needs CUDA. Imported by the workers."""

from __future__ import annotations

import torch

# Declared in that library; the Python files ask for them. They end with this object.
LIBRARY = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

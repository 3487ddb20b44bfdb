# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from pathlib import Path


def imagenet_id2label() -> dict[int, str]:
    """
    The names of ImageNet's 1,000 classes (ILSVRC 2012): WordNet's words for each, separated by commas, as in `"tabby,
    tabby cat"`.
    """
    return dict(enumerate(json.loads(Path(__file__).with_name("imagenet_classes.json").read_text())))

# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from torch import nn

from ..files import load_whole
from .networks import ImageAutoencoder, ImageClassifier, LatentVAE
from .transformers_oracle import TransformersOracle


def find_classes(argument: str, names: list[str], class_names: list[str]) -> list[int]:
    """Where each of `class_names` is among `names`. Raises a `ValueError` if they are not the same classes."""
    if sorted(names) != sorted(class_names) or len(set(names)) < len(names):
        raise ValueError(
            f"`{argument}` expects the same classes as the metric models have, by name. There are {class_names} and "
            f"{names}."
        )
    return [names.index(name) for name in class_names]


class ReorderedOracle(nn.Module):
    """
    An oracle whose logits are in another order.

    Args:
        oracle ([`ImageClassifier`] or [`TransformersOracle`]): The oracle.
        indices (`list[int]`): Its class index of each logit.
    """

    def __init__(self, oracle: nn.Module, indices: list[int]):
        super().__init__()
        self.oracle = oracle
        self.indices = indices

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: The name of each class, in the new order."""
        return {new: self.oracle.id2label[old] for new, old in enumerate(self.indices)}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.oracle(image)[:, self.indices]


def load_oracle(name_or_path: str | Path, cache_dir: str | Path | None) -> TransformersOracle:
    """Loads a classifier of `transformers`, or says that `oracle` is none."""
    try:
        return TransformersOracle(name_or_path, cache_dir)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`oracle` expects an image classifier of transformers, got {str(name_or_path)!r}: {error}"
        ) from error


class MetricModels(nn.Module):
    r"""
    The networks that the metrics need for one data set, in evaluation mode and with frozen weights. They expect images
    in [0, 1] of the same shape. `train_scripts/train_metric_models.py` trains them.

    Args:
        vae ([`LatentVAE`]): Encodes images for [`CounterfactualLatentDivergence`].
        autoencoder ([`ImageAutoencoder`]): Trained on all classes, for [`IM2`].
        class_autoencoders (`torch.nn.ModuleList`):
            At index `c`, an [`ImageAutoencoder`] trained on class `c` only, for [`IM1`] and [`IM2`].
        oracle ([`ImageClassifier`] or [`TransformersOracle`]): Classifies images for [`Effectiveness`].
        class_names (`list[str]`, *optional*):
            The classes of `class_autoencoders`, in their order. Default: those of `oracle`.

    Attributes:
        class_names (`list[str]`): The classes of `class_autoencoders` and of `oracle`'s logits.

    Raises:
        ValueError: If the models differ in their classes or in the shape of the images.

    Example:
        >>> import torch
        >>> from diffscm_diffusers import ImageAutoencoder, ImageClassifier, LatentVAE
        >>> from diffscm_diffusers.metrics import IM2, MetricModels
        >>> models = MetricModels(  # or MetricModels.from_pretrained("checkpoints/diffscm-mnist-metrics")
        ...     LatentVAE(8),
        ...     ImageAutoencoder(8),
        ...     torch.nn.ModuleList(ImageAutoencoder(8) for _ in range(10)),
        ...     ImageClassifier(8),
        ... )
        >>> im2 = IM2(models.class_autoencoders, models.autoencoder)
        >>> mean, variance = models.vae.encode(torch.ones(3, 1, 8, 8))
        >>> mean.shape
        torch.Size([3, 20])
    """

    def __init__(
        self,
        vae: LatentVAE,
        autoencoder: ImageAutoencoder,
        class_autoencoders: nn.ModuleList,
        oracle: ImageClassifier | TransformersOracle,
        class_names: list[str] | None = None,
    ):
        super().__init__()
        if oracle.num_classes != len(class_autoencoders):
            raise ValueError(
                f"`oracle` expects a classifier of {len(class_autoencoders)} classes, one per class autoencoder, got "
                f"{oracle.num_classes} classes."
            )
        networks = {"vae": vae, "autoencoder": autoencoder, "oracle": oracle}
        networks.update({f"class_autoencoders[{c}]": network for c, network in enumerate(class_autoencoders)})
        # A `TransformersOracle` resizes its images.
        shapes = {
            name: (network.config.in_channels, network.config.sample_size)
            for name, network in networks.items()
            if not isinstance(network, TransformersOracle)
        }
        if len(set(shapes.values())) > 1:
            raise ValueError(f"The models must have the same `in_channels` and `sample_size`, got {shapes}.")
        self.vae = vae
        self.autoencoder = autoencoder
        self.class_autoencoders = class_autoencoders
        self.oracle = oracle
        oracle_names = list(oracle.id2label.values())
        self.class_names = oracle_names if class_names is None else class_names
        if self.class_names != oracle_names:
            self.oracle = ReorderedOracle(oracle, find_classes("oracle", oracle_names, self.class_names))
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, oracle: str | Path | None = None, cache_dir: str | Path | None = None
    ) -> "MetricModels":
        """
        Loads the models that `train_scripts/train_metric_models.py` saved, from the folders `vae`, `autoencoder`,
        `class_autoencoders/0`, `class_autoencoders/1`, ... and `oracle`. Weights must be in safetensors.

        Args:
            name_or_path (`str` or `Path`): A repository on the Hub or a local folder.
            oracle (`str` or `Path`, *optional*):
                An image classifier of `transformers` to use instead of the folder `oracle`: a repository on the Hub or
                a local folder. Its labels must be the names of the same classes, in any order.
            cache_dir (`str` or `Path`, *optional*): The folder in which files from the Hub are cached.

        Returns:
            [`MetricModels`]: The models in evaluation mode.

        Raises:
            ValueError: If there is no such folder or repository, a model is missing, or the models do not match.
        """
        folder = Path(name_or_path)
        if not folder.is_dir():
            patterns = [
                f"{name}/{file}"
                for name in ("vae", "autoencoder", "class_autoencoders/*", "oracle")
                for file in ("config.json", "*.safetensors")
            ]
            try:
                folder = Path(snapshot_download(str(name_or_path), allow_patterns=patterns, cache_dir=cache_dir))
            except (HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
                raise ValueError(
                    f"`name_or_path` expects a folder or a repository with metric models, got {str(name_or_path)!r}: "
                    f"{error}"
                ) from error

        num_classes = len(list(folder.glob("class_autoencoders/*/config.json")))
        # The oracle's configuration names the classes of the autoencoders, too.
        needed = ["vae", "autoencoder", *(f"class_autoencoders/{c}" for c in range(max(num_classes, 1))), "oracle"]
        missing = [name for name in needed if not (folder / name / "config.json").is_file()]
        if missing:
            raise ValueError(
                f"`name_or_path` expects a folder or a repository with metric models, got {str(name_or_path)!r}, "
                f"which lacks {missing}."
            )

        def load(model_class, subfolder):
            return load_whole(model_class, folder, subfolder=subfolder)

        own_oracle = load(ImageClassifier, "oracle")
        return cls(
            vae=load(LatentVAE, "vae"),
            autoencoder=load(ImageAutoencoder, "autoencoder"),
            class_autoencoders=nn.ModuleList(
                load(ImageAutoencoder, f"class_autoencoders/{c}") for c in range(num_classes)
            ),
            oracle=own_oracle if oracle is None else load_oracle(oracle, cache_dir),
            class_names=list(own_oracle.id2label.values()),
        )

    def order_classes(self, class_names: list[str]) -> "MetricModels":
        """
        Puts the classes in another order, by name.

        Args:
            class_names (`list[str]`): The same classes, in the order that is wanted.

        Returns:
            [`MetricModels`]: The same networks, with this order of autoencoders and logits.

        Raises:
            ValueError: If these are other classes.
        """
        indices = find_classes("class_names", self.class_names, class_names)
        autoencoders = nn.ModuleList(self.class_autoencoders[c] for c in indices)
        oracle = self.oracle.oracle if isinstance(self.oracle, ReorderedOracle) else self.oracle
        return MetricModels(self.vae, self.autoencoder, autoencoders, oracle, list(class_names))

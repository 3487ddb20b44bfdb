# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class WorldSample:
    """
    Samples of a world: what was drawn, what follows from it, and what it looks like.

    Args:
        variables (`dict[str, torch.Tensor]`): Value of each endogenous variable, shape `(num_samples,)`: `int64`
            indices into the node's labels for categorical variables, `float32` in the node's unit for continuous ones.
        exogenous_noise (`dict[str, torch.Tensor]`): Everything else that the images depend on, first axis
            `num_samples`. A counterfactual has the same.
        images (`torch.Tensor`): Shape `(num_samples, channels, size, size)`, `float32` in [0, 1].
    """

    variables: dict[str, torch.Tensor]
    exogenous_noise: dict[str, torch.Tensor]
    images: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


class World:
    """
    A structural causal model that renders images, and so knows their true counterfactuals.

    A subclass sets `graph` and defines `_sample_exogenous_noise`, `_compute_variable` and `_render`, which must each
    be deterministic given their arguments.

    Attributes:
        graph (`dict`): The causal graph as plain data, which can be written as JSON:

            - `"nodes"`: name to description, in topological order. `"kind"` is `"categorical"` (with `"labels"`) or
              `"continuous"` (with `"range"`, the two ends of the values that an intervention accepts, and `"unit"`).
            - `"edges"`: pairs `[parent, child]`. The image is a child here.
            - `"image"`: name of the image in the edges.
            - `"exogenous_noise"`: name to description, as for nodes, of the noise that has a meaning of its own.
    """

    graph: dict[str, Any]

    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> WorldSample:
        """
        Draw from the observational distribution.

        Args:
            num_samples (`int`): Number of samples, at least 1.
            generator (`torch.Generator`, *optional*): On the CPU. The same seed gives the same samples.

        Returns:
            [`WorldSample`]: The samples.

        Raises:
            `ValueError`: If `num_samples` is not a positive `int`, or `generator` is not on the CPU.
            `TypeError`: If `generator` is none.
        """
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
            raise ValueError(f"`num_samples` expects an `int` of at least 1, got {num_samples!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {generator!r}.")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"`generator` expects a generator on the CPU, got one on {generator.device}.")
        noise = self._sample_exogenous_noise(num_samples, generator)
        variables = {}
        for name in self.graph["nodes"]:
            variables[name] = self._compute_variable(name, variables, noise)
        return WorldSample(variables, noise, self._render(variables, noise))

    def counterfactual(self, sample: WorldSample, do: dict[str, Any]) -> WorldSample:
        """
        The true counterfactuals of a sample: the same exogenous noise under an intervention.

        The variables in `do` get their new values, their descendants are computed anew, all others keep theirs. An
        intervention that `sample` itself came from is not remembered: a descendant that it had set is computed anew.

        Args:
            sample ([`WorldSample`]): The factuals, from this world.
            do (`dict[str, int | float | torch.Tensor]`): Variable to value: one for all samples, or a tensor of shape
                `(num_samples,)`. Integers for categorical variables.

        Returns:
            [`WorldSample`]: The counterfactuals, in the order of the factuals.

        Raises:
            `ValueError`: If `do` names something that is not a variable, or a value has a wrong shape, is not a number
                of the variable's kind, or is out of its range, or if `sample` is of another world.
            `TypeError`: If `sample` is no sample, or `do` no dictionary.
        """
        if not isinstance(sample, WorldSample):
            raise TypeError(f"`sample` expects a WorldSample, got {sample!r}.")
        if not isinstance(do, dict):
            raise TypeError(f"`do` expects a dictionary of variables and values, got {do!r}.")
        missing = [name for name in self.graph["nodes"] if name not in sample.variables]
        missing += [name for name in self.graph["exogenous_noise"] if name not in sample.exogenous_noise]
        if missing:
            raise ValueError(f"`sample` expects a sample of this world, got one without {missing}.")
        values = {name: self._check_intervention(name, value, len(sample)) for name, value in do.items()}
        changed = set(values)
        variables = {}
        for name in self.graph["nodes"]:
            parents = {parent for parent, child in self.graph["edges"] if child == name}
            if name in values:
                variables[name] = values[name]
            elif parents & changed:
                changed.add(name)
                variables[name] = self._compute_variable(name, variables, sample.exogenous_noise)
            else:
                variables[name] = sample.variables[name]
        return WorldSample(variables, sample.exogenous_noise, self._render(variables, sample.exogenous_noise))

    def _sample_exogenous_noise(self, num_samples: int, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _compute_variable(
        self, name: str, variables: dict[str, torch.Tensor], exogenous_noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The mechanism of one variable. `variables` holds at least its parents."""
        raise NotImplementedError

    def _render(self, variables: dict[str, torch.Tensor], exogenous_noise: dict[str, torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError

    def _check_intervention(self, name: str, value: Any, num_samples: int) -> torch.Tensor:
        nodes = self.graph["nodes"]
        if name not in nodes:
            if name in self.graph["exogenous_noise"]:
                reason = "is exogenous noise, which an intervention leaves as it is"
            else:
                reason = "is not a variable of this world"
            raise ValueError(f"`do` expects variables among {list(nodes)}, got {name!r}, which {reason}.")

        node = nodes[name]
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"`do[{name!r}]` expects a number or a tensor, got {value!r}.") from error
        if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != num_samples):
            raise ValueError(
                f"`do[{name!r}]` expects one value or a tensor of shape ({num_samples},), got shape "
                f"{tuple(tensor.shape)}."
            )
        if tensor.dtype == torch.bool or tensor.is_complex():
            raise ValueError(f"`do[{name!r}]` expects numbers, got {tensor.dtype}.")

        if node["kind"] == "categorical":
            if tensor.is_floating_point():
                raise ValueError(f"`do[{name!r}]` expects integers, got {tensor.dtype}.")
            low, high, dtype = 0, len(node["labels"]) - 1, torch.int64
        else:
            (low, high), dtype = node["range"], torch.float32
        # Written so that NaN is outside as well. An end of a range may round when it is stored as float32.
        tensor = tensor.cpu().to(dtype)
        outside = ~((tensor >= torch.tensor(low, dtype=dtype)) & (tensor <= torch.tensor(high, dtype=dtype)))
        if outside.any():
            raise ValueError(f"`do[{name!r}]` expects values in [{low}, {high}], got {tensor[outside][0].item()}.")
        return tensor.expand(num_samples).clone()

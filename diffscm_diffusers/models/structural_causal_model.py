# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from tqdm.auto import tqdm
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from ..causal_graphs import CausalGraph, Node, read_table


# How far the ends of a range lie within the interval that the logit maps to the real line, in parts of the interval.
MARGIN = 2**-20

# Of the conditional affine map from a standardised value to noise.
MIN_SLOPE = 1e-4

# Of the networks in the mechanisms, per unit of the learning rate.
WEIGHT_DECAY = 2.0


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    """Uniform in (0, 1), the same on every device for a generator on the CPU."""
    source = device if generator is None else generator.device
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=source)
    # `rand` gives multiples of 2^-53, from 0.
    return (uniform + 2**-54).to(device)


def _gumbel(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
    return -(-_uniform(shape, generator, device).log()).log()


def _check_generator(generator: torch.Generator | None) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` expects a `torch.Generator`, got {generator!r}.")


class ParametersFromParents(nn.Module):
    """
    Parameters of a mechanism, given the node's parents: constant, plus linear (the first `linear_features` of them
    only), plus a network.
    """

    def __init__(self, in_features: int, out_features: int, linear_features: int, hidden_features: int):
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(out_features))
        self.linear = self.network = None
        if in_features > 0:
            # The linear part goes on where there was no data: an intervention may go there.
            self.linear = nn.Linear(in_features, linear_features, bias=False)
            self.network = nn.Sequential(
                nn.Linear(in_features, hidden_features),
                nn.SiLU(),
                nn.Linear(hidden_features, hidden_features),
                nn.SiLU(),
                nn.Linear(hidden_features, out_features, bias=False),
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.constant)
        if self.linear is not None:
            for layer in self.network[::2]:
                layer.reset_parameters()
            # The mechanism starts as one that the parents have no effect on.
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.network[-1].weight)

    def forward(self, parents: torch.Tensor) -> torch.Tensor:
        parameters = self.constant.expand(len(parents), -1)
        if self.linear is not None:
            parents = parents.to(self.constant.dtype)
            linear = self.linear(parents)
            linear = F.pad(linear, (0, parameters.shape[1] - linear.shape[1]))
            parameters = parameters + linear + self.network(parents)
        return parameters.double()


class ContinuousMechanism(nn.Module):
    """
    A monotone flow from a continuous attribute to its exogenous noise `u ~ N(0, 1)`: a logit from range to real
    numbers, standardised, then an affine map and a rational-quadratic spline whose parameters depend on the parents.
    """

    def __init__(self, node: Node, in_features: int, hidden_features: int, num_bins: int):
        super().__init__()
        self.low, self.high = node.range
        self.num_bins = num_bins
        self.parameters_from_parents = ParametersFromParents(in_features, 2 + 3 * num_bins - 1, 1, hidden_features)
        # Of the attribute, as a parent, and of its logit.
        self.register_buffer("mean", torch.tensor((self.low + self.high) / 2))
        self.register_buffer("std", torch.tensor((self.high - self.low) / 4))
        self.register_buffer("logit_mean", torch.tensor(0.0))
        self.register_buffer("logit_std", torch.tensor(1.0))

    @property
    def num_features(self) -> int:
        return 1

    def features(self, value: torch.Tensor) -> torch.Tensor:
        """The attribute as its children's mechanisms take it."""
        return ((value.double() - self.mean) / self.std)[:, None]

    def standardise(self, value: torch.Tensor, name: str) -> None:
        logit, _ = self._logit(value)
        std, logit_std = value.double().std(correction=0), logit.std(correction=0)
        if not (std > 0 and logit_std > 0):
            raise ValueError(f"`table[{name!r}]` expects more than one value, got {value[0].item():g} in each row.")
        self.mean.copy_(value.double().mean())
        self.std.copy_(std)
        self.logit_mean.copy_(logit.mean())
        self.logit_std.copy_(logit_std)

    def initialise(self, value: torch.Tensor, parents: torch.Tensor) -> None:
        """Starts at the linear regression, of which the residuals are the noise: the network learns what is left."""
        hidden = (self._logit(value)[0] - self.logit_mean) / self.logit_std
        # On the CPU, which alone solves it whatever the rank: a column may be a function of the others.
        linear = torch.linalg.lstsq(parents.cpu(), hidden[:, None].cpu(), driver="gelsd").solution.to(hidden.device)
        residual = (hidden - (parents @ linear)[:, 0]).std(correction=0).clamp_min(0.01)
        # As `MonotonicAffineTransform` bounds it.
        scale = -residual.log()
        self.parameters_from_parents.constant[1] = scale / (1 - abs(scale / math.log(MIN_SLOPE)))
        if len(linear) > 0:
            self.parameters_from_parents.linear.weight.copy_(-linear.T / residual)

    def _logit(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = (1 - 2 * MARGIN) / (self.high - self.low)
        # An end that was rounded to float32 is the end.
        part = MARGIN + scale * (value.double().clamp(self.low, self.high) - self.low)
        return part.logit(), math.log(scale) - part.log() - (-part).log1p()

    def _transforms(self, parents: torch.Tensor) -> tuple[MonotonicAffineTransform, MonotonicRQSTransform]:
        shift, scale, widths, heights, derivatives = self.parameters_from_parents(parents).split(
            [1, 1, self.num_bins, self.num_bins, self.num_bins - 1], dim=1
        )
        affine = MonotonicAffineTransform(shift[:, 0], scale[:, 0], slope=MIN_SLOPE)
        return affine, MonotonicRQSTransform(widths, heights, derivatives)

    def _noise_and_log_prob(self, value: torch.Tensor, parents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, log_prob = self._logit(value)
        hidden = (hidden - self.logit_mean) / self.logit_std
        log_prob = log_prob - self.logit_std.double().log()
        for transform in self._transforms(parents):
            hidden, log_derivative = transform.call_and_ladj(hidden)
            log_prob = log_prob + log_derivative
        return hidden, log_prob - 0.5 * (hidden.square() + math.log(2 * math.pi))

    def log_prob(self, value: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        return self._noise_and_log_prob(value, parents)[1]

    def abduct(self, value: torch.Tensor, parents: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return self._noise_and_log_prob(value, parents)[0]

    def predict(self, noise: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        affine, spline = self._transforms(parents)
        hidden = affine.inv(spline.inv(noise.double()))
        part = (hidden * self.logit_std + self.logit_mean).sigmoid()
        # The logit of an end is finite, and beyond it lies `MARGIN` of the range. All of that is the end.
        part = ((part - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)
        low, high = part.new_tensor([self.low, self.high])
        return torch.lerp(low, high, part).float()

    def noise_shape(self, num_samples: int) -> tuple[int, ...]:
        return (num_samples,)

    def sample_noise(self, num_samples: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        return torch.special.ndtri(_uniform((num_samples,), generator, device))


class DiscreteMechanism(nn.Module):
    """
    Gumbel-max: a categorical or ordinal attribute is the `argmax` of the log-probabilities given the parents plus its
    exogenous noise, a standard Gumbel variable for each category.
    """

    def __init__(self, node: Node, in_features: int, hidden_features: int):
        super().__init__()
        self.labels, self.kind = node.labels, node.kind
        num_labels = len(self.labels)
        self.parameters_from_parents = ParametersFromParents(in_features, num_labels, num_labels, hidden_features)

    @property
    def num_features(self) -> int:
        return len(self.labels) if self.kind == "categorical" else 1

    def features(self, value: torch.Tensor) -> torch.Tensor:
        if self.kind == "categorical":
            return F.one_hot(value, len(self.labels)).double()
        return (2 * value.double() / (len(self.labels) - 1) - 1)[:, None]

    def standardise(self, value: torch.Tensor, name: str) -> None:
        counts = torch.bincount(value, minlength=len(self.labels))
        if not counts.all():
            label = self.labels[int(counts.argmin())]
            raise ValueError(f"`table[{name!r}]` expects each label at least once, got no row with {label!r}.")

    def initialise(self, value: torch.Tensor, parents: torch.Tensor) -> None:
        counts = torch.bincount(value, minlength=len(self.labels))
        self.parameters_from_parents.constant.copy_((counts / len(value)).log())

    def log_probs(self, parents: torch.Tensor) -> torch.Tensor:
        return self.parameters_from_parents(parents).log_softmax(dim=1)

    def log_prob(self, value: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        return self.log_probs(parents).gather(1, value[:, None])[:, 0]

    def abduct(self, value: torch.Tensor, parents: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        # The largest sum is a standard Gumbel variable, whichever category has it; the other sums are smaller
        # (Maddison et al., 2014; Oberst & Sontag, 2019).
        log_probs = self.log_probs(parents)
        shape = (len(value), 1 + len(self.labels))
        gumbel = _gumbel(shape, generator, value.device)
        largest, others = gumbel[:, :1], gumbel[:, 1:] + log_probs
        others = -torch.logaddexp(-largest, -others)
        return torch.where(F.one_hot(value, len(self.labels)).bool(), largest, others) - log_probs

    def predict(self, noise: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        return (self.log_probs(parents) + noise.double()).argmax(dim=1)

    def noise_shape(self, num_samples: int) -> tuple[int, ...]:
        return (num_samples, len(self.labels))

    def sample_noise(self, num_samples: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        return _gumbel(self.noise_shape(num_samples), generator, device)


class StructuralCausalModel(ModelMixin, ConfigMixin):
    r"""
    Mechanisms of an image's attributes, `value = f(parents, u)` with exogenous noise `u`: what becomes of the other
    attributes when some are intervened on.

    **Continuous attributes**: a monotone flow of the value, `u ~ N(0, 1)`, which is inverted exactly. A logit maps the
    range to the real line, the result is standardised by the training data, and an affine map and a
    rational-quadratic spline ([Durkan et al., 2019](https://huggingface.co/papers/1906.04032)) follow, whose
    parameters are a function of the parents. So whatever the intervention, a predicted value lies in the range. The
    logit widens the range by a millionth at both ends. Otherwise a value at an end, which data and measurements often
    have, would have infinite noise, and would stay at the end under any intervention. What is predicted within that
    millionth is the end. Many equal values, as where a measurement saturates, have no density: what a flow says of
    them is a guess.

    **Categorical and ordinal attributes**: log-probabilities given the parents, and Gumbel-max. The observed category
    does not determine the noise: abduction draws it from its posterior
    ([Oberst & Sontag, 2019](https://huggingface.co/papers/1905.05824)), so counterfactuals of such attributes and of
    their descendants are draws, too.

    Attributes without parents have a mechanism as well: their distribution.

    The methods take values as [`CausalGraph.check_values`] reads them, and return tensors of shape `(num_samples,)` on
    the model's device, in the order of the graph: `float32` in the node's unit for continuous attributes, `int64`
    indices into the labels for the others.

    Parameters:
        graph (`CausalGraph` or `dict`): The graph, or what [`CausalGraph.to_dict`] gives.
        hidden_features (`int`, *optional*, defaults to 64):
            Width of the networks that give a mechanism's parameters from the parents.
        num_bins (`int`, *optional*, defaults to 8): Number of pieces of the splines.

    Attributes:
        graph (`CausalGraph`): The graph.
        log_prob_quantile (`torch.Tensor`):
            The 1 % quantile of [`~StructuralCausalModel.log_prob`] over the data that the model was fitted to. Lower
            values are outside of their support. Minus infinity before.

    Raises:
        ValueError: if `graph` is no graph, or another parameter is no positive integer.
    """

    # A mechanism's inverse is exact in float64, into which parameters are converted. They are small.
    _keep_in_fp32_modules = ["mechanisms"]

    @register_to_config
    def __init__(self, graph: CausalGraph | dict[str, Any], hidden_features: int = 64, num_bins: int = 8):
        super().__init__()
        for argument, number in (("hidden_features", hidden_features), ("num_bins", num_bins)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"`{argument}` expects a positive integer, got {number!r}.")
        self.graph = graph if isinstance(graph, CausalGraph) else CausalGraph.from_dict(graph)
        self.register_to_config(graph=self.graph.to_dict())

        # In the order of the graph. Not by name: a name of an attribute need not be one that a module can have.
        self.mechanisms = nn.ModuleList()
        for name, node in self.graph.nodes.items():
            in_features = sum(self._mechanism(parent).num_features for parent in self.graph.parents(name))
            if node.kind == "continuous":
                self.mechanisms.append(ContinuousMechanism(node, in_features, hidden_features, num_bins))
            else:
                self.mechanisms.append(DiscreteMechanism(node, in_features, hidden_features))
        self.register_buffer("log_prob_quantile", torch.tensor(-math.inf))

    @torch.no_grad()
    def abduct(self, values: Mapping[str, Any], generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """
        Abduction: the exogenous noise of each attribute, given all attributes.

        Args:
            values (`dict[str, Any]`): The factual value of each attribute: one, or one for each sample.
            generator (`torch.Generator`, *optional*):
                Of the draws from the posterior of categorical and ordinal attributes' noise.

        Returns:
            `dict[str, torch.Tensor]`: the noise, `float64`: of shape `(num_samples,)` and standard Gaussian over the
            data for continuous attributes, `(num_samples, num_labels)` and standard Gumbel for the others.

        Raises:
            TypeError: if a value is neither a number nor a label.
            ValueError: if an attribute is unknown or missing, or a value does not fit it.
        """
        _check_generator(generator)
        values = self._read_values(values)
        return {
            name: mechanism.abduct(values[name], self._parents(name, values), generator)
            for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True)
        }

    @torch.no_grad()
    def predict(
        self, noise: Mapping[str, torch.Tensor], do: Mapping[str, Any] | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Action and prediction: the attributes that follow from exogenous noise under an intervention.

        Args:
            noise (`dict[str, torch.Tensor]`):
                The noise of each attribute, as [`~StructuralCausalModel.abduct`] gives it. That of an attribute in
                `do` is not needed.
            do (`dict[str, Any]`, *optional*): The intervention: attributes and their values.

        Returns:
            `dict[str, torch.Tensor]`: values of all attributes.

        Raises:
            TypeError: if `noise` is not a `dict` of floating-point tensors, or a value is not of its attribute's kind.
            ValueError:
                if `noise` or `do` has an unknown attribute, noise is missing, of a wrong shape or not finite, or a
                value does not fit its attribute.
        """
        if not isinstance(noise, Mapping) or not noise:
            raise TypeError(f"`noise` expects a `dict` of attributes to tensors, got {noise!r}.")
        self._check_weights()
        self.graph.check_names(noise, "noise")
        first = next(iter(noise.values()))
        num_samples = len(first) if isinstance(first, torch.Tensor) and first.ndim > 0 else 1
        do = self._check_values({} if do is None else do, num_samples, "do")
        values = {}
        for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True):
            if name in do:
                values[name] = do[name]
                continue
            self._check_noise(name, noise, mechanism.noise_shape(num_samples))
            parents = self._parents(name, values, num_samples)
            values[name] = mechanism.predict(noise[name].to(self.device), parents)
            if not values[name].isfinite().all():
                raise ValueError(f"`noise[{name!r}]` expects numbers that lead to finite values, got {noise[name]}.")
        return values

    @torch.no_grad()
    def counterfactual(
        self,
        values: Mapping[str, Any],
        do: Mapping[str, Any],
        generator: torch.Generator | None = None,
        hold: str | Iterable[str] = (),
    ) -> dict[str, torch.Tensor]:
        """
        What the attributes would have been under an intervention: abduction, action and prediction.

        Attributes that do not descend from the intervention keep their factual values, exactly. With `hold`, an effect
        that goes through an attribute is taken out: what is left is the direct effect on the others.

        Args:
            values (`dict[str, Any]`): The factual value of each attribute: one, or one for each sample.
            do (`dict[str, Any]`): The intervention: attributes and their values.
            generator (`torch.Generator`, *optional*): Of the draws of [`~StructuralCausalModel.abduct`].
            hold (`str` or `Iterable[str]`, *optional*): Attributes that keep their factual values.

        Returns:
            `dict[str, torch.Tensor]`: counterfactual values of all attributes.

        Raises:
            TypeError: if a value is neither a number nor a label.
            ValueError:
                if an attribute is unknown, missing in `values`, or both in `do` and in `hold`, or if a value does not
                fit its attribute.
        """
        values = self._read_values(values)
        num_samples = len(values[self.graph.attributes[0]])
        do = self._check_values(do, num_samples, "do")
        _, hold = self.graph.check_do_and_hold(do, hold)
        noise = self.abduct(values, generator)
        changed = self.graph.descendants(do, hold)
        kept = {name: value for name, value in values.items() if name not in changed}
        return self.predict(noise, {**kept, **do})

    @torch.no_grad()
    def sample(
        self, num_samples: int, do: Mapping[str, Any] | None = None, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Draws attributes, from the observational distribution or under an intervention.

        Args:
            num_samples (`int`): Number of samples.
            do (`dict[str, Any]`, *optional*): The intervention: attributes and their values.
            generator (`torch.Generator`, *optional*): Of the exogenous noise.

        Returns:
            `dict[str, torch.Tensor]`: values of all attributes.

        Raises:
            TypeError: if a value is neither a number nor a label.
            ValueError: if `num_samples` is no positive integer, an attribute is unknown, or a value does not fit it.
        """
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
            raise ValueError(f"`num_samples` expects a positive integer, got {num_samples!r}.")
        _check_generator(generator)
        noise = {
            name: mechanism.sample_noise(num_samples, generator, self.device)
            for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True)
        }
        return self.predict(noise, do)

    @torch.no_grad()
    def log_prob(self, values: Mapping[str, Any]) -> torch.Tensor:
        """
        The log-density of attributes: the sum over their mechanisms of `log p(value | parents)`.

        Args:
            values (`dict[str, Any]`): The value of each attribute: one, or one for each sample.

        Returns:
            `torch.Tensor` of shape `(num_samples,)`: in nats, `float64`. A density in the units of the continuous
            attributes, a probability in the others.

        Raises:
            TypeError: if a value is neither a number nor a label.
            ValueError: if an attribute is unknown or missing, or a value does not fit it.
        """
        return self._log_prob(self._read_values(values))

    def fit(
        self,
        table,
        num_steps: int = 1000,
        batch_size: int = 1024,
        learning_rate: float = 5e-3,
        seed: int = 0,
        progress_bar: bool = True,
    ) -> "StructuralCausalModel":
        """
        Fits all mechanisms by maximum likelihood, from scratch, on the model's device. The same seed gives the same
        mechanisms. AdamW, with a learning rate that falls to 0 along a cosine.

        Args:
            table (`pandas.DataFrame`, `datasets.Dataset` or `dict[str, torch.Tensor]`):
                Observations: one row for each sample, one column for each attribute, as
                [`~causal_graphs.read_table`] takes it. Other columns are not looked at.
            num_steps (`int`, *optional*, defaults to 1000): Number of steps.
            batch_size (`int`, *optional*, defaults to 1024): Rows per step, if there are as many.
            learning_rate (`float`, *optional*, defaults to 5e-3): Learning rate of the first step.
            seed (`int`, *optional*, defaults to 0): Seed of the initial parameters and of the rows' order.
            progress_bar (`bool`, *optional*, defaults to `True`): Whether to show the progress.

        Returns:
            [`StructuralCausalModel`]: the model itself.

        Raises:
            TypeError: if `table` is of another type, or a column has neither numbers nor labels.
            ValueError:
                if a column is missing, a value is missing or does not fit its attribute, a label never occurs, a
                continuous column has one value only, or an argument is not positive. The message names column, row
                (counted from 0), value and expectation.
        """
        for argument, number in (("num_steps", num_steps), ("batch_size", batch_size)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"`{argument}` expects a positive integer, got {number!r}.")
        is_number = isinstance(learning_rate, (int, float)) and not isinstance(learning_rate, bool)
        if not is_number or not 0 < learning_rate < math.inf:
            raise ValueError(f"`learning_rate` expects a positive number, got {learning_rate!r}.")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise TypeError(f"`seed` expects an integer, got {seed!r}.")
        if not isinstance(progress_bar, bool):
            raise TypeError(f"`progress_bar` expects True or False, got {progress_bar!r}.")
        values = {name: value.to(self.device) for name, value in read_table(self.graph, table).items()}
        num_rows = len(values[self.graph.attributes[0]])
        batch_size = min(batch_size, num_rows)

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True):
                mechanism.standardise(values[name], name)
                mechanism.parameters_from_parents.reset_parameters()
                mechanism.initialise(values[name], self._parents(name, values))
        generator = torch.Generator().manual_seed(seed)
        # Decay of the networks alone: they bend a mechanism where the data ask for it, and little elsewhere.
        bent = [weight for name, weight in self.named_parameters() if ".network." in name]
        straight = [weight for name, weight in self.named_parameters() if ".network." not in name]
        groups = [{"params": bent, "weight_decay": WEIGHT_DECAY}, {"params": straight, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        order = torch.empty(0, dtype=torch.int64)
        for step in tqdm(range(num_steps), desc="Fitting mechanisms", disable=not progress_bar):
            if len(order) < batch_size:
                order = torch.randperm(num_rows, generator=generator)
            rows, order = order[:batch_size].to(self.device), order[batch_size:]
            with torch.enable_grad():  # whatever the caller has set
                loss = -self._log_prob({name: value[rows] for name, value in values.items()}).mean()
            if not loss.isfinite():
                raise ValueError(
                    f"`learning_rate` of {learning_rate:g} led to a loss of {loss.item()} in step {step}."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), 10.0)
            optimizer.step()
            schedule.step()

        with torch.no_grad():
            rows = torch.arange(num_rows, device=self.device).split(65536)
            log_probs = [self._log_prob({name: value[part] for name, value in values.items()}) for part in rows]
            log_probs = torch.cat(log_probs).sort().values
            if not log_probs.isfinite().all():
                raise ValueError(f"`learning_rate` of {learning_rate:g} led to log-densities that are not finite.")
            self.log_prob_quantile.copy_(log_probs[num_rows // 100])
        return self

    def _mechanism(self, name: str) -> ContinuousMechanism | DiscreteMechanism:
        return self.mechanisms[self.graph.attributes.index(name)]

    def _parents(self, name: str, values: dict[str, torch.Tensor], num_samples: int | None = None) -> torch.Tensor:
        parents = [self._mechanism(parent).features(values[parent]) for parent in self.graph.parents(name)]
        if parents:
            return torch.cat(parents, dim=1)
        num_samples = len(values[name]) if num_samples is None else num_samples
        return torch.empty(num_samples, 0, dtype=torch.float64, device=self.device)

    def _log_prob(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(
            mechanism.log_prob(values[name], self._parents(name, values))
            for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True)
        )

    def _read_values(self, values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        shapes = []
        if isinstance(values, Mapping):
            shapes = [value.shape if hasattr(value, "shape") else np.shape(value) for value in values.values()]
        num_samples = max((shape[0] for shape in shapes if len(shape) > 0), default=1)
        self._check_weights()
        return self._check_values(values, num_samples, "values", self.graph.attributes)

    def _check_weights(self) -> None:
        for name, mechanism in zip(self.graph.attributes, self.mechanisms, strict=True):
            if not all(weight.isfinite().all() for weight in mechanism.state_dict().values()):
                raise ValueError(f"The mechanism of {name!r} expects finite weights, got NaN or infinity.")

    def _check_values(
        self, values: Mapping[str, Any], num_samples: int, argument: str, names: Collection[str] | None = None
    ) -> dict[str, torch.Tensor]:
        values = self.graph.check_values(values, num_samples, argument, names)
        return {name: value.to(self.device) for name, value in values.items()}

    def _check_noise(self, name: str, noise: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> None:
        if name not in noise:
            raise ValueError(f"`noise` expects noise of each attribute that is not in `do`, got none of {name!r}.")
        if not isinstance(noise[name], torch.Tensor) or not noise[name].is_floating_point():
            raise TypeError(f"`noise[{name!r}]` expects a tensor of floating-point numbers, got {noise[name]!r}.")
        if noise[name].shape != shape:
            raise ValueError(f"`noise[{name!r}]` expects shape {shape}, got {tuple(noise[name].shape)}.")
        if not noise[name].isfinite().all():
            raise ValueError(f"`noise[{name!r}]` expects finite numbers, got NaN or infinity.")

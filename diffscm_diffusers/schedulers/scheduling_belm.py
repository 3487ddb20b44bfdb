# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import BaseOutput


@dataclass
class DiffSCMBELMSchedulerOutput(BaseOutput):
    """
    Output of [`DiffSCMBELMScheduler.step`].

    Args:
        prev_sample (`torch.Tensor` of shape `(batch_size, 2, num_channels, height, width)`):
            The sample that the move started from and the one that it led to, in float64 but for `mps`.
    """

    prev_sample: torch.Tensor


# Copied from diffscm_diffusers.schedulers.scheduling_ddim.check_noise_schedule
def check_noise_schedule(
    num_train_timesteps: int,
    beta_start: float,
    beta_end: float,
    beta_schedule: str,
    trained_betas: np.ndarray | list[float] | None,
    prediction_type: str,
    least: int = 1,
):
    """Raises a `ValueError` or a `TypeError` unless a scheduler's arguments describe a noise schedule."""
    if type(num_train_timesteps) is not int:
        raise TypeError(f"`num_train_timesteps` expects a whole number, got {num_train_timesteps!r}.")
    if num_train_timesteps < least:
        raise ValueError(f"`num_train_timesteps` expects at least {least}, got {num_train_timesteps}.")
    choices = ["epsilon", "sample", "v_prediction"]
    if prediction_type not in choices:
        raise ValueError(f"`prediction_type` expects one of {choices}, got {prediction_type!r}.")
    if trained_betas is not None:
        try:
            betas = torch.as_tensor(trained_betas, dtype=torch.float32)
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"`trained_betas` expects a list of numbers, got {trained_betas!r}.") from error
        if betas.shape != (num_train_timesteps,):
            raise ValueError(
                f"`trained_betas` expects `num_train_timesteps`, {num_train_timesteps}, numbers, got the shape "
                f"{tuple(betas.shape)}."
            )
        if not ((betas > 0) & (betas <= 1)).all():  # also where one is NaN
            low, high = betas.aminmax()
            raise ValueError(f"`trained_betas` expects numbers in (0, 1], got numbers from {low:.4g} to {high:.4g}.")
        return
    choices = ["linear", "scaled_linear", "squaredcos_cap_v2"]
    if beta_schedule not in choices:
        raise ValueError(f"`beta_schedule` expects one of {choices}, got {beta_schedule!r}.")
    if beta_schedule != "squaredcos_cap_v2":  # which has betas of its own
        for name, value in (("beta_start", beta_start), ("beta_end", beta_end)):
            if not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ValueError(f"`{name}` expects a number in (0, 1), got {value!r}.")


class DiffSCMBELMScheduler(SchedulerMixin, ConfigMixin):
    r"""
    Moves between image and noise that are inverted exactly, at any number of steps and whatever the network does, for
    one evaluation each: the optimal bidirectional explicit linear multistep method, O-BELM ([Wang et al.,
    2024](https://huggingface.co/papers/2410.07273)).

    With `z = x / sqrt(abar)` and the noise level `n = sqrt((1 - abar) / abar)` the diffusion's ordinary differential
    equation is `dz/dn = epsilon`, and three samples at consecutive levels are tied, to second order, by the network's
    output at the middle one,

        z_next = r^2 * z_last + (1 - r^2) * z + (1 + r) * h_next * epsilon(z),  r = h_next / h_last,

    with `h` the steps of `n`. The equation is the same in both directions, so that the way up (`reverse`) and the way
    down meet the same samples, to rounding. The price is a state of two samples, the last one and the current one,
    which [`scale_model_input`](`DiffSCMBELMScheduler.scale_model_input`) takes out for the network. A way that starts
    from a single sample makes its first move by DDIM. [`finish`](`DiffSCMBELMScheduler.finish`) turns the state that
    the way up ends with into the one that the way down starts from.

    The levels are the clean image and, evenly, timesteps up to the last one; `num_inference_steps` is the number of
    moves between them. With few steps, errors of the lowest moves are blown up on the way to the highest, and shrink
    again on the way back: the round trip holds, but the noise is no longer normally distributed.

    Args:
        num_train_timesteps (`int`, defaults to 1000):
            The number of diffusion steps that the network was trained with.
        beta_start (`float`, defaults to 0.0001):
            The first `beta`.
        beta_end (`float`, defaults to 0.02):
            The last `beta`.
        beta_schedule (`str`, defaults to `"linear"`):
            How the betas run from the first to the last: `"linear"`, `"scaled_linear"` or `"squaredcos_cap_v2"`.
        trained_betas (`np.ndarray` or `list[float]`, *optional*):
            The betas themselves, instead of `beta_start`, `beta_end` and `beta_schedule`.
        prediction_type (`str`, defaults to `"epsilon"`):
            What the network predicts: `"epsilon"`, `"sample"` or `"v_prediction"`.
        reverse (`bool`, defaults to `False`):
            Whether the moves lead up, from the image to its exogenous noise.
        rescale_betas_zero_snr (`bool`, defaults to `False`):
            Whether to rescale the betas so that the last level is pure noise. It must be `False`, as `z` and `n` are
            infinite there; it is an argument so that the configuration of a scheduler that does is refused.

    Raises:
        TypeError: If `num_train_timesteps` is not an integer.
        ValueError: If an argument is unknown or out of range, or if the betas reach pure noise.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 2
    is_invertible = True
    # How abduction's moves can be made: the scheduler knows one way only.
    abductions = ()

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        prediction_type: str = "epsilon",
        reverse: bool = False,
        rescale_betas_zero_snr: bool = False,
    ):
        check_noise_schedule(
            num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, prediction_type, self.order
        )
        if type(reverse) is not bool:
            raise TypeError(f"`reverse` expects `True` or `False`, got {reverse!r}.")
        if rescale_betas_zero_snr is not False:
            raise ValueError(
                f"`rescale_betas_zero_snr` expects `False`, got {rescale_betas_zero_snr!r}: the last level would be "
                "pure noise, where the moves, made in `x / sqrt(abar)` and `sqrt((1 - abar) / abar)`, divide by zero."
            )
        self.alphas_cumprod = DDIMScheduler(
            num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas
        ).alphas_cumprod
        if self.alphas_cumprod[-1] == 0:  # by rounding
            given = "`trained_betas`" if trained_betas is not None else "`beta_start` and `beta_end`"
            raise ValueError(f"{given} expects a last level with a trace of the image, got pure noise.")

        # set by `set_timesteps`
        self.num_inference_steps = None
        self.timesteps = None
        self.levels = None

    def inverse(self) -> "DiffSCMBELMScheduler":
        """Returns the scheduler that makes these moves the other way."""
        return self.from_config(self.config, reverse=not self.config.reverse)

    def check_inverse(self, inverse_scheduler: SchedulerMixin):
        """Raises a `ValueError` if this scheduler does not lead down, or `inverse_scheduler` not the same way up."""
        if [scheduler.config.get("reverse") for scheduler in (self, inverse_scheduler)] != [False, True]:
            raise ValueError(
                "`scheduler` and `inverse_scheduler` expect a DiffSCMBELMScheduler with `reverse=False` and one with "
                f"`reverse=True`, got {type(self).__name__} and {type(inverse_scheduler).__name__} with "
                f"{self.config.reverse} and {inverse_scheduler.config.get('reverse')}."
            )
        for name in ("num_train_timesteps", "prediction_type"):
            if self.config[name] != inverse_scheduler.config[name]:
                raise ValueError(
                    f"`inverse_scheduler` expects `scheduler`'s moves, whose `{name}` is {self.config[name]!r}, got "
                    f"{inverse_scheduler.config[name]!r}. Make it with `scheduler.inverse()`."
                )
        if not torch.equal(self.alphas_cumprod, inverse_scheduler.alphas_cumprod):
            raise ValueError("`inverse_scheduler` expects `scheduler`'s betas, got others.")

    def check_num_moves(self, num_moves: int):
        """Raises a `ValueError` if so many of the moves that `set_timesteps` has set cannot be made."""
        if type(num_moves) is not int or not self.order <= num_moves <= self.num_inference_steps:
            raise ValueError(
                f"`num_moves` expects {self.order}, as a move needs two samples, to {self.num_inference_steps}, got "
                f"{num_moves!r}: raise `num_inference_steps` or `strength`."
            )

    def start(
        self, sample: torch.Tensor, num_moves: int | None = None, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """
        Begins a way: up, from the image, or down, from exogenous noise.

        Args:
            sample (`torch.Tensor`):
                The image or noise that is drawn, `(batch_size, num_channels, height, width)`, or the two samples that
                abduction ended with, `(batch_size, 2, num_channels, height, width)`.
            num_moves (`int`, *optional*):
                How many moves lie between the image and the noise. Default: all.
            noise (`torch.Tensor`, *optional*):
                Must be `None`: a way that begins above the image has not the two samples that lead back to it.

        Returns:
            `tuple[torch.Tensor, list[int]]`: The state and the timesteps of the moves, one less where two samples are
            given: the second is where the first move would have led.

        Raises:
            ValueError: If `sample` has another shape, if `num_moves` is out of range, or if `noise` is given.
        """
        if noise is not None:
            raise ValueError(
                f"`noise` expects `None`, as {type(self).__name__} starts from the image itself, got a draw."
            )
        timesteps = self.timesteps.tolist()
        num_moves = len(timesteps) if num_moves is None else num_moves
        self.check_num_moves(num_moves)
        if self.config.reverse:
            return sample, timesteps[:num_moves]
        if not torch.is_tensor(sample):
            raise TypeError(f"`exogenous_noise` expects a tensor, got {type(sample).__name__}.")
        if sample.ndim == 5 and sample.shape[1] == 2:
            return sample, timesteps[-num_moves:][1:]
        if sample.ndim != 4 or num_moves < len(timesteps):
            raise ValueError(
                "`exogenous_noise` expects the two samples that abduction ended with, of shape (batch_size, 2, "
                "num_channels, height, width), or, for all moves, drawn noise of shape (batch_size, num_channels, "
                f"height, width), got {tuple(sample.shape)} for {num_moves} of {len(timesteps)} moves."
            )
        return sample.float(), timesteps

    def finish(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns what the way ended with: the image or, of the way up, the two samples that lead down from there."""
        return sample.flip(1) if self.config.reverse else self.scale_model_input(sample)

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None):
        """
        Sets the moves and `timesteps`, what the network is given at the start of each.

        `levels`, a list of `num_inference_steps + 1` numbers, holds `abar` of the samples that they lead through.

        Args:
            num_inference_steps (`int`):
                The number of moves, between 2 and `num_train_timesteps`.
            device (`str` or `torch.device`, *optional*):
                Where `timesteps` goes.

        Raises:
            TypeError: If `num_inference_steps` is not an integer.
            ValueError: If it is out of range.
        """
        num_train_timesteps = self.config.num_train_timesteps
        if type(num_inference_steps) is not int:
            raise TypeError(f"`num_inference_steps` expects a whole number, got {num_inference_steps!r}.")
        if not self.order <= num_inference_steps <= num_train_timesteps:
            raise ValueError(
                f"`num_inference_steps` expects {self.order}, as a move takes two samples, to `num_train_timesteps`, "
                f"{num_train_timesteps}, got {num_inference_steps}."
            )
        upwards = [round(i * num_train_timesteps / num_inference_steps) - 1 for i in range(1, num_inference_steps + 1)]
        levels = [1.0, *self.alphas_cumprod[upwards].double().tolist()]
        # The clean image is given timestep 0.
        timesteps = [0, *upwards[:-1]] if self.config.reverse else upwards[::-1]

        self.num_inference_steps = num_inference_steps
        self.levels = levels if self.config.reverse else levels[::-1]
        self.timesteps = torch.tensor(timesteps, device=device)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """
        Takes the current sample, which the network evaluates, out of the state.

        Args:
            sample (`torch.Tensor`):
                A state of two samples, or a single sample, which is returned as it is.
            timestep (`int` or `torch.Tensor`, *optional*):
                The current timestep.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_channels, height, width)`: The current sample.
        """
        return sample[:, -1] if sample.ndim == 5 else sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> DiffSCMBELMSchedulerOutput | tuple[torch.Tensor]:
        """
        Makes the next move.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The network's output for the current sample and `timestep`.
            timestep (`int` or `torch.Tensor` with one element):
                The current one of `timesteps`.
            sample (`torch.Tensor`):
                The state, shape `(batch_size, 2, num_channels, height, width)`, or a single sample, shape
                `(batch_size, num_channels, height, width)`, to start from.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DiffSCMBELMSchedulerOutput`] or a tuple.

        Returns:
            [`DiffSCMBELMSchedulerOutput`] or `tuple`: the next state.

        Raises:
            ValueError:
                If `set_timesteps` was not called, if `sample` is neither a single sample nor a state of two, if
                `timestep` is not one of `timesteps`, if a single sample is given to another than the first, or two
                samples to the first, or if `model_output` and `sample` differ in shape.
        """
        if self.num_inference_steps is None:
            raise ValueError("`step` expects timesteps, got none: call `set_timesteps` first.")
        for name, value in (("model_output", model_output), ("sample", sample)):
            if not torch.is_tensor(value):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if sample.ndim != 4 and (sample.ndim != 5 or sample.shape[1] != 2):
            raise ValueError(
                "`sample` expects the shape (batch_size, num_channels, height, width) or, with two samples, "
                f"(batch_size, 2, num_channels, height, width), got {tuple(sample.shape)}."
            )
        # The way up blows rounding up, the way down takes it back: float64 keeps it small in between.
        sample = sample if sample.device.type == "mps" else sample.double()  # which has no float64
        current = self.scale_model_input(sample)
        if model_output.shape != current.shape:
            raise ValueError(
                f"`model_output` expects the current sample's shape, {tuple(current.shape)}, got "
                f"{tuple(model_output.shape)}."
            )
        # Where each timestep has a move of its own, the clean image shares 0 with the level above it: what is given,
        # one sample or two, tells the first move from the others.
        timesteps = self.timesteps.tolist()
        candidates = timesteps[:1] if sample.ndim == 4 else timesteps[1:]
        if timestep not in candidates:
            raise ValueError(
                f"`timestep` expects {timesteps[0]} with a single sample and one of the later `timesteps` with two, "
                f"got {timestep} with a sample of shape {tuple(sample.shape)}."
            )
        index = 0 if sample.ndim == 4 else timesteps.index(timestep, 1)

        # 1. The noise that `model_output` stands for, read at the level that the network was told
        alpha, sigma = self._alpha_sigma(self.alphas_cumprod[timesteps[index]].item())
        if self.config.prediction_type == "epsilon":
            pred_epsilon = model_output
        elif self.config.prediction_type == "sample":
            pred_epsilon = (current - alpha * model_output) / sigma
        else:
            pred_epsilon = alpha * model_output + sigma * current

        # 2. The next sample, in the scale of z
        alpha, sigma = self._alpha_sigma(self.levels[index])
        alpha_next, sigma_next = self._alpha_sigma(self.levels[index + 1])
        step_next = sigma_next / alpha_next - sigma / alpha
        if sample.ndim == 5:
            alpha_last, sigma_last = self._alpha_sigma(self.levels[index - 1])
            ratio = step_next / (sigma / alpha - sigma_last / alpha_last)
            next_sample = (
                ratio**2 / alpha_last * sample[:, 0]
                + (1 - ratio**2) / alpha * current
                + (1 + ratio) * step_next * pred_epsilon
            )
        else:
            next_sample = current / alpha + step_next * pred_epsilon

        state = torch.stack([current, alpha_next * next_sample], dim=1)
        if not return_dict:
            return (state,)
        return DiffSCMBELMSchedulerOutput(prev_sample=state)

    @staticmethod
    def _alpha_sigma(alpha_prod: float) -> tuple[float, float]:
        """Weights of image and noise in a sample, `x = alpha * x_0 + sigma * epsilon`."""
        return alpha_prod**0.5, (1 - alpha_prod) ** 0.5

    def __len__(self) -> int:
        return self.config.num_train_timesteps

# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import BaseOutput


@dataclass
class DiffSCMDDIMInverseSchedulerOutput(BaseOutput):
    """
    Output of [`DiffSCMDDIMInverseScheduler.step`].

    Args:
        prev_sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The sample at the move's destination, one noise level *up*. The name is the one that all diffusers loops
            read: it is the next input of the network.
        pred_original_sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The clean sample `x_0` that the network's output stands for in this move.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


@dataclass
class DiffSCMDDIMInverseSchedulerSolution(BaseOutput):
    """
    Output of [`DiffSCMDDIMInverseScheduler.solve`].

    Args:
        prev_sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The sample at the move's destination, one noise level *up*.
        model_output (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
            The network's output there.
        residual (`torch.Tensor` of shape `(batch_size,)`):
            Mean absolute difference between `prev_sample` and the explicit move with `model_output`; 0 is exact.
        num_evaluations (`torch.Tensor` of shape `(batch_size,)`):
            How often the network was evaluated, int64.
    """

    prev_sample: torch.Tensor
    model_output: torch.Tensor
    residual: torch.Tensor
    num_evaluations: torch.Tensor


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


class DiffSCMDDIMInverseScheduler(SchedulerMixin, ConfigMixin):
    """
    Abduction's scheduler: the deterministic moves of a [`DDIMScheduler`] in reverse, from an image up to its
    exogenous noise (Sanchez & Tsaftaris 2022, Alg. 3, whose last term is misprinted: it is `sqrt(1 - abar) * eps`).

    `DiffSCMDDIMInverseScheduler.from_config(ddim.config)` pairs with that `ddim`: every step walks one of its moves
    upwards, the lowest one first, and solves it for the sample that `ddim` would have come from. A network output
    that is used in `step` and again in `ddim.step` (`eta=0`, no clipping) therefore leads back to the same sample,
    whatever it is. A round trip is inexact only as far as the network answers differently in the two directions.

    On the way up the sample that `ddim` evaluates the network at is not known yet, so an exact inverse is implicit:
    [`solve`](`DiffSCMDDIMInverseScheduler.solve`) finds it by iteration. [`step`](`DiffSCMDDIMInverseScheduler.step`)
    is explicit and offers two approximations, both of first order in the step size; see `evaluate_at`.

    `ddim`'s stride is always `num_train_timesteps // num_inference_steps`, also where its timesteps lie farther apart
    (`linspace`, and `trailing` when the number of steps doesn't divide `num_train_timesteps`). The moves are its moves
    there too, and the pair closes, but each move starts at a lower level than the last one ended at;
    [`levels_are_consecutive`](`DiffSCMDDIMInverseScheduler.levels_are_consecutive`) tells.

    `clip_sample` and `thresholding` of `ddim` are left out on purpose: an image is to be recovered from its exogenous
    noise, and clipping makes different images share one.

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
        set_alpha_to_one (`bool`, defaults to `True`):
            Whether the level below timestep 0 is the clean image (`alphas_cumprod` 1), or timestep 0's own level.
        steps_offset (`int`, defaults to 0):
            Added to the timesteps of `"leading"` and `"quadratic"` spacing.
        prediction_type (`str`, defaults to `"epsilon"`):
            What the network predicts: `"epsilon"`, `"sample"` or `"v_prediction"`.
        timestep_spacing (`str`, defaults to `"leading"`):
            `"leading"`, `"trailing"` or `"linspace"`, see Table 2 of https://huggingface.co/papers/2305.08891, or
            `"quadratic"`, the moves of [`DiffSCMDDIMScheduler`].
        rescale_betas_zero_snr (`bool`, defaults to `False`):
            Whether to rescale the betas so that the last level is pure noise. `"epsilon"` says nothing about the image
            there; such steps take `"sample"` or `"v_prediction"`.
        evaluate_at (`str`, defaults to `"destination"`):
            The timestep that the network is given with the sample at a move's source. `"source"` is the level that the
            sample has, the explicit Euler method's choice and the paper's (Alg. 3); the clean image is given timestep
            0. `"destination"` is the level that the move leads to, diffusers' choice in `DDIMInverseScheduler`: the
            same timestep as on the way down.
        clip_abduction (`bool`, defaults to `False`):
            Whether to clip each predicted clean sample to `[-clip_sample_range, clip_sample_range]` and to re-derive
            the noise from it. This loses information: the round trip no longer closes.
        clip_sample_range (`float`, defaults to 1.0):
            The largest magnitude that `clip_abduction` lets pass.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    # How abduction's moves can be made.
    abductions = ("source", "destination", "implicit")

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
        evaluate_at: str = "destination",
        clip_abduction: bool = False,
        clip_sample_range: float = 1.0,
    ):
        check_noise_schedule(num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, prediction_type)
        for name, value, choices in (
            ("timestep_spacing", timestep_spacing, ["leading", "trailing", "linspace", "quadratic"]),
            ("evaluate_at", evaluate_at, ["source", "destination"]),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` expects one of {choices}, got {value!r}.")
        for name, value in (
            ("set_alpha_to_one", set_alpha_to_one),
            ("rescale_betas_zero_snr", rescale_betas_zero_snr),
            ("clip_abduction", clip_abduction),
        ):
            if type(value) is not bool:
                raise TypeError(f"`{name}` expects `True` or `False`, got {value!r}.")
        if type(steps_offset) is not int or not 0 <= steps_offset < num_train_timesteps:
            raise ValueError(
                f"`steps_offset` expects a whole number from 0 to {num_train_timesteps - 1}, got {steps_offset!r}."
            )
        if not isinstance(clip_sample_range, (int, float)) or not 0 < clip_sample_range < float("inf"):
            raise ValueError(f"`clip_sample_range` expects a finite number above 0, got {clip_sample_range!r}.")

        # It says what the levels are and, but for "quadratic", the timesteps of the moves that are reversed.
        self._ddim = DDIMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            set_alpha_to_one=set_alpha_to_one,
            steps_offset=steps_offset,
            timestep_spacing=timestep_spacing,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self.alphas_cumprod = self._ddim.alphas_cumprod
        self.final_alpha_cumprod = self._ddim.final_alpha_cumprod

        # set by `set_timesteps`
        self.num_inference_steps = None
        self.timesteps = None
        self.source_alphas_cumprod = None
        self.destination_alphas_cumprod = None
        self._destination_timesteps = None
        self._begin_index = None
        self._step_index = None

    @property
    def levels_are_consecutive(self) -> bool:
        """
        Whether each move of the current schedule starts at the level that the move before it led to.
        """
        if self.num_inference_steps is None:
            raise ValueError("`levels_are_consecutive` expects timesteps, got none: call `set_timesteps` first.")
        return torch.equal(self.source_alphas_cumprod[1:], self.destination_alphas_cumprod[:-1])

    @property
    def begin_index(self) -> int | None:
        """
        The index of the move that the first call of `step` makes. `None`: found from its timestep.
        """
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """
        The index of the move that the next call of `step` makes. `None` before the first one.
        """
        return self._step_index

    def set_begin_index(self, begin_index: int = 0):
        """
        Sets the move that the next call of `step` makes; a move can be made again this way.

        Args:
            begin_index (`int`, defaults to 0):
                The index of the move, counted from the clean image.
        """
        if type(begin_index) is not int or begin_index < 0:
            raise ValueError(f"`begin_index` expects a whole number of at least 0, got {begin_index!r}.")
        self._begin_index = begin_index
        self._step_index = None

    def index_for_timestep(self, timestep: int | torch.Tensor) -> int:
        """
        Finds the first move at which the network is given `timestep`.

        Args:
            timestep (`int` or `torch.Tensor`):
                One of `timesteps`.

        Returns:
            `int`: The index of the move.

        Raises:
            ValueError: If `timestep` is not one of `timesteps`.
        """
        timesteps = self.timesteps.tolist()
        if timestep not in timesteps:
            raise ValueError(f"`timestep` expects one of `scheduler.timesteps`, {timesteps}, got {timestep}.")
        return timesteps.index(timestep)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """
        Returns `sample` as it is, for loops that serve schedulers which scale the network's input.

        Args:
            sample (`torch.Tensor`):
                The network's input.
            timestep (`int` or `torch.Tensor`, *optional*):
                The current timestep.

        Returns:
            `torch.Tensor`: `sample`.
        """
        return sample

    def start(
        self, sample: torch.Tensor, num_moves: int | None = None, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[int]]:
        """
        Begins a way up from the image.

        A pixel that never varies tells nothing of its noise, and the moves from the clean image keep it at a point
        that is untypical of the noise. With `noise` the way begins from a draw of the lowest level, `q(x_t | x_0)`:
        it then leads to a draw of the exogenous noise from its posterior given the image.

        Args:
            sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The image, in [-1, 1].
            num_moves (`int`, *optional*):
                How many of the first moves are made. Default: all.
            noise (`torch.Tensor`, *optional*):
                Standard normal noise like `sample`. The draw with it stands in for the first move.

        Returns:
            `tuple[torch.Tensor, list[int]]`: The sample and the timesteps of the moves.

        Raises:
            ValueError: If `num_moves` is out of range, if there is one move only, which `noise` stands in for, or if
                the moves do not meet (see `levels_are_consecutive`).
        """
        timesteps = self.timesteps.tolist()
        num_moves = len(timesteps) if num_moves is None else num_moves
        least = 1 if noise is None else 2
        if len(timesteps) < least:
            raise ValueError(
                "`num_inference_steps` expects at least 2 where the lowest level is drawn, as with `num_draws`, got "
                f"{len(timesteps)}."
            )
        if type(num_moves) is not int or not least <= num_moves <= len(timesteps):
            raise ValueError(
                f"`num_moves` expects {least} to {len(timesteps)}, got {num_moves!r}: raise `num_inference_steps` or "
                "`strength`."
            )
        if not self.levels_are_consecutive:
            raise ValueError(
                f"`num_inference_steps` {self.num_inference_steps} with `timestep_spacing` "
                f"{self.config.timestep_spacing!r} makes DDIM's moves end at other noise levels than the next ones "
                "start from. Use `timestep_spacing='leading'`, or 'trailing' with a number of steps that divides "
                f"{self.config.num_train_timesteps}."
            )
        if noise is None:
            self.set_begin_index(0)
            return sample, timesteps[:num_moves]
        alpha_prod = self.destination_alphas_cumprod[0].item()
        self.set_begin_index(1)
        return alpha_prod**0.5 * sample + (1 - alpha_prod) ** 0.5 * noise, timesteps[1:num_moves]

    def finish(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the exogenous noise that the way up ended with: `sample`."""
        return sample

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: str | torch.device | None = None,
        evaluate_at: str | None = None,
    ):
        """
        Sets the moves, from the clean image upwards, and `timesteps`, what the network is given at each of them.

        `source_alphas_cumprod` and `destination_alphas_cumprod`, two `torch.Tensor` of shape `(num_inference_steps,)`
        on the CPU, hold the levels that the moves start from and lead to.

        Args:
            num_inference_steps (`int`):
                The number of moves, between 1 and `num_train_timesteps`.
            device (`str` or `torch.device`, *optional*):
                Where `timesteps` goes.
            evaluate_at (`str`, *optional*):
                `"source"` or `"destination"`, or `"implicit"`, which gives the network the destination's timestep as
                [`solve`](`DiffSCMDDIMInverseScheduler.solve`) expects. Default: the configuration's.

        Raises:
            TypeError: If `num_inference_steps` is not an integer.
            ValueError:
                If `num_inference_steps` is out of range, if `evaluate_at` is unknown, or if [`DDIMScheduler`] has a
                move that cannot be made or reversed: timesteps that the network was not trained for, a prediction of
                `"epsilon"` from pure noise, a `"v_prediction"` from pure noise to the clean image.
        """
        num_train_timesteps = self.config.num_train_timesteps
        if type(num_inference_steps) is not int:
            raise TypeError(f"`num_inference_steps` expects a whole number, got {num_inference_steps!r}.")
        if not 1 <= num_inference_steps <= num_train_timesteps:
            raise ValueError(
                f"`num_inference_steps` expects 1 to `num_train_timesteps`, {num_train_timesteps}, got "
                f"{num_inference_steps}."
            )

        if evaluate_at not in (None, *self.abductions):
            raise ValueError(f"`evaluate_at` expects one of {', '.join(self.abductions)}, got {evaluate_at!r}.")

        if self.config.timestep_spacing == "quadratic":
            # As in DiffSCMDDIMScheduler, which this file, copied into checkpoints by itself, cannot import.
            index = np.arange(num_inference_steps)
            last = num_train_timesteps - num_train_timesteps // num_inference_steps
            timesteps = (last * (index / max(num_inference_steps - 1, 1)) ** 2).round().astype(np.int64)
            timesteps = np.maximum.accumulate(timesteps - index) + index + self.config.steps_offset
            destinations = torch.from_numpy(timesteps)
            sources = torch.cat([torch.tensor([-1]), destinations[:-1]])
        else:
            self._ddim.set_timesteps(num_inference_steps)
            destinations = self._ddim.timesteps.flip(0)
            sources = destinations - num_train_timesteps // num_inference_steps

        # A large `steps_offset`, or rounding in `trailing`.
        if destinations[0] < 0 or destinations[-1] >= len(self.alphas_cumprod):
            raise ValueError(
                f"`num_inference_steps`={num_inference_steps} with `timestep_spacing`="
                f"{self.config.timestep_spacing!r} and `steps_offset`={self.config.steps_offset} makes `DDIMScheduler`"
                f" use timesteps from {destinations[0]} to {destinations[-1]}, but the network takes those from 0 to"
                f" {len(self.alphas_cumprod) - 1}. Use another number of steps, or a smaller `steps_offset`."
            )

        # Below timestep 0 lies the level `final_alpha_cumprod`, which has no timestep of its own.
        labels = sources.clamp(min=0)
        source_alphas_cumprod = torch.where(sources >= 0, self.alphas_cumprod[labels], self.final_alpha_cumprod)
        destination_alphas_cumprod = self.alphas_cumprod[destinations]

        from_pure_noise = destination_alphas_cumprod == 0
        if self.config.prediction_type == "epsilon" and from_pure_noise.any():
            raise ValueError(
                "`prediction_type` expects 'sample' or 'v_prediction' for a schedule that reaches pure noise "
                f"(`rescale_betas_zero_snr`={self.config.rescale_betas_zero_snr}), got 'epsilon': there the noise "
                "says nothing about the image and `DDIMScheduler` divides by zero."
            )
        if self.config.prediction_type == "v_prediction" and (from_pure_noise & (source_alphas_cumprod == 1)).any():
            raise ValueError(
                f"`num_inference_steps`={num_inference_steps} makes one move between pure noise and the clean image."
                " With `prediction_type`='v_prediction' it forgets the noise and cannot be reversed. Use more steps."
            )

        self.num_inference_steps = num_inference_steps
        self.source_alphas_cumprod = source_alphas_cumprod
        self.destination_alphas_cumprod = destination_alphas_cumprod
        evaluate_at = self.config.evaluate_at if evaluate_at is None else evaluate_at
        self.timesteps = (labels if evaluate_at == "source" else destinations).to(device)
        self._evaluated_at_source = evaluate_at == "source"
        self._destination_timesteps = destinations
        self._begin_index = None
        self._step_index = None

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> DiffSCMDDIMInverseSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """
        Makes the next move upwards: finds the sample from which [`DDIMScheduler`] would arrive at `sample`, given this
        same `model_output`. A velocity that was predicted at the source is read there, since it turns with the level:
        the clean sample and the noise are what stay the same.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The network's output for `sample` and `timestep`.
            timestep (`int` or `torch.Tensor` with one element):
                The current one of `timesteps`.
            sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The sample at the move's source. Its dtype is kept.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DiffSCMDDIMInverseSchedulerOutput`] or a tuple.

        Returns:
            [`DiffSCMDDIMInverseSchedulerOutput`] or `tuple`: `prev_sample` and `pred_original_sample`.

        Raises:
            ValueError:
                If `set_timesteps` was not called, all moves have been made, `timestep` is not the current one, or
                `model_output` and `sample` differ in shape.
        """
        if self.num_inference_steps is None:
            raise ValueError("`step` expects timesteps, got none: call `set_timesteps` first.")
        for name, value in (("model_output", model_output), ("sample", sample)):
            if not torch.is_tensor(value):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if model_output.shape != sample.shape:
            message = (
                f"`model_output` expects `sample`'s shape, {tuple(sample.shape)}, got {tuple(model_output.shape)}."
            )
            if model_output.ndim > 1 and model_output.shape[1] == 2 * sample.shape[1]:
                message += " Split off a learned sigma, the second half of the channels, first."
            raise ValueError(message)

        index = self._take_index(timestep)
        prev_sample, pred_original_sample = self._move(model_output, sample, index, self._evaluated_at_source)
        if not return_dict:
            return (prev_sample, pred_original_sample)
        return DiffSCMDDIMInverseSchedulerOutput(prev_sample=prev_sample, pred_original_sample=pred_original_sample)

    @torch.no_grad()
    def solve(
        self,
        network: Callable[..., torch.Tensor],
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        model_output: torch.Tensor | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 40,
        condition: Any = None,
    ) -> DiffSCMDDIMInverseSchedulerSolution:
        r"""
        Makes the next move upwards exactly: finds the sample from which [`DDIMScheduler`] arrives at `sample` by the
        network's own output, the solution of `x = move(network(x))` with the explicit move of
        [`step`](`DiffSCMDDIMInverseScheduler.step`).

        The iteration starts from an explicit move and makes such moves, every third accelerated by Anderson's method
        with three past iterates ([Banerjee, Suryanarayana & Pask, 2016](https://arxiv.org/abs/1512.01604)), for each
        image by itself: images that have converged leave the batch. Plain iteration is not always a contraction when
        the steps are few, and an acceleration of every move goes astray next to the clean image, where networks are
        far from linear. The iterate with the smallest residual is returned, so it is never further from a solution
        than the start.

        Args:
            network (`Callable`):
                Maps samples of this level and a timestep to outputs, both of shape `(n, num_channels, height, width)`.
            timestep (`int` or `torch.Tensor` with one element):
                The current one of `timesteps`.
            sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The sample at the move's source. Its dtype is kept.
            model_output (`torch.Tensor`, *optional*):
                What the first explicit move is made with, the output that the last move ended with for instance.
                Without it the network is evaluated once more, at `sample`.
            tolerance (`float`, defaults to 1e-6):
                The residual at which an image has converged: mean absolute difference, in `sample`'s units. The
                residuals of many moves add up, so a schedule of 1000 steps needs one near the rounding of float32.
            max_iterations (`int`, defaults to 40):
                The most evaluations of the network per image, besides the one without `model_output`.
            condition (`Any`, *optional*):
                Passed to `network` as its third argument; an index selects images, as in a tensor of class labels.

        Returns:
            [`DiffSCMDDIMInverseSchedulerSolution`]: the sample, the residual and the evaluations of each image.

        Raises:
            TypeError: If `max_iterations` is not an integer.
            ValueError:
                If `tolerance` is not positive, `max_iterations` is below 1, clipping is on, or for the reasons of
                [`step`](`DiffSCMDDIMInverseScheduler.step`).
        """
        if not isinstance(tolerance, (int, float)) or not 0 < tolerance < float("inf"):
            raise ValueError(f"`tolerance` expects a finite number above 0, got {tolerance!r}.")
        if type(max_iterations) is not int:
            raise TypeError(f"`max_iterations` expects a whole number, got {max_iterations!r}.")
        if max_iterations < 1:
            raise ValueError(f"`max_iterations` expects at least 1, got {max_iterations}.")
        if not callable(network):
            raise TypeError(f"`network` expects a function, got {type(network).__name__}.")
        if not torch.is_tensor(sample):
            raise TypeError(f"`sample` expects a tensor, got {type(sample).__name__}.")
        if self.config.clip_abduction:
            raise ValueError(
                "`clip_abduction` expects `False` for an exact inverse, got `True`: clipping loses information."
            )
        if self.num_inference_steps is None:
            raise ValueError("`solve` expects timesteps, got none: call `set_timesteps` first.")
        index = self._take_index(timestep)
        timestep = self._destination_timesteps[index].item()
        if self.config.prediction_type == "sample" and self.source_alphas_cumprod[index] == 1:
            raise ValueError(
                "`set_alpha_to_one` expects `False` for an exact inverse with `prediction_type`='sample', got `True`: "
                "DDIM's last move returns the network's output and forgets the sample that it came from."
            )

        num_evaluations = sample.new_zeros(len(sample), dtype=torch.int64)
        if model_output is None:
            model_output = network(sample, timestep, *(() if condition is None else (condition,)))
            num_evaluations += 1
        iterate, _ = self._move(model_output, sample, index)

        solution, solution_output = iterate.clone(), model_output.clone()
        residual = sample.new_full((len(sample),), float("inf"), dtype=torch.float32)
        active = torch.arange(len(sample), device=sample.device)
        history = []  # pairs of an iterate and its defect, move(network(x)) - x, for the active images
        for iteration in range(max_iterations):
            output = network(iterate, timestep, *(() if condition is None else (condition[active],)))
            num_evaluations[active] += 1
            defect = self._move(output, sample[active], index)[0] - iterate

            size = defect.abs().flatten(1).mean(1).float()
            better = size < residual[active]
            solution[active[better]] = iterate[better]
            solution_output[active[better]] = output[better]
            residual[active[better]] = size[better]

            # A defect that isn't finite (an iterate that ran away) ends the image's iteration as well.
            going_on = (size > tolerance) & size.isfinite()
            if not going_on.any():
                break
            active = active[going_on]
            history = [(x[going_on], d[going_on]) for x, d in [*history[-3:], (iterate, defect)]]
            iterate, defect = history[-1]
            iterate = self._accelerate(history) if iteration % 3 == 2 else iterate + defect

        return DiffSCMDDIMInverseSchedulerSolution(
            prev_sample=solution, model_output=solution_output, residual=residual, num_evaluations=num_evaluations
        )

    @staticmethod
    def _accelerate(history: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Anderson's next iterate: a combination of the past ones with the least defect, moved by that defect."""
        iterate, defect = history[-1]
        iterate_steps = torch.stack([(iterate - x).flatten(1) for x, _ in history[:-1]], dim=-1).double()
        defect_steps = torch.stack([(defect - d).flatten(1) for _, d in history[:-1]], dim=-1).double()
        gram = defect_steps.mT @ defect_steps
        # Steps that are nearly parallel leave the combination undetermined; a little weight decay settles it.
        gram += 1e-10 * torch.diag_embed(gram.diagonal(dim1=1, dim2=2)) + torch.finfo(gram.dtype).tiny * torch.eye(
            gram.shape[-1], dtype=gram.dtype, device=gram.device
        )
        weights = torch.linalg.solve(gram, defect_steps.mT @ defect.flatten(1).double()[..., None])
        change = defect.flatten(1) - ((iterate_steps + defect_steps) @ weights)[..., 0]
        return iterate + change.to(iterate.dtype).view_as(iterate)

    def _take_index(self, timestep: int | torch.Tensor) -> int:
        """Checks that it is `timestep`'s turn, returns the index of its move and counts the move as made."""
        if isinstance(timestep, torch.Tensor):
            timestep = timestep.item()
        if self._step_index is None:
            self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index
        if self._step_index >= self.num_inference_steps:
            raise ValueError(
                f"`step` expects at most {self.num_inference_steps} calls, got one more: call `set_timesteps` again."
            )
        if timestep != self.timesteps[self._step_index]:
            raise ValueError(
                f"`timestep` expects {self.timesteps[self._step_index]} at step {self._step_index}, got {timestep}."
            )
        self._step_index += 1
        return self._step_index - 1

    def _move(
        self, model_output: torch.Tensor, sample: torch.Tensor, index: int, evaluated_at_source: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The move `index` with the given output: the sample at its destination and the predicted clean sample."""
        # 1. The two levels. At each, sample = alpha * x_0 + sigma * epsilon, with alpha = sqrt(alphas_cumprod). The
        # square roots are float32 as in DDIMScheduler; as Python floats they then take part in float64 arithmetic.
        alpha_prod_source = self.source_alphas_cumprod[index]
        alpha_source = (alpha_prod_source**0.5).item()
        sigma_source = ((1 - alpha_prod_source) ** 0.5).item()
        alpha_prod_destination = self.destination_alphas_cumprod[index]
        alpha_destination = (alpha_prod_destination**0.5).item()
        sigma_destination = ((1 - alpha_prod_destination) ** 0.5).item()

        # 2. The clean sample and the noise that `model_output` stands for
        if self.config.prediction_type == "epsilon":
            pred_epsilon = model_output
            pred_original_sample = (sample - sigma_source * pred_epsilon) / alpha_source
            prev_sample = alpha_destination * pred_original_sample + sigma_destination * pred_epsilon
        elif self.config.prediction_type == "sample":
            pred_original_sample = model_output
            if sigma_source > 0:
                pred_epsilon = (sample - alpha_source * pred_original_sample) / sigma_source
            else:
                # DDIM's last move returns the predicted clean sample and forgets where it came from, so any noise
                # closes the round trip. Take the one that the network implied at the level it was told.
                alpha_prod = self.alphas_cumprod[self.timesteps[index]]
                pred_epsilon = sample - (alpha_prod**0.5).item() * pred_original_sample
                pred_epsilon = pred_epsilon / ((1 - alpha_prod) ** 0.5).item()
            prev_sample = alpha_destination * pred_original_sample + sigma_destination * pred_epsilon
        elif evaluated_at_source:
            pred_original_sample = alpha_source * sample - sigma_source * model_output
            pred_epsilon = sigma_source * sample + alpha_source * model_output
            prev_sample = alpha_destination * pred_original_sample + sigma_destination * pred_epsilon
        else:
            # DDIM reads x_0 and epsilon off the sample at the destination:
            #   sample = alpha_source * (alpha_destination * prev_sample - sigma_destination * v)
            #          + sigma_source * (sigma_destination * prev_sample + alpha_destination * v),
            # a rotation by the angle between the two levels. Solved for prev_sample:
            cos = alpha_source * alpha_destination + sigma_source * sigma_destination
            sin = alpha_source * sigma_destination - sigma_source * alpha_destination
            prev_sample = (sample + sin * model_output) / cos
            pred_original_sample = alpha_destination * prev_sample - sigma_destination * model_output
            pred_epsilon = sigma_destination * prev_sample + alpha_destination * model_output

        # 3. Clip, if asked to. A clean sample is at no level from which its noise could be derived again.
        if self.config.clip_abduction:
            clip_range = self.config.clip_sample_range
            pred_original_sample = pred_original_sample.clamp(-clip_range, clip_range)
            if sigma_source > 0:
                pred_epsilon = (sample - alpha_source * pred_original_sample) / sigma_source
            prev_sample = alpha_destination * pred_original_sample + sigma_destination * pred_epsilon

        return prev_sample.to(sample.dtype), pred_original_sample.to(sample.dtype)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.IntTensor
    ) -> torch.Tensor:
        """
        Samples the diffusion process at the given timesteps, exactly as [`DDIMScheduler.add_noise`] does.

        Args:
            original_samples (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Clean samples.
            noise (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Standard normal noise.
            timesteps (`torch.IntTensor` of shape `(batch_size,)`):
                A timestep per sample, between 0 and `num_train_timesteps - 1`.

        Returns:
            `torch.Tensor`: The noisy samples.
        """
        return self._ddim.add_noise(original_samples, noise, timesteps)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

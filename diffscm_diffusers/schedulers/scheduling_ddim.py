# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import itertools

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor


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


class DiffSCMDDIMScheduler(DDIMScheduler):
    r"""
    A [`DDIMScheduler`] that also knows `timestep_spacing="quadratic"`: timesteps that lie densest at low noise
    ([Song et al., 2021](https://huggingface.co/papers/2010.02502), App. D.2),

        t_i = round(last * (i / (N - 1))^2),  i = 0, ..., N - 1,

    at least 1 apart, with `last = num_train_timesteps - num_train_timesteps // N`, and `steps_offset` added as in
    `"leading"`. Every move leads to the next timestep's level, the last one to `final_alpha_cumprod`.

    With few evenly spaced steps the lowest moves span so large a ratio of noise levels that hardly any of the noise
    survives them. There are images that they don't lead to, and abduction cannot be exact for those. Here the ratios
    stay moderate, and implicit abduction ([`DiffSCMDDIMInverseScheduler.solve`]) recovers images at few steps as well.

    The arguments are those of [`DDIMScheduler`], and with its own spacings it is one.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument is unknown or out of its range, NaN for instance.
    """

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        clip_sample: bool = True,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ):
        check_noise_schedule(num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, prediction_type)
        choices = ["leading", "trailing", "linspace", "quadratic"]
        if timestep_spacing not in choices:
            raise ValueError(f"`timestep_spacing` expects one of {choices}, got {timestep_spacing!r}.")
        for name, value in (
            ("clip_sample", clip_sample),
            ("set_alpha_to_one", set_alpha_to_one),
            ("thresholding", thresholding),
            ("rescale_betas_zero_snr", rescale_betas_zero_snr),
        ):
            if type(value) is not bool:
                raise TypeError(f"`{name}` expects `True` or `False`, got {value!r}.")
        if type(steps_offset) is not int or not 0 <= steps_offset < num_train_timesteps:
            raise ValueError(
                f"`steps_offset` expects a whole number from 0 to {num_train_timesteps - 1}, got {steps_offset!r}."
            )
        for name, value in (("clip_sample_range", clip_sample_range), ("sample_max_value", sample_max_value)):
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` expects a finite number above 0, got {value!r}.")
        if not isinstance(dynamic_thresholding_ratio, float) or not 0 < dynamic_thresholding_ratio <= 1:
            raise ValueError(
                f"`dynamic_thresholding_ratio` expects a number in (0, 1], got {dynamic_thresholding_ratio!r}."
            )
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            clip_sample=clip_sample,
            set_alpha_to_one=set_alpha_to_one,
            steps_offset=steps_offset,
            prediction_type=prediction_type,
            thresholding=thresholding,
            dynamic_thresholding_ratio=dynamic_thresholding_ratio,
            clip_sample_range=clip_sample_range,
            sample_max_value=sample_max_value,
            timestep_spacing=timestep_spacing,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )

    @classmethod
    def from_noise_schedule(cls, scheduler: SchedulerMixin) -> "DiffSCMDDIMScheduler":
        """
        Makes one of the noise schedule that a network was trained with, without `clip_sample` and `thresholding`.

        Args:
            scheduler ([`SchedulerMixin`]):
                A scheduler of betas, such as [`DDPMScheduler`].

        Raises:
            ValueError: If `scheduler` has no betas.
        """
        if "beta_schedule" not in getattr(scheduler, "config", ()):
            raise ValueError(f"`scheduler` expects a noise schedule of betas, got a {type(scheduler).__name__}.")
        settings = {"clip_sample": False, "thresholding": False}
        if scheduler.config.beta_schedule not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
            # DDPMScheduler knows more of them than DDIMScheduler.
            settings |= {"beta_schedule": "linear", "trained_betas": scheduler.betas.tolist()}
        return cls.from_config(scheduler.config, **settings)

    @property
    def is_invertible(self) -> bool:
        """`bool`: Whether different samples lead to different ones. Clipping the predicted image merges some."""
        return not self.config.clip_sample and not self.config.thresholding

    def inverse(self) -> SchedulerMixin:
        """Returns the scheduler that makes these moves upwards, a [`DiffSCMDDIMInverseScheduler`]."""
        # Imported here only: this file is copied into checkpoints by itself.
        from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler

        return DiffSCMDDIMInverseScheduler.from_config(self.config)

    def check_inverse(self, inverse_scheduler: SchedulerMixin):
        """Raises a `ValueError` if `inverse_scheduler` does not make these moves upwards."""
        if not hasattr(type(inverse_scheduler), "levels_are_consecutive"):
            raise ValueError(
                f"`inverse_scheduler` expects a DiffSCMDDIMInverseScheduler beside a {type(self).__name__}, got a "
                f"{type(inverse_scheduler).__name__}. Make it with `scheduler.inverse()`."
            )
        for name in (
            "num_train_timesteps",
            "prediction_type",
            "timestep_spacing",
            "steps_offset",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
        ):
            if self.config[name] != inverse_scheduler.config[name]:
                raise ValueError(
                    f"`inverse_scheduler` expects `scheduler`'s moves, whose `{name}` is {self.config[name]!r}, got "
                    f"{inverse_scheduler.config[name]!r}. Make it with `scheduler.inverse()`."
                )
        if not torch.equal(self.alphas_cumprod.cpu(), inverse_scheduler.alphas_cumprod.cpu()):
            raise ValueError("`inverse_scheduler` expects `scheduler`'s betas, got others.")

    def check_num_moves(self, num_moves: int):
        """Raises a `ValueError` if so many of the moves that `set_timesteps` has set cannot be made."""
        if type(num_moves) is not int or not 1 <= num_moves <= self.num_inference_steps:
            raise ValueError(
                f"`num_moves` expects 1 to {self.num_inference_steps}, got {num_moves!r}: raise `strength` or "
                "`num_inference_steps`."
            )

    def start(self, sample: torch.Tensor, num_moves: int | None = None) -> tuple[torch.Tensor, list[int]]:
        """
        Begins a way down.

        Args:
            sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Exogenous noise, or what abduction ended with after `num_moves` moves.
            num_moves (`int`, *optional*):
                How many of the last moves are made. Default: all.

        Returns:
            `tuple[torch.Tensor, list[int]]`: The sample in float32 and the timesteps of the moves.

        Raises:
            ValueError:
                If `sample` has another number of axes, if `num_moves` is out of range, or if the moves do not meet:
                [`DDIMScheduler`]'s stride is `num_train_timesteps // num_inference_steps` wherever its timesteps lie.
        """
        if not torch.is_tensor(sample):
            raise TypeError(f"`exogenous_noise` expects a tensor, got {type(sample).__name__}.")
        if sample.ndim != 4:
            raise ValueError(
                "`exogenous_noise` expects the shape (batch_size, num_channels, height, width), got "
                f"{tuple(sample.shape)}."
            )
        timesteps = self.timesteps.tolist()
        num_moves = len(timesteps) if num_moves is None else num_moves
        self.check_num_moves(num_moves)
        stride = self.config.num_train_timesteps // self.num_inference_steps
        strides = {upper - lower for upper, lower in itertools.pairwise(timesteps)}
        if self.config.timestep_spacing != "quadratic" and not strides <= {stride}:
            raise ValueError(
                f"`num_inference_steps` {self.num_inference_steps} with `timestep_spacing` "
                f"{self.config.timestep_spacing!r} makes DDIM's moves end at other noise levels than the next ones "
                "start from. Use `timestep_spacing='leading'`, or 'trailing' with a number of steps that divides "
                f"{self.config.num_train_timesteps}."
            )
        return sample.float(), timesteps[-num_moves:]

    def finish(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns the image that the way down ended with: `sample`."""
        return sample

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None):
        """
        Sets the timesteps, from the noise downwards.

        Args:
            num_inference_steps (`int`):
                The number of moves, between 1 and `num_train_timesteps`.
            device (`str` or `torch.device`, *optional*):
                Where `timesteps` goes.

        Raises:
            TypeError: If `num_inference_steps` is not an integer.
            ValueError:
                If `num_inference_steps` is out of range, or if `steps_offset` leads to timesteps that the network was
                not trained for.
        """
        spacing, num_train_timesteps = self.config.timestep_spacing, self.config.num_train_timesteps
        if type(num_inference_steps) is not int:
            raise TypeError(f"`num_inference_steps` expects a whole number, got {num_inference_steps!r}.")
        if not 1 <= num_inference_steps <= num_train_timesteps:
            raise ValueError(
                f"`num_inference_steps` expects 1 to `num_train_timesteps`, {num_train_timesteps}, got "
                f"{num_inference_steps}."
            )

        if spacing != "quadratic":
            super().set_timesteps(num_inference_steps, device)
            return

        index = np.arange(num_inference_steps)
        last = num_train_timesteps - num_train_timesteps // num_inference_steps
        timesteps = (last * (index / max(num_inference_steps - 1, 1)) ** 2).round().astype(np.int64)
        # Where rounding makes neighbours equal, they are moved 1 apart.
        timesteps = np.maximum.accumulate(timesteps - index) + index + self.config.steps_offset
        if timesteps[0] < 0 or timesteps[-1] >= num_train_timesteps:
            raise ValueError(
                f"`steps_offset`={self.config.steps_offset} with `num_inference_steps`={num_inference_steps} makes"
                f" timesteps from {timesteps[0]} to {timesteps[-1]}, but the network takes those from 0 to"
                f" {num_train_timesteps - 1}."
            )
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.from_numpy(timesteps[::-1].copy()).to(device)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """
        Makes the move down from `timestep`, as [`DDIMScheduler.step`] does, but to the next one of `timesteps`, where
        the parent always goes `num_train_timesteps // num_inference_steps` timesteps down.

        Args:
            model_output (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The network's output for `sample` and `timestep`.
            timestep (`int` or `torch.Tensor` with one element):
                One of `timesteps`.
            sample (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                The sample at `timestep`.
            eta (`float`, defaults to 0.0):
                Weight of the fresh noise, in [0, 1]: 0 is DDIM, deterministic, and 1 is DDPM.
            use_clipped_model_output (`bool`, defaults to `False`):
                Whether to derive the noise again from the clipped clean sample.
            generator (`torch.Generator`, *optional*):
                Makes the draw of the fresh noise reproducible.
            variance_noise (`torch.Tensor`, *optional*):
                The fresh noise itself, instead of `generator`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DDIMSchedulerOutput`] or a tuple.

        Returns:
            [`DDIMSchedulerOutput`] or `tuple`: `prev_sample` and `pred_original_sample`.

        Raises:
            ValueError:
                If `set_timesteps` was not called, `timestep` is not one of `timesteps`, `model_output` and `sample`
                differ in shape, `eta` is out of its range, or both `generator` and `variance_noise` are given.
            TypeError: If `model_output` or `sample` is not a tensor.
        """
        if self.num_inference_steps is None:
            raise ValueError("`step` expects timesteps, got none: call `set_timesteps` first.")
        for name, value in (("model_output", model_output), ("sample", sample)):
            if not torch.is_tensor(value):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if model_output.shape != sample.shape:
            raise ValueError(
                f"`model_output` expects `sample`'s shape, {tuple(sample.shape)}, got {tuple(model_output.shape)}."
            )
        if not isinstance(eta, (int, float)) or not 0 <= eta <= 1:
            raise ValueError(f"`eta` expects a number in [0, 1], got {eta!r}.")
        if generator is not None and variance_noise is not None:
            raise ValueError(
                "`variance_noise` expects `None` beside a `generator`, got both: noise is drawn or given."
            )
        timesteps = self.timesteps.tolist()
        if timestep not in timesteps:
            raise ValueError(f"`timestep` expects one of `scheduler.timesteps`, {timesteps}, got {timestep}.")
        if self.config.timestep_spacing != "quadratic":
            return super().step(
                model_output,
                timestep,
                sample,
                eta,
                use_clipped_model_output,
                generator,
                variance_noise,
                return_dict,
            )

        # 1. The two levels. Below the lowest timestep lies `final_alpha_cumprod`, which the parent writes as -1.
        prev_timestep = [*timesteps, -1][timesteps.index(timestep) + 1]
        alpha_prod = self.alphas_cumprod[timestep]
        alpha_prod_prev = self.alphas_cumprod[prev_timestep] if prev_timestep >= 0 else self.final_alpha_cumprod
        alpha, sigma = alpha_prod**0.5, (1 - alpha_prod) ** 0.5

        # 2. The clean sample and the noise that `model_output` stands for
        if self.config.prediction_type == "epsilon":
            pred_original_sample = (sample - sigma * model_output) / alpha
            pred_epsilon = model_output
        elif self.config.prediction_type == "sample":
            pred_original_sample = model_output
            pred_epsilon = (sample - alpha * model_output) / sigma
        else:
            pred_original_sample = alpha * sample - sigma * model_output
            pred_epsilon = alpha * model_output + sigma * sample
        if self.config.thresholding:
            pred_original_sample = self._threshold_sample(pred_original_sample)
        elif self.config.clip_sample:
            clip_range = self.config.clip_sample_range
            pred_original_sample = pred_original_sample.clamp(-clip_range, clip_range)
        if use_clipped_model_output:
            pred_epsilon = (sample - alpha * pred_original_sample) / sigma

        # 3. The sample at the lower level (DDIM paper, Eq. 12 and 16)
        deviation = eta * self._get_variance(timestep, prev_timestep) ** 0.5
        prev_sample = alpha_prod_prev**0.5 * pred_original_sample
        prev_sample = prev_sample + (1 - alpha_prod_prev - deviation**2) ** 0.5 * pred_epsilon
        if eta > 0:
            if variance_noise is None:
                variance_noise = randn_tensor(
                    model_output.shape, generator=generator, device=model_output.device, dtype=model_output.dtype
                )
            prev_sample = prev_sample + deviation * variance_noise

        if not return_dict:
            return (prev_sample, pred_original_sample)
        return DDIMSchedulerOutput(prev_sample=prev_sample, pred_original_sample=pred_original_sample)

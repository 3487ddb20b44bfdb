# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import PIL.Image
import torch
from diffusers.utils.torch_utils import randn_tensor

from diffscm_diffusers.pipelines import DiffSCMCounterfactualPipeline


@torch.no_grad()
def posterior_mean(
    pipe: DiffSCMCounterfactualPipeline,
    image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
    intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
    timestep: int,
    num_draws: int = 16,
    guidance_scale: float | list[float] | torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    output_type: str = "pil",
) -> list[PIL.Image.Image] | np.ndarray | torch.Tensor:
    r"""
    The mean of what a counterfactual could be, given its coarse features and the intervention:
    `E[x_0 | x_t, do(class = intervention)]`, averaged over noisy versions `x_t ~ q(x_t | x)` of it.

    A counterfactual is one image, with every speck that its exogenous noise holds. Noise of level `t` hides the fine
    features. The networks fill them in by their expectation, Tweedie's formula ([Efron,
    2011](https://doi.org/10.1198/jasa.2011.tm11181)) with the guided prediction of Alg. 1, clipped to the range of
    images. The mean is smoother than a real image, most so where details could have been others; it is the estimate
    with the least squared error.

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): The model that made the counterfactuals.
        image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
            The counterfactuals; see [`~DiffSCMCounterfactualPipeline.__call__`].
        intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
            The classes that they show; see [`~DiffSCMCounterfactualPipeline.__call__`].
        timestep (`int`):
            The noise level, from 0 to the scheduler's `num_train_timesteps - 1`. The higher, the more is averaged.
        num_draws (`int`, *optional*, defaults to 16):
            How many noisy versions are averaged, an even number, as half of them have the noise of the others with its
            sign changed. All images get the same noise, so that none depends on the others in its batch.
        guidance_scale (`float` or `list[float]` or `torch.Tensor`, *optional*, defaults to the checkpoint's):
            Weight of the anti-causal predictor's gradient, at least 0.
        generator (`torch.Generator`, *optional*): Makes the draws reproducible.
        batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.
        output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.

    Raises:
        ValueError: if an argument is out of its range or does not fit the others, or if the denoiser predicts noise
            and the level at `timestep` is nothing but noise, or if the mean is not finite.
        TypeError: if an argument is of another type.

    Example:

    ```py
    >>> counterfactuals = pipe(factual, ["2", "9"], **pipe.presets["fast"]).images
    >>> means = posterior_mean(pipe, counterfactuals, ["2", "9"], timestep=450, guidance_scale=4.0)
    ```

    Returns:
        `list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`: the means, one per image.
    """
    pipe.check_inputs(generator=generator, batch_size=batch_size, output_type=output_type)
    scheduler = pipe.scheduler
    last, prediction_type = len(scheduler.alphas_cumprod) - 1, scheduler.config.prediction_type
    if type(timestep) is not int or not 0 <= timestep <= last:
        raise ValueError(f"`timestep` expects a whole number from 0 to {last}, got {timestep!r}.")
    if type(num_draws) is not int or num_draws < 2 or num_draws % 2:
        raise ValueError(f"`num_draws` expects an even number of at least 2, got {num_draws!r}.")
    alpha_prod = scheduler.alphas_cumprod[timestep].item()
    if alpha_prod == 0 and prediction_type == "epsilon":
        raise ValueError(f"`timestep` expects a level with a trace of the image, but {timestep} is pure noise.")
    samples = pipe.prepare_image(image)
    guidance, num_images = pipe.prepare_guidance(intervention, guidance_scale, None, len(samples))

    alpha, sigma = alpha_prod**0.5, (1 - alpha_prod) ** 0.5
    noise = randn_tensor((num_draws // 2, *pipe.image_shape), generator, samples.device, torch.float32)
    samples, batch_size = samples.expand(num_images, *pipe.image_shape), batch_size or num_images
    starts = range(0, num_images, batch_size)
    means, finite = [], []
    with pipe.progress_bar(total=len(starts) * num_draws) as progress_bar:
        progress_bar.set_description("Posterior mean")
        for start in starts:
            batch = slice(start, start + batch_size)
            batch_guidance = None if guidance is None else guidance[batch]
            mean = torch.zeros_like(samples[batch])
            for draw in torch.cat([noise, -noise]):
                noisy = alpha * samples[batch] + sigma * draw
                prediction = pipe.predict_noise(noisy, timestep, batch_guidance)
                if prediction_type == "epsilon":
                    original = (noisy - sigma * prediction) / alpha
                elif prediction_type == "sample":
                    original = prediction
                else:
                    original = alpha * noisy - sigma * prediction
                finite.append(original.isfinite().all())
                mean += original.clamp(-1, 1) / num_draws
                progress_bar.update()
            means.append(mean)
    pipe.check_finite("posterior mean", [timestep], [torch.stack(finite).all()])

    pipe.maybe_free_model_hooks()
    return pipe.image_processor.postprocess(torch.cat(means), output_type=output_type)

# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

from diffusers import DDIMScheduler

from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler


SPACINGS = ("leading", "trailing", "linspace", "quadratic")
ENDS_IN_NOISE = ("trailing", "linspace")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
EVALUATE_AT = ("source", "destination")


def pair(num_inference_steps, evaluate_at="destination", **config):
    """A DDIM scheduler, stock where it can be, and the inverse made from its config, with their timesteps set."""
    ddim_class = DiffSCMDDIMScheduler if config.get("timestep_spacing") == "quadratic" else DDIMScheduler
    ddim = ddim_class(**{"clip_sample": False, **config})
    inverse = DiffSCMDDIMInverseScheduler.from_config(ddim.config, evaluate_at=evaluate_at)
    ddim.set_timesteps(num_inference_steps)
    inverse.set_timesteps(num_inference_steps)
    return ddim, inverse

# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the schedulers."""

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler

from .table import INF, NAN, NO_FLAG, Call, fuzz


SAMPLE = torch.zeros(2, 1, 4, 4)
SCHEDULE = {
    "num_train_timesteps": [0, -1, 10.5, "1000", True],
    "beta_start": [0.0, -0.1, 1.5, NAN, "0.1", None],
    "beta_end": [0, 1.0, NAN, INF, "0.02"],
    "beta_schedule": ["cosine", None, 3],
    "trained_betas": [[0.1, 0.2], [NAN] * 1000, [2.0] * 1000, [0.0] * 1000, "betas"],
    "prediction_type": ["noise", None, 1],
}
DDIM = {
    **SCHEDULE,
    "set_alpha_to_one": NO_FLAG,
    "steps_offset": [-1, 1000, 0.5, "1"],
    "timestep_spacing": ["cubic", None],
    "rescale_betas_zero_snr": NO_FLAG,
    "clip_sample_range": [0, -1.0, NAN, INF, "1"],
}
NO_STEPS = [0, -1, 1001, 2.5, "10", None, True, NAN]
NO_SAMPLE = [None, 3, [0.0], torch.zeros(2, 2, 4, 4)]


def from_config(scheduler):
    return lambda **changes: scheduler.from_config(DDIMScheduler().config, **changes)


def step(scheduler, **config):
    def call(**arguments):
        made = scheduler(**config)
        made.set_timesteps(10)
        made.step(**arguments)

    return call


def solve(**arguments):
    scheduler = DiffSCMDDIMInverseScheduler(clip_abduction=arguments.pop("clip_abduction", False))
    scheduler.set_timesteps(10, evaluate_at="implicit")
    scheduler.solve(**arguments)


def start(scheduler, **config):
    def call(**arguments):
        made = scheduler(**config)
        made.set_timesteps(10)
        made.start(**arguments)

    return call


STEP = {"model_output": SAMPLE, "timestep": 0, "sample": SAMPLE}
CALLS = {
    "DiffSCMDDIMScheduler": Call(
        DiffSCMDDIMScheduler,
        bad={
            **DDIM,
            "clip_sample": NO_FLAG,
            "thresholding": NO_FLAG,
            "dynamic_thresholding_ratio": [0, 1.5, NAN, "1"],
            "sample_max_value": [0, NAN, INF],
        },
    ),
    "DiffSCMDDIMScheduler.from_config": Call(
        from_config(DiffSCMDDIMScheduler),
        bad={"beta_start": [NAN, -1.0], "beta_end": [NAN, INF], "trained_betas": [[NAN] * 1000]},
    ),
    "DiffSCMDDIMScheduler.from_noise_schedule": Call(
        DiffSCMDDIMScheduler.from_noise_schedule,
        {"scheduler": DDIMScheduler()},
        {"scheduler": [None, "ddim", EDMEulerScheduler()]},
    ),
    "DiffSCMDDIMScheduler.set_timesteps": Call(
        lambda **arguments: DiffSCMDDIMScheduler().set_timesteps(**arguments),
        {"num_inference_steps": 10},
        {"num_inference_steps": NO_STEPS},
    ),
    "DiffSCMDDIMScheduler.check_inverse": Call(
        lambda **arguments: DiffSCMDDIMScheduler().check_inverse(**arguments),
        {"inverse_scheduler": DiffSCMDDIMInverseScheduler()},
        {"inverse_scheduler": [None, EulerDiscreteScheduler(), DiffSCMDDIMInverseScheduler(beta_end=0.01)]},
    ),
    "DiffSCMDDIMScheduler.step": Call(
        step(DiffSCMDDIMScheduler),
        {**STEP, "timestep": 900},
        {
            "model_output": NO_SAMPLE,
            "sample": [None, "image"],
            "timestep": [901, -1, 0.5, None],
            "eta": [2, -0.1, NAN, "1", None],
        },
        [("variance_noise", {"generator": torch.Generator(), "variance_noise": SAMPLE, "eta": 1.0})],
    ),
    "DiffSCMDDIMScheduler.step, quadratic": Call(
        step(DiffSCMDDIMScheduler, timestep_spacing="quadratic"),
        {**STEP, "timestep": 900},
        {"model_output": NO_SAMPLE, "timestep": [500, None], "eta": [2, NAN]},
    ),
    "DiffSCMDDIMScheduler.start": Call(
        start(DiffSCMDDIMScheduler),
        {"sample": SAMPLE},
        {"num_moves": [0, 11, -1, 2.5, "3"]},
        [("exogenous_noise", {"sample": torch.zeros(4, 4)}), ("exogenous_noise", {"sample": None})],
    ),
    "DiffSCMDDIMInverseScheduler": Call(
        DiffSCMDDIMInverseScheduler,
        bad={**DDIM, "evaluate_at": ["middle", None, "implicit"], "clip_abduction": NO_FLAG},
    ),
    "DiffSCMDDIMInverseScheduler.from_config": Call(
        from_config(DiffSCMDDIMInverseScheduler),
        bad={"beta_start": [NAN], "beta_end": [NAN, INF], "trained_betas": [[NAN] * 1000], "evaluate_at": [0]},
    ),
    "DiffSCMDDIMInverseScheduler.set_timesteps": Call(
        lambda **arguments: DiffSCMDDIMInverseScheduler().set_timesteps(**arguments),
        {"num_inference_steps": 10},
        {"num_inference_steps": NO_STEPS, "evaluate_at": ["middle", 1]},
    ),
    "DiffSCMDDIMInverseScheduler.step": Call(
        step(DiffSCMDDIMInverseScheduler),
        STEP,
        {"model_output": NO_SAMPLE, "sample": [None], "timestep": [901, -1, None]},
    ),
    "DiffSCMDDIMInverseScheduler.set_begin_index": Call(
        lambda **arguments: DiffSCMDDIMInverseScheduler().set_begin_index(**arguments),
        bad={"begin_index": [-1, 0.5, None]},
    ),
    "DiffSCMDDIMInverseScheduler.solve": Call(
        solve,
        {"network": lambda sample, timestep: 0 * sample, "timestep": 0, "sample": SAMPLE},
        {
            "network": [None, "unet"],
            "timestep": [901, None],
            "sample": [None],
            "tolerance": [0, -1e-6, NAN, INF, "small"],
            "max_iterations": [0, -1, 2.5, "40", True],
            "clip_abduction": [True],
        },
    ),
    "DiffSCMDDIMInverseScheduler.start": Call(
        start(DiffSCMDDIMInverseScheduler),
        {"sample": SAMPLE},
        {"num_moves": [0, 11, 2.5]},
        [("num_moves", {"num_moves": 1, "noise": SAMPLE})],
    ),
    "DiffSCMBELMScheduler": Call(
        DiffSCMBELMScheduler,
        bad={**SCHEDULE, "reverse": NO_FLAG, "rescale_betas_zero_snr": [True, None]},
        together=[("trained_betas", {"trained_betas": [0.5, 1.0], "num_train_timesteps": 2})],
    ),
    "DiffSCMBELMScheduler.from_config": Call(
        from_config(DiffSCMBELMScheduler),
        bad={"beta_start": [NAN], "beta_end": [NAN], "trained_betas": [[NAN] * 1000], "prediction_type": ["noise"]},
    ),
    "DiffSCMBELMScheduler.set_timesteps": Call(
        lambda **arguments: DiffSCMBELMScheduler().set_timesteps(**arguments),
        {"num_inference_steps": 10},
        {"num_inference_steps": [1, *NO_STEPS]},
    ),
    "DiffSCMBELMScheduler.step": Call(
        step(DiffSCMBELMScheduler),
        {**STEP, "timestep": 999},
        {"model_output": NO_SAMPLE, "sample": [None, torch.zeros(4, 4)], "timestep": [901, None, 899]},
    ),
    "DiffSCMBELMScheduler.start": Call(
        start(DiffSCMBELMScheduler),
        {"sample": SAMPLE},
        {"num_moves": [0, 1, 11, 2.5], "noise": [SAMPLE]},
        [("exogenous_noise", {"sample": SAMPLE, "num_moves": 5}), ("exogenous_noise", {"sample": None})],
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)

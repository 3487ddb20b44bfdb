# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from diffscm_diffusers import StructuralCausalModel
from diffscm_diffusers.baselines import VAECounterfactualPipeline
from diffscm_diffusers.baselines.vae_pipeline import load_vae
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.classes import match_classes
from diffscm_diffusers.flags import value_of

from ..fingerprint import fingerprint
from .registry import Method, register_method


@register_method("conditional-vae", "conditional VAE", needs="conditional_vae")
def create_conditional_vae(pairs, factuals, conditional_vae, class_names, pipe, accelerator, **unused) -> Method:
    """
    A variational autoencoder of the image given its class ([Pawlowski et al.,
    2020](https://huggingface.co/papers/2006.06485)), from `--conditional_vae`.

    Raises:
        ValueError: if there is none, or if it is told other causes or classes, or makes other images.
    """
    if conditional_vae is None:
        raise ValueError("`--conditional_vae` is needed for the method 'conditional-vae': what train_vae.py wrote.")
    with value_of("conditional_vae", conditional_vae, "the folder of a VAE of images given their class"):
        vae_pipe, cause, labels = load_pipeline(conditional_vae)
        if vae_pipe.image_shape != pipe.image_shape:
            raise ValueError(f"its images have shape {vae_pipe.image_shape}, the checkpoint's {pipe.image_shape}.")
        match_classes(labels, class_names, "its cause", whole=True)
    vae_pipe.to(accelerator.device).set_progress_bar_config(disable=True)

    def estimate(images, factual_class, intervention):
        # By name: the VAE may know the classes in another order.
        attributes, do = ({cause: [class_names[c] for c in part.tolist()]} for part in (factual_class, intervention))
        return vae_pipe(images, attributes, do, output_type="pt").images

    def generate(index):
        return estimate(factuals.images(index), pairs.factual_class[index], pairs.intervention[index])

    settings = {"conditional_vae": conditional_vae, "weights": fingerprint(vae_pipe.vae)}
    return Method(generate, settings, estimate)


def load_pipeline(folder: str) -> tuple[VAECounterfactualPipeline, str, list[str]]:
    """
    Loads a VAE that is told one cause, a class, with the causal graph of that cause and the image.

    Args:
        folder (`str`): The folder that `train_vae.py` wrote, or a name on the Hub.

    Returns:
        `tuple`: the pipeline, the name of the cause, and its labels.

    Raises:
        ValueError: if there is another model, or one that is told something else.
        OSError: if there is no model.
    """
    vae = load_vae(folder)
    causes = vae.config.get("_trained_with", {}).get("causes")
    if causes is None:
        raise ValueError("its configuration does not say which causes it is told, as train_vae.py writes it.")
    nodes = dict(causes)
    if [node["kind"] for node in nodes.values()] != ["categorical"]:
        raise ValueError(f"it is told {nodes}, not a class alone.")
    [(cause, node)] = nodes.items()
    # The class has no parents, and is set by every intervention: its mechanism plays no part.
    scm = StructuralCausalModel(CausalGraph(nodes, [[cause, "image"]]))
    return VAECounterfactualPipeline(vae, scm), cause, list(node["labels"])

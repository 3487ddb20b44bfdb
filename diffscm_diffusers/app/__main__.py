# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Opens the page in a browser, with the shipped checkpoints or another one.

    python -m diffscm_diffusers.app
    python -m diffscm_diffusers.app --pretrained_model_name_or_path user/name
"""

import argparse
import os


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffscm_diffusers.app",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--pretrained_model_name_or_path",
        help="A checkpoint of any of the pipelines: a folder, or a name on the Hub. Default: those in checkpoints/.",
    )
    parser.add_argument("--server_name", default="127.0.0.1", help="Address to listen at; 0.0.0.0 for the network.")
    parser.add_argument("--server_port", type=int, default=7860, help="Port to listen at.")
    parser.add_argument("--inbrowser", action="store_true", help="Open a browser.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    # Before Gradio is imported: it would ask for its newest version.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from .page import serve, shipped_checkpoints

    if args.pretrained_model_name_or_path is None:
        checkpoints = shipped_checkpoints()
    else:
        checkpoints = {"Counterfactuals": args.pretrained_model_name_or_path}
    serve(checkpoints, server_name=args.server_name, server_port=args.server_port, inbrowser=args.inbrowser)


if __name__ == "__main__":
    main()

# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from unittest import mock

import pytest
from huggingface_hub.errors import HfHubHTTPError

from diffscm_diffusers.hub.publishing import explain_hub_errors


def raise_status(status: int):
    with explain_hub_errors("me/mine"):
        raise HfHubHTTPError("the Hub's words", response=mock.MagicMock(status_code=status, headers={}))


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, PermissionError, "'me/mine' cannot be published: the Hub got no valid token. Log in"),
        (403, PermissionError, "'me/mine' cannot be published: your token may not write there"),
        (404, FileNotFoundError, "'me/mine' cannot be published: the Hub has no such repository"),
    ],
)
def test_errors_that_a_user_can_do_something_about_are_explained(status, error, message):
    with pytest.raises(error, match=message):
        raise_status(status)


def test_other_errors_of_the_hub_pass_unchanged():
    with pytest.raises(HfHubHTTPError, match="the Hub's words"):
        raise_status(500)

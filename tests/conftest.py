"""One torch thread, as a hospital has, so that results repeat to the bit."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("lightning-fed", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.load_profile("lightning-fed")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)

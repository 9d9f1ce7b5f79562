"""What the tests of the hub share: names, and how a process forgets what it has fetched."""

import json

import huggingface_hub
from huggingface_hub import constants

from vaectl.io import hub as fetching
from vaectl.io.hub import fetch
from vaectl.model_names import hub_name
from vaectl.models.build import read_config
from vaectl.progress import Silent

NAME = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
FULL = f"{NAME}@main"
"""As records have it, because it stays a name where there is a folder Wan-AI."""
OTHER = "some/repository"
WEIGHTS = "diffusion_pytorch_model.safetensors"
BY_HAND = (
    f'download it: hf download {NAME} --include "vae/*" --local-dir Wan2.1-T2V-1.3B-Diffusers; then pass --model'
    " Wan2.1-T2V-1.3B-Diffusers/vae"
)
INDEX = json.dumps({"weight_map": {"a": "a-1.safetensors", "b": "a-2.safetensors", "c": "a-1.safetensors"}}).encode()
"""The index of two shards."""


def config_of(class_name):
    return json.dumps({"_class_name": class_name}).encode()


def below(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def new_process(monkeypatch):
    """Forget what this process has fetched."""
    monkeypatch.setattr(fetching, "_fetched", {})


def set_offline(monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    if reset := getattr(huggingface_hub.utils, "reset_sessions", None):  # before version 1
        reset()


def fetched(name, note=lambda _: None):
    return fetch(hub_name(name), read_config, note, Silent())

"""What a row says of its machine."""

import subprocess

import torch


def versions(device):
    """Columns that are the same in every row."""
    try:
        import triton

        triton_version = triton.__version__
    except ImportError:
        triton_version = None
    cuda = device == "cuda"
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "triton": triton_version,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "driver": ask("driver_version") if cuda else None,
    }


def ask(what):
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def conditions(device):
    """Clock, temperature, power and throttling, read when a point has been measured."""
    names = {
        "sm_mhz": "clocks.sm",
        "temperature_c": "temperature.gpu",
        "power_w": "power.draw",
        "throttle_reasons": "clocks_event_reasons.active",
    }
    answer = ask(",".join(names.values())) if device == "cuda" else None
    values = [part.strip() for part in answer.split(",")] if answer else [None] * len(names)
    return dict(zip(names, values))

"""Writes the sound and the filterbanks that crates/attn-data is held against.

    python -m venv DIR && DIR/bin/pip install -r scripts/reference/requirements-audio.txt
    DIR/bin/python scripts/reference/fbank.py [--check]

A chirp with noise goes to crates/attn-data/tests/fixtures/chirp.flac (two channels, 16 kHz, 16 bits), and its
log-mel filterbanks to chirp.safetensors: of the left channel by kaldi-native-fbank, once with 80 filters of 25 ms
every 10 ms, once with 23 of 32 ms every 8 ms. The package is a port of Kaldi's own C++; where torchaudio is
installed, its compliance.kaldi.fbank has to agree before a file is written.

Seeded: the same from run to run with the same versions. `--check` compares with what is there.
"""

import argparse
import pathlib

import kaldi_native_fbank as knf
import numpy as np
import soundfile
from safetensors.numpy import load_file, save_file

OUT = pathlib.Path(__file__).parents[2] / "crates/attn-data/tests/fixtures"
RATE = 16_000
SECONDS = 0.4
# name: mel filters, milliseconds of a window, milliseconds between windows
SETTINGS = {"mel80": (80, 25, 10), "mel23": (23, 32, 8)}
# Of a logarithm; both implementations compute in float32.
TOLERANCE = 2e-3


def sound():
    """A chirp over the whole band in noise, [samples, 2] as 16 bits; the right channel is the left one, weaker."""
    rng = np.random.default_rng(5)
    t = np.arange(int(RATE * SECONDS)) / RATE
    chirp = np.sin(2 * np.pi * (100 * t + 9_000 * t**2)) * np.exp(-3 * t)
    left = 0.3 * chirp + 0.01 * rng.standard_normal(t.size) + 0.02
    return np.rint(32_768 * np.stack([left, 0.25 * left], axis=1)).astype(np.int16)


def kaldi(samples, bins, window_ms, hop_ms):
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = RATE
    options.frame_opts.frame_length_ms = window_ms
    options.frame_opts.frame_shift_ms = hop_ms
    options.mel_opts.num_bins = bins
    # Kaldi's own default; the package's is the end of the band less 400 Hz.
    options.mel_opts.high_freq = 0
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(RATE, samples.astype(np.float32).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


def torchaudio(samples, bins, window_ms, hop_ms):
    try:
        import torch
        from torchaudio.compliance.kaldi import fbank
    except ImportError:
        return None
    waveform = torch.from_numpy(samples.astype(np.float32))[None]
    return fbank(
        waveform,
        num_mel_bins=bins,
        frame_length=window_ms,
        frame_shift=hop_ms,
        sample_frequency=RATE,
    ).numpy()


def features(samples):
    tables = {}
    for name, setting in SETTINGS.items():
        tables[name] = kaldi(samples, *setting)
        second = torchaudio(samples, *setting)
        if second is None:
            print(f"{name}: {tables[name].shape}, torchaudio is not installed")
            continue
        error = float(np.abs(tables[name] - second).max())
        print(f"{name}: {tables[name].shape}, torchaudio differs by {error:.1e}")
        assert error < TOLERANCE
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    samples = sound()
    tables = features(samples[:, 0])
    flac, table = OUT / "chirp.flac", OUT / "chirp.safetensors"
    if check:
        there, rate = soundfile.read(flac, dtype="int16")
        assert rate == RATE and np.array_equal(there, samples), flac
        for name, values in load_file(table).items():
            assert np.abs(values - tables[name]).max() < TOLERANCE, name
        print("as they were")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    soundfile.write(flac, samples, RATE, subtype="PCM_16")
    save_file(tables, table)
    for path in (flac, table):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

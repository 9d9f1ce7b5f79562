"""Videos with a clap: a white frame and a tone burst at the same time. Find both in any file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

FLASH = 30
"""Number of the white frame of 60 at 25 Hz."""


def film_with_clap(
    path: Path,
    codec: str = "aac",
    *,
    video_start: Fraction = Fraction(0),
    audio_start: Fraction = Fraction(0),
    rate: int = 48000,
    layout: str = "stereo",
    tracks: int = 1,
    noise: bool = False,
) -> Path:
    """Write 60 frames and `tracks` audio tracks, with the clap 1.2 s after `video_start`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264" if path.suffix != ".webm" else "libvpx-vp9", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sounds = [container.add_stream(codec, rate=rate) for _ in range(tracks)]
        for sound in sounds:
            sound.codec_context.layout = layout
            sound.metadata["language"] = "deu"
        clap = video_start + Fraction(FLASH, 25) + Fraction(1, 50)  # the middle of the white frame
        for i in range(60):
            frame = VideoFrame.from_ndarray(np.full((48, 64, 3), 235 if i == FLASH else 30, np.uint8), format="rgb24")
            frame.pts, frame.time_base = int((video_start + Fraction(i, 25)) * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        time = np.arange(int(2.4 * rate)) / rate + float(audio_start)
        burst = np.sin(2 * np.pi * 1500 * time) * np.exp(-(((time - float(clap)) / 0.004) ** 2)) * 0.8
        if noise:  # faint, so that no two packets are alike
            burst += np.random.default_rng(0).normal(0, 1e-3, len(burst))
        channels = sounds[0].codec_context.layout.nb_channels
        for start in range(0, len(burst), 960):
            piece = np.tile((burst[start : start + 960] * 32767).astype(np.int16)[:, None], (1, channels))
            for sound in sounds:
                frame = AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = int(audio_start * rate) + start
                container.mux(sound.encode(frame))
        for sound in sounds:
            container.mux(sound.encode(None))
    return path


def flash_time(path: Path) -> float:
    """Find the middle of the white frame, in seconds."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="gray").mean(), frame.time) for frame in container.decode(video=0)]
    return max(frames)[1] + 0.02


def burst_time(path: Path, track: int = 0) -> float:
    """Find the loudest moment of the tone burst, in seconds."""
    with av.open(str(path)) as container:
        energy = moment = 0.0
        for frame in container.decode(audio=track):
            samples = frame.to_ndarray().astype(float)
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            power = (samples**2).mean(0)
            energy += power.sum()
            moment += (power * (frame.pts * float(frame.time_base) + np.arange(len(power)) / frame.sample_rate)).sum()
    return float(moment / energy)

"""Films: pictures [H, W, 3], one after another, into a GIF or an MP4, of which never more than a few are in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import GifImagePlugin, Image, ImageChops

from emix.errors import UsageError


def write_film(out: Path, pictures: Iterable[np.ndarray], samples: Sequence[np.ndarray], fps: int) -> None:
    """Draw ``pictures`` into a GIF or MP4 that appears under its name when it is whole.

    Args:
        out: file to write.
        pictures: uint8 [H, W, 3] each, all of one size.
        samples: some of them, from which a GIF takes its colours.
        fps: pictures a second.

    Raises:
        UsageError: it cannot be written.
    """
    draft = out.with_name(f"{out.stem}.new{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".gif":
            _write_gif(draft, pictures, samples, fps)
        else:
            _write_mp4(draft, pictures, fps)
        os.replace(draft, out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}; choose another file") from error
    finally:
        if draft.exists():
            draft.unlink()


def refuse_unwritable(out: Path) -> None:
    """Raise UsageError for a name that no film has, and for an MP4 without its packages."""
    if out.suffix not in (".gif", ".mp4"):
        raise UsageError(f"OUT expects a name that ends in .gif or .mp4, got {str(out)!r}")
    if out.is_dir():
        raise UsageError(f"OUT expects a file, {out} is a folder")
    if out.suffix == ".mp4" and not all(map(find_spec, ("imageio", "imageio_ffmpeg"))):
        raise UsageError('an .mp4 needs imageio and imageio-ffmpeg: pip install "emix[replay]", or write a .gif')


def _write_gif(path: Path, pictures: Iterable[np.ndarray], samples: Sequence[np.ndarray], fps: int) -> None:
    """All pictures share one palette: what does not move stays the same pixel for pixel. Of each only the part that
    changes is written, and at once: Pillow's own ``save`` holds all of them until the end."""
    palette = Image.fromarray(np.concatenate(samples)).quantize(255)
    with path.open("wb") as file:
        before: Image.Image | None = None
        waiting: tuple[Image.Image, tuple[int, int], int] | None = None  # its part, where that lies, milliseconds
        for picture in pictures:
            image = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
            change = (0, 0, *image.size) if before is None else ImageChops.difference(image, before).getbbox()
            if waiting is None:
                file.write(b"".join(GifImagePlugin.getheader(image.copy(), info={"loop": 0})[0]))
            if change is not None:
                _write_part(file, waiting)
                before, waiting = image, (image.crop(change), (change[0], change[1]), round(1000 / fps))
            elif waiting is not None:
                waiting = (*waiting[:2], waiting[2] + round(1000 / fps))
        _write_part(file, waiting)
        file.write(b";")


def _write_part(file: IO[bytes], part: tuple[Image.Image, tuple[int, int], int] | None) -> None:
    if part is not None:
        image, offset, duration = part
        file.write(b"".join(GifImagePlugin.getdata(image, offset, duration=duration)))


def _write_mp4(path: Path, pictures: Iterable[np.ndarray], fps: int) -> None:
    import imageio

    film: Any  # its type does not know the method
    with imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=2) as film:
        for picture in pictures:
            film.append_data(picture)

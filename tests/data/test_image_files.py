# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import io
import logging
import shutil

import numpy as np
import PIL.Image
import pytest
from datasets import Dataset, Features, Image

from diffscm_diffusers.data.image_files import BrokenImageError, NumberedRow, decode_image, read_image
from diffscm_diffusers.data.images import load_image_dataset


def encode(image: PIL.Image.Image, format: str = "PNG", **options) -> dict:
    """What `datasets` holds of an image file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return {"path": None, "bytes": file.getvalue()}


def corners(image: PIL.Image.Image) -> list:
    return [image.getpixel(at) for at in ((0, 0), (image.width - 1, 0), (0, image.height - 1))]


class TestUnusualImages:
    """Each kind of image that a data set may hold, and what becomes of it."""

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_transparent_pixels_are_white(self, mode):
        white = 255 if mode == "L" else (255, 255, 255)
        # Transparent pixels are mostly stored as black; half of black over white is grey.
        for source, expected in (
            (PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0)), 255),
            (PIL.Image.new("LA", (4, 4), (0, 0)), 255),
            (PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 128)), 127),
            (PIL.Image.new("RGBA", (4, 4), (9, 9, 9, 255)), 9),
        ):
            pixel = decode_image(encode(source), mode).getpixel((1, 1))
            assert pixel == (expected if mode == "L" else (expected,) * 3)
        palette = PIL.Image.new("P", (4, 4), 1)
        palette.putpalette([0, 0, 0, 200, 0, 0])
        assert decode_image(encode(palette, transparency=1), mode).getpixel((1, 1)) == white
        grey = PIL.Image.new("L", (4, 4), 7)
        assert decode_image(encode(grey, transparency=7), mode).getpixel((1, 1)) == white

    def test_palettes_are_resolved(self):
        image = PIL.Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 200, 10, 0])
        assert decode_image(encode(image), "RGB").getpixel((0, 0)) == (200, 10, 0)

    @pytest.mark.parametrize("is_file", [True, False])
    def test_exif_turns_the_image_upright(self, is_file):
        image = PIL.Image.new("L", (8, 8))
        image.putpixel((0, 0), 255)
        exif = image.getexif()
        exif[0x0112] = 6  # the top of the scene is on the right
        value = encode(image, exif=exif)
        value = value if is_file else PIL.Image.open(io.BytesIO(value["bytes"]))
        assert corners(decode_image(value, "L")) == [0, 255, 0]

    def test_cmyk_becomes_rgb(self):
        image = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        red, green, blue = decode_image(encode(image, "TIFF"), "RGB").getpixel((0, 0))
        assert (red, green, blue) == (255, 0, 0)

    def test_what_cannot_be_meant_is_refused(self):
        frames = [PIL.Image.new("L", (4, 4), level) for level in (0, 255)]
        deep = PIL.Image.fromarray(np.full((4, 4), 40000, np.uint16))
        for format in ("GIF", "TIFF", "PNG", "WEBP"):
            with pytest.raises(ValueError, match="it has 2 frames: save the one that is meant"):
                decode_image(encode(frames[0], format, save_all=True, append_images=frames[1:]), "L")
        with pytest.raises(ValueError, match="more than 8 bits per channel .*I;16"):
            decode_image(encode(deep), "L")

    def test_advice_on_refused_images_helps(self):
        frames = [PIL.Image.new("L", (4, 4), level) for level in (0, 255)]
        animated = PIL.Image.open(
            io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])["bytes"])
        )
        animated.seek(1)
        assert decode_image(encode(animated, "PNG"), "L").getpixel((0, 0)) == 255
        deep = np.full((4, 4), 40000, np.uint16)
        rescaled = PIL.Image.fromarray((deep / 257).round().astype(np.uint8))
        assert decode_image(encode(rescaled), "L").getpixel((0, 0)) == 156

    def test_photos_with_a_preview_are_photos(self):
        photo = PIL.Image.new("RGB", (16, 16), (255, 0, 0))
        value = encode(photo, "MPO", save_all=True, append_images=[photo.resize((8, 8))])
        assert PIL.Image.open(io.BytesIO(value["bytes"])).n_frames == 2
        assert decode_image(value, "RGB").size == (16, 16)


BROKEN = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-30],
    "text": lambda whole: b"404: not found",
    "flipped": lambda whole: whole[:60] + bytes(b ^ 255 for b in whole[60:]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_images_name_row_file_and_reason(tmp_path, kind):
    whole = encode(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16), np.uint8)))["bytes"]
    path = tmp_path / "7.png"
    path.write_bytes(BROKEN[kind](whole))
    for row in (
        {"image": {"path": str(path), "bytes": None}},
        {"image": {"path": "7.png", "bytes": path.read_bytes()}},
    ):
        with pytest.raises(BrokenImageError, match=r"got one in row 3 of the file '.*7.png': .+\. Replace it, or"):
            read_image(NumberedRow(row, "row 3"), "image", "L")
    with pytest.raises(BrokenImageError, match="got one in row 3: there is none"):
        read_image(NumberedRow({"image": None}, "row 3"), "image", "L")


class TestSkipBroken:
    def test_counts_lists_and_leaves_out(self, cache_dir, image_folder, tmp_path, caplog):
        folder = shutil.copytree(image_folder, tmp_path / "images")
        for name in ("03", "07"):
            (folder / "train" / "light" / f"{name}.png").write_bytes(b"404")
        load = {"train_data_dir": folder, "label_column": "label", "cache_dir": cache_dir}
        for _ in range(2):  # the second time from the cache
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                splits = load_image_dataset(**load, skip_broken=True)
            (message,) = caplog.messages
            assert message.startswith("Left out 2 of the 30 images of 'train':\n- in row 18 of the file ")
            assert "light/03.png" in message and "\n- in row 22 of the file" in message
            assert {name: len(rows) for name, rows in splits.items()} == {"train": 28, "test": 6}
            assert splits["train"]["label"][:].count(1) == 13

    def test_replacing_a_broken_image_helps(self, cache_dir, image_folder, tmp_path, caplog):
        """The other advice: what was found broken is not remembered when the file is another."""
        folder = shutil.copytree(image_folder, tmp_path / "images")
        path = folder / "train" / "dark" / "00.png"
        whole = path.read_bytes()
        path.write_bytes(b"404")
        load = {"train_data_dir": folder, "cache_dir": cache_dir, "skip_broken": True}
        assert len(load_image_dataset(**load)["train"]) == 29
        path.write_bytes(whole)
        caplog.clear()
        assert len(load_image_dataset(**load)["train"]) == 30
        assert not caplog.messages

    def test_nothing_left_is_an_error(self, cache_dir, tmp_path):
        rows = {"image": [{"path": None, "bytes": b"404"}] * 2}
        Dataset.from_dict(rows, Features({"image": Image(decode=False)})).cast_column("image", Image()).to_parquet(
            tmp_path / "train-00000-of-00001.parquet"
        )
        with pytest.raises(ValueError, match="`skip_broken` expects .* in 'train', got none: one in row 0: no kind"):
            load_image_dataset(str(tmp_path), cache_dir=cache_dir, skip_broken=True)

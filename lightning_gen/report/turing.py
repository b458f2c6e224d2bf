"""The page on which a person tells generated images from real ones."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_gen.errors import UserError
from lightning_gen.report.page import build_page

BODY = """<div class="turing"><header><h1>Real or generated?</h1>
<p class="lead"><b>{name}</b> beside images of {data}</p></header>
<main>
<section id="ask" aria-labelledby="question">
<div class="bar"><progress id="progress" max="{number}" value="0" aria-label="images answered"></progress>
<span id="count">1 / {number}</span></div>
<div class="stage"><img id="picture" alt="Is this image real or generated?"></div>
<p id="question">Is this image real, or was it made by the model?</p>
<div class="answers"><button id="real">Real <kbd>R</kbd></button><button id="fake">Generated <kbd>G</kbd></button></div>
<p class="hint">Keys: <kbd>R</kbd> or <kbd>&larr;</kbd> real, <kbd>G</kbd> or <kbd>&rarr;</kbd> generated,
<kbd>Backspace</kbd> one back. Half of the {number} images are real.
<button id="stop" hidden>Stop here and see the result</button></p>
<noscript><p>This test needs JavaScript.</p></noscript>
</section>
<section id="result" hidden tabindex="-1" aria-labelledby="verdict"><h2 id="verdict"></h2>
<div class="scroll"><table class="rates"><thead><tr><th scope="col">share of</th><th scope="col">count</th><td></td>
<th scope="col">value</th><th scope="col">95% interval</th></tr></thead><tbody id="rates"></tbody></table></div>
<div class="scroll"><table class="confusion"><caption>Answers</caption><thead><tr><td></td>
<th scope="col">said real</th><th scope="col">said generated</th></tr></thead><tbody id="confusion"></tbody></table>
</div>
<p class="hint">Intervals are Wilson's score intervals (Wilson 1927) of counted shares; they take the answers as
independent and are those of one person. A model that cannot be told from data has an accuracy of 50%.</p>
<p class="answers"><button id="download">Download the answers</button><button id="again">Start again</button></p>
<h2 id="mistakes-title"></h2><ul id="mistakes" class="mistakes"></ul>
</section>
</main></div>"""


def turing_page(real: Sequence[np.ndarray], fake: Sequence[np.ndarray], *, name: str, data: str, seed: int) -> str:
    """The test as one HTML file.

    All images are encoded alike and shown at one size, in an order drawn from ``seed``; the key is kept apart from
    them, encoded, so that a look at the page's elements does not tell.

    Args:
        real: images (H, W, C) uint8, C 1 or 3.
        fake: as many of the same shape.
        name: of the model, for the heading.
        data: name of the data set, for the heading.
        seed: of the order.

    Raises:
        UserError: there are not as many of both, or they have other shapes, which would tell them apart.
    """
    if len(real) != len(fake):
        raise UserError(f"There are {len(fake)} generated images for {len(real)} real ones: set --num-images")
    shapes = {"real": {image.shape for image in real}, "generated": {image.shape for image in fake}}
    if len(set.union(*shapes.values())) != 1:
        sizes = {kind: sorted(found)[0] for kind, found in shapes.items()}
        raise UserError(f"Other sizes or colors would tell: real {sizes['real']}, generated {sizes['generated']}")
    both = [(True, image) for image in real] + [(False, image) for image in fake]
    random.Random(seed).shuffle(both)
    key = json.dumps([int(is_real) for is_real, _ in both])
    content = {
        "images": [base64.b64encode(encode_png(image)).decode() for _, image in both],
        "key": base64.b64encode(key.encode()).decode(),
        "name": name,
        "data": data,
        "seed": seed,
    }
    body = BODY.format(name=escape(name), data=escape(data), number=len(both))
    return build_page(f"Real or generated? {name}", body, ["report.css", "turing.css"], ["turing.js"], content)


def encode_png(image: np.ndarray) -> bytes:
    """A PNG file of an image (H, W, C) uint8, C 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, format="PNG")
    return file.getvalue()


def read_images(folder: Path, number: int, seed: int) -> list[np.ndarray]:
    """So many images (H, W, C) of the PNG files in a folder, by chance.

    Raises:
        UserError: there are too few, or one cannot be read.
    """
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if len(files) < number:
        raise UserError(f"{folder} holds {len(files)} PNG files, but {number} are asked for: lower --num-images")
    images = []
    for file in random.Random(seed).sample(files, number):
        try:
            with Image.open(file, formats=["PNG"]) as picture:
                array = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} is not a PNG file that can be read") from error
        images.append(array[:, :, None] if array.ndim == 2 else array)
    return images

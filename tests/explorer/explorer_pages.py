"""Scenes and pages for tests, without a browser or a server."""

import io
from concurrent.futures import Executor, Future

import torch
from bokeh.document import Document
from PIL import Image

from convvae.config import ModelConfig
from convvae.data import ImageSet
from convvae.explorer import Scene
from convvae.explorer.page import Page
from convvae.model.conditions import given_labels_of
from convvae.model.vae import VAE


def make_scene(dims=3, count=40, channels=1, size=(12, 10), labels=True, condition=None, **words):
    config = ModelConfig(
        image_size=size, channels=channels, latent_dims=dims, max_filters=8, condition=condition
    )
    vae = VAE(config).eval()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(3)  # an untrained decoder paints everything in one grey
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8)
    kinds = torch.arange(count) % 4 if labels else None
    shown = ImageSet(images, kinds, "noise", "test", **words)
    return Scene(given_labels_of(vae, shown), shown, "a <b>title</b>")


class Inline(Executor):
    """Does the work at once."""

    def submit(self, work, /, *args, **kwargs):
        future = Future()
        future.set_result(work(*args, **kwargs))
        return future


class Pumped(Document):
    """A document whose callbacks are kept until `pump`, as a server's loop would call them."""

    def __init__(self):
        super().__init__()
        self.waiting, self.repeated = [], []

    def add_next_tick_callback(self, callback):
        self.waiting.append(callback)

    def add_timeout_callback(self, callback, timeout_milliseconds):
        self.waiting.append(callback)
        return callback

    def remove_timeout_callback(self, callback_obj):
        self.waiting.remove(callback_obj)

    def add_periodic_callback(self, callback, period_milliseconds):
        self.repeated.append(callback)
        return callback

    def remove_periodic_callback(self, callback_obj):
        self.repeated.remove(callback_obj)

    def pump(self):
        while self.waiting:
            self.waiting.pop(0)()


def make_page(scene):
    doc = Pumped()
    page = Page(doc, scene, Inline(), Inline())
    doc.pump()
    return page


def png(size=(20, 16), mode="L", colour=128):
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()

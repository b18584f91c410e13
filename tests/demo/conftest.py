"""The demo around the small random model, asked through FastAPI's test client."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from labeller_builders import build_small_labeller
from PIL import Image

from ovsam_cli.demo.service import DemoService
from ovsam_cli.labelling.options import LabelOptions

fastapi = pytest.importorskip("fastapi", reason="the extra [demo] is not installed")
pytest.importorskip("httpx", reason="httpx, for FastAPI's test client, is not installed")

TOKEN = "secret-token"
HOST = "127.0.0.1:8765"


class FakeTextEncoder:
    """Vectors by the letters of a name."""

    text_tower = "fake"
    weights_sha256 = "0" * 64
    default_templates = ("{}",)
    num_calls = 0

    def encode_names(self, names, templates):
        import torch

        type(self).num_calls += 1
        rows = [np.random.default_rng(sum(map(ord, name))).normal(size=384) for name in names]
        vectors = torch.tensor(np.array(rows), dtype=torch.float32)
        return torch.nn.functional.normalize(vectors, dim=-1)


def png(width: int = 60, height: int = 40, seed: int = 1) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path) -> DemoService:
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path / "cache"))
    labeller = build_small_labeller(LabelOptions(top_k=5))
    return DemoService(labeller, FakeTextEncoder)


@pytest.fixture
def app(service: DemoService) -> object:
    from ovsam_cli.demo.app import build_app
    from ovsam_cli.demo.security import list_hosts

    return build_app(service, token=TOKEN, hosts=list_hosts("127.0.0.1", 8765), model="small")


@pytest.fixture
def client(app: object) -> Iterator[object]:
    from fastapi.testclient import TestClient

    with TestClient(app, base_url=f"http://{HOST}/{TOKEN}/", follow_redirects=False) as found:
        yield found

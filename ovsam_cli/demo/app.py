"""The web side of `ovsam demo`: addresses, their answers and their errors."""

# No postponed annotations here: FastAPI reads those of the functions below, whose types are
# imported only where they are needed.

from typing import TYPE_CHECKING
from urllib.parse import unquote

from ovsam_cli.demo.coco_download import build_coco_file
from ovsam_cli.demo.names import BUNDLED_CHOICES
from ovsam_cli.demo.pages import read_static_files
from ovsam_cli.demo.queries import CocoQuery, LabelQuery, NamesQuery
from ovsam_cli.demo.security import BodyTooLargeError, Guard
from ovsam_cli.demo.service import DemoService, GoneError
from ovsam_cli.demo.uploads import MAX_PIXELS, MAX_UPLOAD_BYTES, read_examples
from ovsam_cli.errors import ImageError, InputError, OvsamError
from ovsam_cli.outputs.mask_paint import FILL_OPACITY, LARGE_FILL_OPACITY, LARGE_SHARE, object_color

if TYPE_CHECKING:
    from fastapi import FastAPI

NUM_COLORS = 60


def build_app(service: DemoService, *, token: str, hosts: frozenset[str], model: str) -> Guard:
    """The ASGI app.

    Args:
        service: that answers.
        token: first part of every path.
        hosts: `name:port` by which this machine may be called.
        model: name of the model, for the page.
    """
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_pages(app)
    _add_state(app, service, model)
    _add_questions(app, service)
    _add_errors(app)
    return Guard(app, token=token, hosts=hosts, max_body_bytes=MAX_UPLOAD_BYTES)


def _add_pages(app: "FastAPI") -> None:
    """The page, its scripts and the examples: all read now, so that no path is opened later."""
    from fastapi import Response

    files, examples = read_static_files(), read_examples()

    @app.get("/")
    def show_page() -> Response:
        file = files["index.html"]
        return Response(file.content, media_type=file.media_type)

    @app.get("/static/{name}")
    def show_file(name: str) -> Response:
        file = files.get(name)
        if file is None:
            return Response("not found", 404)
        return Response(file.content, media_type=file.media_type)

    @app.get("/examples/{name}")
    def show_example(name: str) -> Response:
        if name not in examples:
            return Response("not found", 404)
        return Response(examples[name], media_type="image/jpeg")


def _add_state(app: "FastAPI", service: DemoService, model: str) -> None:
    state = {
        "model": model,
        "names": service.first_names,
        "vocabularies": BUNDLED_CHOICES,
        "examples": list(read_examples()),
        "max_upload_bytes": MAX_UPLOAD_BYTES,
        "max_pixels": MAX_PIXELS,
        "colors": [object_color(index) for index in range(NUM_COLORS)],
        "fill": {
            "opacity": FILL_OPACITY,
            "large_opacity": LARGE_FILL_OPACITY,
            "large_share": LARGE_SHARE,
        },
    }

    @app.get("/api/state")
    def show_state() -> dict[str, object]:
        return state


def _add_questions(app: "FastAPI", service: DemoService) -> None:
    """What runs the model goes through threads, so that the page stays alive meanwhile."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse
    from starlette.concurrency import run_in_threadpool

    @app.post("/api/images")
    async def open_image(request: Request) -> Response:
        name = unquote(request.headers.get("x-file-name", "image"))
        data = await request.body()
        return JSONResponse(await run_in_threadpool(service.open_image, data, name))

    @app.get("/api/images/{key}/picture")
    def show_picture(key: str) -> Response:
        return Response(service.picture(key), media_type="image/jpeg")

    @app.post("/api/images/{key}/label")
    def label(key: str, query: LabelQuery) -> Response:
        return JSONResponse(service.label(key, query))

    @app.post("/api/names")
    def choose_names(query: NamesQuery) -> Response:
        return JSONResponse(service.choose_names(query))

    @app.post("/api/coco")
    def make_coco(query: CocoQuery) -> Response:
        content = build_coco_file(*service.kept_objects(query))
        attached = {"content-disposition": 'attachment; filename="annotations.json"'}
        return Response(content, media_type="application/json", headers=attached)


def _add_errors(app: "FastAPI") -> None:
    """Every error is one sentence the page can show."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    @app.exception_handler(OvsamError)
    def tell_error(request: Request, error: OvsamError) -> JSONResponse:
        status = 507
        if isinstance(error, GoneError):
            status = 410
        elif isinstance(error, BodyTooLargeError):
            status = 413
        elif isinstance(error, InputError):
            status = 422
        elif isinstance(error, ImageError):
            status = 413 if error.reason == "too_large" else 415
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(RequestValidationError)
    def tell_fault(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 422)

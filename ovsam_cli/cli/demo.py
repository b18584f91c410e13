"""`ovsam demo`: a page on this machine to click on images."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from ovsam_cli.cli.console import Console, one_line_errors

if TYPE_CHECKING:
    from ovsam_cli.demo.service import DemoService

LOOPBACK = "127.0.0.1"
SECONDS_TO_STOP = 4.0


def demo(
    model: Annotated[
        str,
        typer.Option(help="auto: rn50x16 if its weights are here, else tiny; or as for `label`."),
    ] = "auto",
    vocabulary: Annotated[
        str,
        typer.Option("--vocab", help='Names at first: bundled name, file, or "cat, dog, zebra".'),
    ] = "coco",
    devices: Annotated[
        str, typer.Option("--devices", "--device", help="auto, cpu, mps, cuda, cuda:0.")
    ] = "auto",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0: any free one; default: 8765 if free.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 can be reached.")
    ] = LOOPBACK,
    is_opened: Annotated[
        bool, typer.Option("--open", help="Open the page in the web browser.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only errors and the address.")
    ] = False,
) -> None:
    """Click on images in a web page: masks and names at once, COCO to download."""
    console = Console(quiet=quiet)
    with one_line_errors(console, seconds_to_stop=SECONDS_TO_STOP) as signals:
        _check_installed()
        from ovsam_cli.demo.app import build_app
        from ovsam_cli.demo.security import list_hosts, make_token
        from ovsam_cli.demo.server import open_port, serve

        with open_port(host, port) as listener:
            number = listener.getsockname()[1]
            name = _choose_model(model)
            service = _load_service(console, name, vocabulary, devices)
            token = make_token()
            app = build_app(service, token=token, hosts=list_hosts(host, number), model=name)
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{number}/{token}/"
            console.say("who knows this address can use the page; Ctrl-C ends it")
            console.result(url)
            if is_opened:
                typer.launch(url)
            with signals.noted("\n"):
                serve(app, listener, should_stop=signals.is_wanted)
        console.say("demo closed")


def _check_installed() -> None:
    from ovsam_cli.errors import InputError

    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"`ovsam demo` needs {' and '.join(missing)}: pip install 'ovsam-cli[demo]'"
        )


def _choose_model(model: str) -> str:
    from ovsam_cli.model.hub import find_local_files

    if model != "auto":
        return model
    return "rn50x16" if find_local_files("rn50x16") else "tiny"


def _load_service(console: Console, model: str, vocabulary: str, devices: str) -> DemoService:
    from functools import partial

    from ovsam_cli.demo.service import DemoService
    from ovsam_cli.labelling.interactive import load_labeller
    from ovsam_cli.model.text_towers import load_text_tower
    from ovsam_cli.vocabulary import read_vocabulary

    names = read_vocabulary(vocabulary)
    console.say(f"loading the model {model} ...")
    labeller = load_labeller(model, names, devices=devices, on_message=console.say)
    service = DemoService(labeller, partial(load_text_tower, model, device=labeller.device))
    service.warm_up()
    return service

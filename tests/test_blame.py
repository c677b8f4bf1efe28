"""An app that cannot be loaded: its author is told file and line, and sees no traceback."""

import pytest
from flwr.supercore.object_ref import load_app

from flower_hpc.cli.blame import check_sources, unloadable
from flower_hpc.errors import ConfigError, RunError
from flower_hpc.federation.runs import App

PROJECT = """
[project]
name = "tried"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.components]
serverapp = "{package}.server:app"
clientapp = "{package}.client:app"
"""

LOG = """
INFO :      Start `flwr-serverapp` process
ERROR :     ServerApp raised an exception
Traceback (most recent call last):
  File "/v/site-packages/flwr/server/run_serverapp.py", line 44, in _load
    server_app: ServerApp = load_app(
                            ^^^^^^^^^
  File "/v/site-packages/flwr/supercore/object_ref.py", line 159, in load_app
    module = importlib.import_module(module_str)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/s/lab/superlink/apps/me.tried.1.0.0.24687b1c/tried/server.py", line 2, in <module>
    from . import helper
  File "/s/lab/superlink/apps/me.tried.1.0.0.24687b1c/tried/helper.py", line 7
    app = (
          ^
SyntaxError: '(' was never closed
ERROR :     Exit Code: 201
"""


@pytest.fixture
def app(tmp_path, request):
    """An app; the modules of each test have a name of their own, as Python keeps them."""
    package = f"p{abs(hash(request.node.name))}"
    (tmp_path / package).mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(package=package))
    for name in ("__init__", "server", "client"):
        (tmp_path / package / f"{name}.py").write_text("app = 1\n")
    return App.read(tmp_path)


def write(app, name, text):
    package = app.components["serverapp"].partition(".")[0]
    (app.path / package / f"{name}.py").write_text(text)
    return f"{package}/{name}.py"


def raised_by(app, main=lambda app: None):
    try:
        main(load_app(app.components["serverapp"], RunError, app.path))
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("half", ["server", "client"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os\n\napp = (\n", "3: SyntaxError: '(' was never closed"),
        ("if True:\napp = 1\n", "2: IndentationError: expected an indented block"),
        ("app = 1\nreturn 3\n", "2: SyntaxError: 'return' outside function"),
        ("app = 1\0\n", "1: SyntaxError: source code "),
    ],
)
def test_a_syntax_error_is_found_before_anything_starts(app, half, text, words):
    name = write(app, half, text)
    with pytest.raises(ConfigError) as caught:
        check_sources(app)
    assert str(caught.value).startswith(f"{name}:{words}")


def test_sources_that_are_sound_or_elsewhere_are_not_judged(app):
    write(app, "server", 'raise ValueError("\\d")\n')  # a warning of Python's at most
    check_sources(app)
    check_sources(App(app.path, "tried", {}, None, {"serverapp": "nowhere.at.all:app"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nowhere_at_all", "1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("\nraise ValueError('one\\ntwo')", "2: ValueError: one"),
        ("import json\njson.loads('')", "2: json.decoder.JSONDecodeError: Expecting value: line 1"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('k')", "4: KeyError: 'k'"),
        ("assert False", "1: AssertionError"),
    ],
)
def test_what_is_raised_at_import_has_its_place_in_the_app(app, text, words):
    name = write(app, "helper", text)
    write(app, "server", "from . import helper\n")
    assert unloadable(raised_by(app), app).startswith(f"{name}:{words}")


def test_what_is_raised_later_is_not_blamed_on_the_text(app):
    def main(loaded):
        raise RuntimeError("as asked")

    assert unloadable(raised_by(app, main), app) == ""


def test_a_superlinks_log_tells_it_of_its_copy(app):
    assert unloadable(LOG, app) == "tried/helper.py:7: SyntaxError: '(' was never closed"
    assert unloadable("", app) == ""
    assert unloadable(LOG.replace("in load_app", "in main"), app) == ""

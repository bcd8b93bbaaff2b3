"""The documentation matches the code: examples run, links have targets, and lists are complete."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
import yaml
from PIL import Image

import sind_hf
from sind_hf import SindConfig, SindImageProcessor, SindModel, cli
from sind_hf.cli.reference import commands_page
from sind_hf.experiments.config import GROUPS
from sind_hf.losses import LOSSES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "data_json" / "README.md", *sorted(DOCS.rglob("*.md"))]
# Sixteen channels: with eight, 1x1 convolutions of stride 2 crash torch 2.13 in the backward pass on some CPUs.
RESNET = {"model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
COMMANDS: Any = typer.main.get_command(cli.app)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page as pairs (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def section(page: Path, title: str) -> str:
    """Return the text between a heading of any level and the next heading."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,6}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page.name} has no section {title!r}"
    return found[2]


def table(text: str) -> dict[str, list[str]]:
    """Return the table rows of a text: code in the first cell -> other cells without back ticks."""
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[0].startswith("`"):
            rows[cells[0]] = [cell.strip("`") for cell in cells[1:]]
    return rows


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# --- examples run ----------------------------------------------------------------------------------------------------


def run_command(line: str) -> int:
    """Run one `sind-hf …` line in this process."""
    program, *arguments = shlex.split(line)
    assert program == "sind-hf", f"only sind-hf is run here, not {line!r}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_python_blocks_run(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    photographs = sind_hf.packaged_photographs()
    names = ("astronaut", "cat", "coffee", "rocket")
    sind_hf.grade({name: photographs[name] for name in names}, "demo_output/graded", kinds=["jpeg"], crops=1, size=96)
    Path("docs").symlink_to(DOCS)
    torch.manual_seed(0)
    SindModel(SindConfig(vision_config=dict(RESNET), score_range=[1, 5])).save_pretrained("demo_output/model")
    SindImageProcessor().save_pretrained("demo_output/model")
    first, *others = [text for language, text in blocks(ROOT / "README.md") if language == "python"]
    exec(compile(first, "README.md", "exec"), {})
    assert 1 < float(capsys.readouterr().out) < 5.5
    assert len(others) >= 2
    for text in others:
        exec(compile(text, "README.md", "exec"), {})
    assert SindModel.from_pretrained("runs/mine").config.score_scale > 0


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Run the tutorial to its end, and return its folder and the names that its session defines."""
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("tutorial")
    namespace: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, text in blocks(DOCS / "tutorial.md"):
            if language == "yaml":
                Path(text.split(maxsplit=2)[1]).write_text(text)  # the comment on its first line names the file
            elif language == "bash":
                for line in text.splitlines():
                    assert run_command(line) == 0, line
            else:
                assert language == "python", f"cannot run a block of {language!r}"
                exec(compile(text, "tutorial.md", "exec"), namespace)
        yield SimpleNamespace(folder=folder, session=namespace)


def test_the_tutorial_shows_what_it_says(tutorial: SimpleNamespace) -> None:
    assert len(tutorial.session["manifest"]) == 72
    measures = json.loads((tutorial.folder / "runs/small/results.json").read_text())["metrics"]["graded_held_out"]
    assert measures["within_scene_srcc"] > max(0.6, measures["srcc"])
    assert list(SindModel.from_pretrained(tutorial.folder / "runs/python").config.score_range) == [1, 5]
    assert len(list((tutorial.folder / "maps").glob("photos__*.png"))) == 6
    assert (tutorial.folder / "scores.csv").read_text().startswith("image,score,error\n")


def test_the_files_of_a_run_are_the_listed_ones(tutorial: SimpleNamespace) -> None:
    page, run = DOCS / "reference" / "files.md", tutorial.folder / "runs" / "small"
    listed = {
        name for title in ("Checkpoint", "Run folder") for row in table(section(page, title)) for name in codes(row)
    }
    made = {path.name for path in run.iterdir()}
    general = {"checkpoint-": "checkpoint-<step>/", "scores_": "scores_<set>.csv"}
    assert {next((to for start, to in general.items() if name.startswith(start)), name) for name in made} == listed
    resumption = {
        name for name in codes(" ".join(re.findall(r"^\| `checkpoint-<step>/`.*$", section(page, "Run folder"), re.M)))
    }
    in_checkpoint = {path.name for path in (run / "checkpoint-30").iterdir()}
    assert in_checkpoint - made == resumption - {"checkpoint-<step>/"}


def test_the_keys_of_records_and_reports_are_the_listed_ones(tutorial: SimpleNamespace) -> None:
    page = DOCS / "reference" / "files.md"
    record = json.loads((tutorial.folder / "runs/small/results.json").read_text())
    assert [key.strip("`") for key in table(section(page, "`results.json`"))] == list(record)
    measures = set(re.findall(r"`(\w+)`", " ".join(table(section(page, "`results.json`"))["`metrics`"])))
    assert {
        name for name in record["metrics"]["graded_held_out"] if "runtime" not in name and "per_second" not in name
    } == {f"{name}" for name in measures}
    report = json.loads((tutorial.folder / "report.json").read_text())
    rows = [name for row in table(section(page, "Report of an evaluation")) for name in codes(row)]
    assert rows == [*report, *report["datasets"][0]]


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sind_hf", "torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.mark.slow
def test_the_onnx_page_can_be_followed(
    in_folder: Path, exported: Callable[..., Any], draw: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands run, and both Python blocks score alike, the second one without torch and this package."""
    model = exported("clip").model
    shutil.copytree(exported("clip").folder, "demo_output/model", ignore=shutil.ignore_patterns("*.onnx"))
    Path("photos").mkdir()
    draw(500, 330).transpose(Image.Transpose.ROTATE_90).save("photo.jpg", exif=turned())
    shutil.copy("photo.jpg", "photos")
    page = blocks(DOCS / "how-to" / "export_to_onnx.md")
    for line in "".join(text for language, text in page if language == "bash").splitlines():
        assert line.startswith("pip ") or run_command(line) == 0, line
    (expected,) = model.score(["photo.jpg"], SindImageProcessor())
    assert float(Path("scores.csv").read_text().splitlines()[1].split(",")[1]) == pytest.approx(expected, abs=1e-4)
    first, second = [text for language, text in page if language == "python"]
    capsys.readouterr()
    exec(compile(first, "export_to_onnx.md", "exec"), {})
    assert float(capsys.readouterr().out.partition(" [0, 100]")[0]) == pytest.approx(expected, abs=1e-4)

    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH + second], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score, _, scale = done.stdout.partition(" ")
    published = model.score(["photo.jpg"], SindImageProcessor(resize_backend="pillow"))[0]
    assert float(score) == pytest.approx(published, abs=1e-4) and scale == "[0, 100]\n"


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: upright when turned to the right
    return exif


def test_the_onnx_page_lists_the_metadata(exported: Callable[..., Any]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported("clip").path, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["sind_hf"])
    text = (DOCS / "how-to" / "export_to_onnx.md").read_text(encoding="utf-8").partition("The metadata hold")[2]
    listed = [name for row in re.findall(r"^\| (`.+?) \|", text.partition("\n## ")[0], re.M) for name in codes(row)]
    assert sorted(listed) == sorted(metadata)


HUB_FILES = ("configuration_sind", "modeling_sind", "image_processing_sind", "pipeline_sind", "losses")


@pytest.mark.parametrize("name", [*HUB_FILES, "bundled", "checkpoints", "data.manifests.manifest"])
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"sind_hf.{name}"), raise_on_error=False)
    assert result.attempted and not result.failed


def test_the_losses_page_runs() -> None:
    namespace: dict[str, Any] = {}
    for _, text in blocks(DOCS / "reference" / "losses.md"):
        exec(compile(text, "losses.md", "exec"), namespace)
    value = namespace["losses"].by_scene(namespace["quality"], namespace["scores"], namespace["scenes"])
    assert float(value) == 0


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ("tutorial.md", "README.md")], ids=str)
def test_other_examples_are_python_and_yaml(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            tree = ast.parse(text)
            for node in ast.walk(tree):  # the imported names exist
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sind_hf"):
                    module = importlib.import_module(str(node.module))
                    assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
        elif language == "yaml":
            document = yaml.safe_load(text)
            for group, values in document.items():
                assert set(values) <= {field.name for field in dataclasses.fields(GROUPS[group])}, group


# --- links and commands exist ----------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, place = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if place:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), target


def documented_commands(text: str) -> list[list[str]]:
    """Return the arguments of every `sind-hf` line in bash blocks, without the brackets around optional ones."""
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if re.search(r"\bsind-hf [a-z]", line)]
    return [[word.strip("[]") for word in each[each.index("sind-hf") + 1 :]] for each in words if "sind-hf" in each]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_can_be_given_as_documented(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make (\w+)", text, re.MULTILINE)) <= targets
    for words in documented_commands(text):
        command: Any = COMMANDS
        arguments = list(words)
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(" ".join(words[:2]), arguments)  # raises if the command line would be refused


# --- lists are complete ----------------------------------------------------------------------------------------------


def entries(page: Path) -> dict[str, str]:
    """Return the text below each heading `### name` of the API page, by name."""
    parts = re.split(r"^### `(\w+)`\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_api_page_has_every_public_name() -> None:
    assert sorted(entries(DOCS / "reference" / "python_api.md")) == sorted(sind_hf.__all__)


@pytest.mark.parametrize("name", [name for name in sind_hf.__all__ if name not in ("__version__", "ImageError")])
def test_signatures_are_those_of_the_code(name: str) -> None:
    text = entries(DOCS / "reference" / "python_api.md")[name].splitlines()[0].strip("`")
    assert text.startswith(f"{name}(")
    (function,) = ast.parse(f"def {text}: pass").body
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    named = [*given.args, *given.kwonlyargs]
    defaults: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    defaults += [*given.defaults, *given.kw_defaults]
    real = inspect.signature(getattr(sind_hf, name)).parameters
    for argument, default in zip(named, defaults, strict=True):
        parameter = real[argument.arg]
        assert (default is None) == (parameter.default is parameter.empty), argument.arg
        if default is not None and (value := ast.literal_eval(default)) is not ...:
            assert value == parameter.default, argument.arg
    if given.kwarg is None:
        assert [argument.arg for argument in named] == list(real)
        assert {argument.arg for argument in given.kwonlyargs} == {
            parameter.name for parameter in real.values() if parameter.kind is parameter.KEYWORD_ONLY
        }


def test_the_commands_page_is_made_from_the_commands() -> None:
    assert (DOCS / "reference" / "commands.md").read_text(encoding="utf-8") == commands_page()


def own_fields(options: type) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the fields that a group itself declares, with functions that return their defaults."""
    for field in dataclasses.fields(options):
        if field.name in options.__annotations__:
            made = field.default_factory
            yield field.name, (made if made is not dataclasses.MISSING else lambda value=field.default: value)


@pytest.mark.parametrize("group", GROUPS)
def test_the_configuration_page_has_every_key(group: str) -> None:
    rows = table(section(DOCS / "reference" / "configuration.md", f"`{group}`"))
    listed = {key.strip("`"): yaml.safe_load(cells[0]) for key, cells in rows.items()}
    assert listed == {name: default() for name, default in own_fields(GROUPS[group])}


def test_the_losses_page_has_every_loss() -> None:
    text = (DOCS / "reference" / "losses.md").read_text(encoding="utf-8").partition("## `by_scene`")[0]
    assert [key.strip("`") for key in table(text)] == list(LOSSES)


def test_the_reliability_page_names_tests_that_exist() -> None:
    page = DOCS / "explanation" / "reliability.md"
    text = page.read_text(encoding="utf-8").partition("## Attempts to break it")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    faults = [row for row in rows if row[0].strip() != "Fault"]
    assert len(faults) > 40
    for fault, _, tests in faults:
        assert codes(tests), f"{fault}: no test"
        for named in codes(tests):
            path, _, name = named.partition("::")
            assert (ROOT / path).is_file(), named
            functions = {
                each.name
                for each in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
                if hasattr(each, "name")
            }
            assert name in functions, f"{fault}: there is no {named}"

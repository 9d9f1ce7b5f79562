"""The documentation agrees with the program: headings of troubleshooting are its messages, and links have targets."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from vaectl.cli.app import COMMANDS
from vaectl.cli.spelling import spell_options
from vaectl.models import build_model, save_model
from vaectl.models.families.wan_config import AutoencoderKLWanConfig
from vaectl.options import cli_name, options_of

PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "src").rglob("*.md"), *(ROOT / "tools").rglob("*.md")]
)
DOCS = sorted((ROOT / "docs").glob("*.md"))
HEADINGS = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)


PUBLISHED = {
    "train": """--num_frames --resolution --batch_size --sample_rate --dynamic_sample --video_path --model_name
        --model_config --pretrained_model_name_or_path --ignore_mismatched_sizes --resume_from_checkpoint
        --not_resume_optimizer --not_resume_discriminator --not_resume_training_process --exp_name --seed --epochs
        --max_steps --save_ckpt_step --ckpt_dir --lr --weight_decay --log_steps --freeze_encoder --clip_grad_norm
        --enable_tiling --mix_precision --wavelet_loss --wavelet_weight --disc_start --disc_weight --kl_weight
        --perceptual_weight --loss_type --logvar_init --disc_cls --load_disc_from_checkpoint
        --find_unused_parameters --eval_video_path --eval_steps --eval_num_frames --eval_resolution
        --eval_sample_rate --eval_batch_size --eval_subset_size --eval_num_video_log --eval_lpips
        --dataset_num_worker --ema --ema_decay""",
    "reconstruct": """--video_path --rec_path --ae_path --from_pretrained --num_frames --height --width --sample_rate
        --fps --device --enable_tiling --enable_tilintg --save_memory --image_path --short_size
        --model_name --ae --tile_overlap_factor""",
    "prepare-eval": """--real_video_dir --generated_video_dir --ckpt --from_pretrained --num_frames --resolution
        --sample_rate --sample_fps --crop_size --crop_size_width --crop_size_height --batch_size --num_workers
        --subset_size --tile_overlap_factor --enable_tiling --output_origin --model_name --device""",
    "eval": """--metric --real_video_dir --generated_video_dir --batch_size --num_frames --resolution --crop_size
        --sample_rate --sample_fps --subset_size --num_workers --device --fvd_method --mp""",
}
"""Every flag of the published scripts, by the command that takes it."""


def text(node: ast.expr) -> str:
    """A text as the command line shows it, with … for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return spell_options("".join(text(part) for part in node.values))
    return spell_options(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def messages() -> list[str]:
    """Every text in the program, and the arguments of every call joined as a problem and its remedy are."""
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                found.append(text(node))
            elif isinstance(node, ast.Call):
                found.append("; ".join(map(text, node.args)))
    return found


MESSAGES = messages()


def test_there_are_headings():
    assert len(HEADINGS) > 20
    assert len(set(HEADINGS)) == len(HEADINGS)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_heading_is_a_message_of_the_program(heading):
    pieces = [piece for piece in heading.split("…") if piece]
    pattern = re.compile(".*?".join(map(re.escape, pieces)), re.DOTALL)
    assert any(pattern.search(message) for message in MESSAGES), f"no message reads like {heading}"


def test_the_hooks_run_the_commands_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ +entry: (.+)$", hooks, flags=re.MULTILINE) == commands
    assert re.findall(r"repo: (.+)$", hooks, flags=re.MULTILINE) == ["local"]


@pytest.mark.parametrize("field", ["version", "license"])
def test_the_citation_agrees_with_the_package(field):
    (value,) = re.findall(rf'^{field} = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert f"{field}: {value}" in (ROOT / "CITATION.cff").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if name.startswith(("http:", "https:")):
            continue
        file = page.parent / name if name else page
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}: there is no such heading"


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("command", PUBLISHED)
def test_a_command_has_a_page_that_links_to_its_options_and_does_not_repeat_them(command):
    page = (ROOT / "docs" / f"{command}.md").read_text()
    assert f"(cli.md#vaectl-{command})" in page
    assert "Usage: vaectl" not in page
    assert "| option | what it does |" not in page


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_the_readme_links_to_every_page(page: Path):
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", [*DOCS, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_command_line_uses_commands_and_options_that_exist(page: Path):
    models = {function.__name__.replace("_", "-"): model() for function, model, _ in COMMANDS}
    for line in command_lines(page.read_text()):
        command, *words = line.split()
        if command.startswith("-"):
            assert command in {"--version", "--versions", "--install-completion"}, line
            continue
        assert command in models, line
        options = options_of(models[command])
        known = {cli_name(name) for field, option in options.items() for name in (field, *option.aliases)}
        for word in words:
            if word.startswith("--"):
                name = word.split("=")[0].replace("_", "-")
                assert name in known or f"--{name.removeprefix('--no-')}" in known, f"{line}: {name}"


def command_lines(page: str) -> list[str]:
    """The command lines of vaectl in the code blocks of a page, each without the name of the program."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^((?: {4}[^\n]*\n)+)", page, flags=re.MULTILINE | re.DOTALL)
    text = "\n".join("".join(block) for block in blocks).replace("\\\n", " ")
    found = re.findall(r"^(?: {4})?\$? ?(?:\w+=\S+ )*(?:torchrun .*?-m )?vaectl +([a-z-].*)$", text, flags=re.MULTILINE)
    return [line.split("#")[0] for line in found]


@pytest.mark.parametrize("command", PUBLISHED)
def test_every_published_flag_is_taken_and_told(command):
    page = (ROOT / "docs" / "published-scripts.md").read_text()
    (section,) = (part for part in page.split("\n## ") if f"`vaectl {command}`\n" in part)
    first_cells = "".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("|"))
    published = set(PUBLISHED[command].split())
    hidden = documented_as_hidden(command)
    listed = set(re.findall(r"`(--\w+)`", first_cells))
    assert listed.isdisjoint(hidden)
    assert published <= listed | hidden
    assert listed <= published
    options = options_of(model_of(command)).items()
    assert published <= {f"--{name}" for field, option in options for name in (field, *option.aliases)}


@pytest.mark.parametrize("command", PUBLISHED)
def test_the_table_of_hidden_options_is_complete(command):
    options = options_of(model_of(command)).items()
    hidden = {f"--{name}" for field, option in options if option.hidden for name in (field, *option.aliases)}
    assert documented_as_hidden(command) == hidden


def model_of(command: str) -> type:
    (model,) = (model() for function, model, _ in COMMANDS if function.__name__.replace("_", "-") == command)
    return model


def documented_as_hidden(command: str) -> set[str]:
    """The flags that the table of hidden options lists for a command."""
    page = (ROOT / "docs" / "published-scripts.md").read_text()
    _, _, section = page.partition("\n## Options that only published commands need\n")
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    flags = " ".join(flags for flags, commands, _ in rows if command in commands.split(", "))
    return set(re.findall(r"`(--\w+)`", flags))


EXAMPLES = {"data.md": "", "python.md": "rec.mp4", "troubleshooting.md": "diffusion_pytorch_model.safetensors"}
"""The pages with Python examples, and the file that the example of each writes."""


def python_examples(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_every_page_with_python_examples_is_run():
    pages = {page.name for page in DOCS if python_examples(page.name)}
    assert pages == set(EXAMPLES)  # those of CONTRIBUTING.md are indented, and run in test_contributing.py


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES)
def test_the_python_examples_run(page, samples, tmp_path):
    code = "\n".join(python_examples(page)).replace("islice(loader, 100)", "islice(loader, 1)")
    code = code.replace("reader.timestamps()", "reader.timestamps(0, 9)")
    code = code.replace("reader.clips(batch_size=16)", "reader.clips(0, 9, batch_size=4)")
    (tmp_path / "example.py").write_text(code.replace("resolution=256", "resolution=32"))
    (tmp_path / "videos").mkdir()
    for name in ("clip.mp4", "long.mp4", "videos/clip.mp4"):
        (tmp_path / name).symlink_to(samples / "carphone_distorted.mp4")
    save_model(build_model(AutoencoderKLWanConfig(base_dim=8)), tmp_path / "Wan2.1-T2V-1.3B-Diffusers" / "vae")
    torch.save({"state_dict": {"gen_model": {"weight": torch.zeros(1)}}}, tmp_path / "model.ckpt")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / EXAMPLES[page]).exists()
    if page == "python.md":
        assert done.stdout.splitlines() == re.findall(r"^ *print\(.*\) +# (.+)$", code, flags=re.MULTILINE)
        assert done.stderr == ""
    if page == "data.md":
        assert "torch.Size([8, 17, 3, 32, 32])" in done.stdout

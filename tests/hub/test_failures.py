"""The cache of Hugging Face, and one line for every failure."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub.tools import BY_HAND, INDEX, NAME, OTHER, WEIGHTS, fetched, new_process, set_offline
from vaectl.cli.app import main
from vaectl.errors import UsageError, VaectlError
from vaectl.io import hub_client
from vaectl.io.hub_client import MB, _bar


def test_offline_a_cache_that_another_tool_has_filled_is_used(hub, monkeypatch, capsys):
    huggingface_hub.snapshot_download(NAME, allow_patterns=["vae/*", "model_index.json"])
    set_offline(monkeypatch, True)
    hub.requests.clear()
    capsys.readouterr()
    assert main(["models", NAME]) == 0
    assert capsys.readouterr().err == ""
    assert main(["models", f"{NAME}@v1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {NAME}@v1: no such file or directory, and the cache of Hugging Face lacks it (HF_HUB_OFFLINE is set);"
        f" unset HF_HUB_OFFLINE, or {BY_HAND}\n".replace(" --local", " --revision v1 --local")
    )
    assert hub.requests == []


def test_a_cache_that_lacks_a_part_is_not_used(hub, monkeypatch, vae, capsys):
    hub.repositories[OTHER] = {"main": {"config.json": vae["config.json"], f"{WEIGHTS}.index.json": INDEX}}
    for part in ("a-1.safetensors", "a-2.safetensors"):
        hub.repositories[OTHER]["main"][part] = b"0" * int(part[2])
    fetched(OTHER)
    next((Path("cache") / "models--some--repository").glob("snapshots/*/a-2.safetensors")).unlink()
    new_process(monkeypatch)
    set_offline(monkeypatch, True)
    with pytest.raises(UsageError, match="the cache of Hugging Face lacks it"):
        fetched(OTHER)


def test_a_damaged_file_in_the_cache_is_downloaded_again(hub, monkeypatch, vae):
    for file in ("config.json", WEIGHTS):
        path = fetched(NAME) / file
        path.write_bytes(path.read_bytes()[: -len(vae[file]) // 2] if file == WEIGHTS else b"")
        new_process(monkeypatch)
        hub.requests.clear()
        assert (fetched(NAME) / file).read_bytes() == vae[file]
        assert hub.downloads == [f"vae/{file}"]


def test_a_damaged_cache_is_named(hub, monkeypatch):
    config = fetched(NAME) / "config.json"
    config.write_bytes(b"")
    new_process(monkeypatch)
    set_offline(monkeypatch, True)
    with pytest.raises(UsageError) as error:
        fetched(NAME)
    assert str(error.value).startswith(f"{NAME}: {config}: cannot be read as JSON")
    assert error.value.remedy == "delete this file, and load the model again"
    ref = config.parents[3] / "refs" / "main"
    ref.write_bytes(b"\xff")
    for offline in (True, False):
        set_offline(monkeypatch, offline)
        with pytest.raises(UsageError) as error:
            fetched(NAME)
        assert str(error.value).startswith(f"{NAME}: {ref}: cannot be read ('utf-8' codec can't decode byte")
        assert error.value.remedy == "delete it, or set HF_HOME to another folder"


HTML = b"<html>log in</html>"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", HTML, b"null", b"[]", b'"x"', b"{}", b"5", b"[" * 200_000, b"\xff\xfe{", b'{"id": "a/b"}'),
        *(b'{"id": "a/b", "siblings": %s}' % part for part in (b"5", b"[{}]", b"[null]", b'[{"rfilename": 5}]')),
        b'{"id": "a/b", "siblings": [{"rfilename": "vae/config.json", "size": "x"}]}',
        *({"Location": "/api/models/a/b"}, {"Content-Encoding": "gzip"}),
    ],
)
def test_an_answer_that_is_no_list_of_files_is_one_line(hub, content):
    hub.listing = (HTML, content) if isinstance(content, dict) else (content, {})
    with pytest.raises(VaectlError) as error:
        fetched("a/b")
    host = hub.endpoint.removeprefix("http://")
    problem = f"a/b: no such file or directory, and {host} answered with something that is no list of files"
    assert error.value.problem == problem
    assert (error.value.exit_code, error.value.remedy[:30]) == (1, "check the path or the network,")


def test_an_answer_that_is_no_list_of_files_or_none_leaves_the_cache(hub, monkeypatch):
    path, notes = fetched(NAME), []
    monkeypatch.setattr(hub_client, "LIMIT", 0.3)
    for limit in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, limit, 0.3)
    for listing, pause in ((b"null", 0), (b" " * 100, 0.05)):
        new_process(monkeypatch)
        hub.listing, hub.pause = (listing, {}), pause
        assert fetched(NAME, notes.append) == path
    assert [note.partition(hub.endpoint[7:])[2].partition(";")[0] for note in notes] == [
        " answered with something that is no list of files",
        " cannot be reached (timed out)",
    ]


def test_no_message_has_the_password_of_the_endpoint_or_a_token(hub, monkeypatch):
    host = hub.endpoint.removeprefix("http://")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://user:secret@{host}")
    hub.gated.add(NAME)
    said = []
    for name, status in ((NAME, None), ("a/b", None), ("a/b", 503), ("a/b", 403)):
        hub.status = status
        with pytest.raises(VaectlError) as error:
            fetched(name)
        said.append(str(error.value))
    for token in ("secret\x01", "secret\u00e9", "secret secret"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(UsageError, match=r"^a/b: HF_TOKEN has characters that no token has; log in") as error:
            fetched("a/b")
        said.append(str(error.value))
    assert "secret" not in "".join(said)
    assert f"accept them at http://{host}/{NAME}" in said[0]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(
            ("HF_ENDPOINT", value)
            for value in ("http://[bad", "http://a:99999", "garbage", "ftp://x", "", "http://a..b")
        ),
        ("HF_HUB_ETAG_TIMEOUT", "abc"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1.5"),
    ],
)
def test_an_environment_variable_that_the_client_cannot_use_is_named(monkeypatch, variable, value):
    new_process(monkeypatch)
    for module in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError) as error:
        fetched(NAME)
    assert error.value.problem.startswith(f"{NAME}: ")
    assert f"{variable} " in error.value.problem
    assert "unset it" in error.value.remedy


@pytest.mark.parametrize(
    ("name", "change", "code", "said"),
    [
        ("no/such", None, 2, "no such file or directory, and {host} has no such repository; check the name; if it is"),
        (
            NAME,
            "gated",
            2,
            "{host} gives it only to users who have accepted its terms; accept them at http://{host}",
        ),
        (
            NAME,
            403,
            2,
            "{host} refuses access (status 403); check your access, and log in (hf auth login) or set HF_TOKEN",
        ),
        (
            NAME,
            503,
            1,
            "no such file or directory, and {host} answered with status 503; check the path or the network, or"
            f" {BY_HAND}",
        ),
        ("a/b--c", None, 2, "no such file or directory, and no name of a repository; check the path or the name"),
    ],
)
def test_every_failure_of_the_hub_is_one_line(hub, capsys, name, change, code, said):
    if change == "gated":
        hub.gated.add(NAME)
    else:
        hub.status = change
    assert main(["models", name]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {name}: {said.format(host=hub.endpoint.removeprefix('http://'))}")
    assert err.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_named(hub, monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["models", NAME]) == 1
    err = capsys.readouterr().err
    assert f"{tmp_path}/file" in err
    assert err.endswith(", with HF_HOME\n")
    assert err.count("\n") == 1


def test_without_the_package_the_line_that_downloads_is_the_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new_process(monkeypatch)
    for module in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, module, None)
    for command in (
        ["models"],
        ["train", "--video-path", ".", "--model"],
        ["train", "--video-path", ".", "--model-config"],
    ):
        assert main([*command, NAME]) == 2
        assert capsys.readouterr().err == (
            f"error: {NAME}: no such file or directory; to load it from Hugging Face, run pip install"
            f" huggingface_hub; or elsewhere, {BY_HAND}\n"
        )
    for name, line in (
        (
            "chestnutlzj/WF-VAE-L-16Chn",
            "hf download chestnutlzj/WF-VAE-L-16Chn --local-dir WF-VAE-L-16Chn; then pass --model WF-VAE-L-16Chn\n",
        ),
        (
            "LanguageBind/Open-Sora-Plan-v1.5.0",
            'hf download LanguageBind/Open-Sora-Plan-v1.5.0 --include "*vae*"'
            " --local-dir Open-Sora-Plan-v1.5.0; then pass its folder with config.json as --model\n",
        ),
        (
            "Wan-AI/Wan2.1-T2V-1.3B",
            'hf download Wan-AI/Wan2.1-T2V-1.3B --include "*VAE.pth" --local-dir Wan2.1-T2V-1.3B; then pass --model'
            " Wan2.1-T2V-1.3B\n",
        ),
        (
            "a/b/c/x.pth",
            'hf download a/b "c/x.pth" --local-dir b; then pass --model b/c/x.pth\n',
        ),
    ):
        assert main(["models", name]) == 2
        assert capsys.readouterr().err.endswith(line)


def test_ctrl_c_leaves_no_half_model_and_the_next_run_continues(hub, vae, tmp_path, monkeypatch):
    """In a process of its own, where the client reads the environment."""
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
    run = [sys.executable, "-m", "vaectl", "models", NAME]
    process = subprocess.Popen(run, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
    hub.halfway = lambda: (process.send_signal(signal.SIGINT), process.wait(60))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"note: downloading {NAME}/vae/{WEIGHTS}: 9 MB\nerror: interrupted\n"
    hub.halfway = None
    snapshot = next((tmp_path / "home" / "hub").glob("models--*/snapshots/*/vae"))
    assert [file.name for file in snapshot.iterdir()] == ["config.json"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    assert main(["models", NAME]) == 0
    assert (snapshot / WEIGHTS).read_bytes() == vae[WEIGHTS]


def test_a_download_is_shown_by_our_own_bar(capsys):
    calls = []
    bar_class = _bar(lambda: calls.append("begin"), calls.append)
    with bar_class(total=5 * MB, initial=MB, unit="B", unit_scale=True, desc="file", disable=False) as bar:
        for size in (MB // 2, MB // 2, 3 * MB):
            bar.update(size)
        bar.update_transfer(7)
        bar.set_transfer_postfix_str("fast", refresh=False)
        bar.set_postfix_str("fast", refresh=False)
    assert calls == ["begin", 1, 0, 1, 3]
    assert capsys.readouterr() == ("", "")


def test_a_failure_without_progress_leaves_the_client_as_it_was(hub):
    before = (huggingface_hub.utils.logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled())
    with pytest.raises(VaectlError):
        fetched("no/such")
    after = (huggingface_hub.utils.logging.get_verbosity(), huggingface_hub.utils.are_progress_bars_disabled())
    assert after == before

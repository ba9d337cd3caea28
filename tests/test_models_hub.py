"""What a name of a model promises: a folder, a snapshot of the hub, or a sentence and a way out."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from mdmbench.errors import UserError
from mdmbench.models.hub import locate

Asked = dict[str, Any]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> Asked:
    """The hub answers so; what it was asked comes back."""
    asked: Asked = {}

    def snapshot_download(name: str, **more: Any) -> str:
        asked.update(more, name=name)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def http(kind: type[errors.HfHubHTTPError]) -> Exception:
    response: Any = SimpleNamespace(headers={}, request=None, status_code=401)
    return kind("said no", response=response)


def test_a_folder_is_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("owner/name", None) == Path("owner/name")
    assert not asked
    with pytest.raises(UserError, match="is a folder and has no revision 'main'"):
        locate("owner/name", "main")


def test_a_hub_id_is_fetched_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, tmp_path)
    assert locate("GSAI-ML/LLaDA-8B-Base", "abc") == tmp_path
    assert (asked["name"], asked["revision"]) == ("GSAI-ML/LLaDA-8B-Base", "abc")
    assert "*.safetensors" in asked["allow_patterns"]
    assert {"*.json", "*.txt", "*.jinja", "*.model"} < set(asked["allow_patterns"])
    assert not any(Path("modeling.py").match(pattern) for pattern in asked["allow_patterns"])
    locate("GSAI-ML/LLaDA-8B-Base", None, weights=False)
    assert "*.safetensors" not in asked["allow_patterns"]


@pytest.mark.parametrize("name", ["sudokuu", "./no/such/folder", "a/b/c", "/abs", "../x"])
def test_what_is_neither_folder_nor_id_is_unknown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answering(monkeypatch, Path())
    with pytest.raises(UserError, match=r"unknown model .*\n.*FOLDER.*OWNER/NAME"):
        locate(name, None)
    assert not asked


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (http(errors.GatedRepoError), r"^a/b is gated.*\naccept them on .*/a/b, then .*HF_TOKEN"),
        (http(errors.RepositoryNotFoundError), r"neither a folder .*\ncheck the spelling"),
        (http(errors.RevisionNotFoundError), r"a/b has no revision 'r'"),
        (errors.HFValidationError("odd letters"), r"'a/b' is no hub id: odd letters"),
        (errors.LocalEntryNotFoundError("not cached"), r"cannot be fetched.*: not cached\n"),
        (OSError("no space left on device"), r"cannot be fetched.*: no space left"),
    ],
)
def test_every_refusal_of_the_hub_is_one_sentence_and_a_way_out(
    answer: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, answer)
    with pytest.raises(UserError, match=text) as caught:
        locate("a/b", "r")
    assert caught.value.hint


def test_offline_the_files_and_the_cache_they_lack_in_are_named(tmp_path: Path) -> None:
    code = "from mdmbench.models.hub import locate\nlocate('GSAI-ML/LLaDA-8B-Base', None)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stderr
    assert "*.safetensors" in said
    assert str(tmp_path / "models--GSAI-ML--LLaDA-8B-Base") in said
    assert "give its folder" in said

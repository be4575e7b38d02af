"""Put a saved model on the Hugging Face hub, with a card, progress and errors that say what to do.

An upload that broke off is resumed by beginning it again: the hub keeps each large file that has
arrived whole, under its SHA-256, and nothing is seen there until all are. A token given here goes to
the hub and nowhere else: into no file, event, message or environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

from tunebook.errors import HubNameTaken, RecipeInvalid
from tunebook.export.card import Curve, model_card, portable_recipe
from tunebook.export.commands import form_of
from tunebook.export.hub_errors import named_errors
from tunebook.export.progress import Progress
from tunebook.recipe import Recipe

_LEFT_OUT = {"README.md", "recipe.yaml"}  # written anew for the hub
_WEIGHTS = (".safetensors", ".gguf", ".bin")
_TRIES, _LONGEST_WAIT = 4, 60.0  # of a request that the hub has no time for; seconds
T = TypeVar("T")


def saved_token() -> bool:
    """Whether this machine is logged in: `hf auth login`, or a token in the environment."""
    from huggingface_hub import get_token

    return bool(get_token())


def upload(
    folder: Path | str,
    repo: str,
    *,
    token: str | None = None,
    private: bool = True,
    recipe: Recipe | None = None,
    repeatable: bool = True,
    numbers: Mapping[str, Any] | None = None,
    curve: Curve | None = None,
    replace: bool = False,
    progress: Progress | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a folder that `export` wrote, as one commit, and return the page's address.

    Args:
        folder: an adapter, a merged model or GGUF files.
        repo: "owner/name", or a name alone for the token's own account; made if it is not there.
        token: with the right to write; None takes the machine's login.
        private: whether a repository that is made is seen by its owner only.
        recipe: for the card and `recipe.yaml`; None takes the folder's.
        repeatable: whether the recipe says all of how the model was trained, and is uploaded too.
        numbers: what the run measured, for the card; these win over the recipe, and None leaves a
            line of it out.
        curve: the losses of the run, for the card.
        replace: whether another model that is in the repository gives way; its history keeps it.
        progress: told of bytes, file by file; stops between two files.
        endpoint: of another hub.

    Raises:
        HubNameTaken: the repository holds other weights and `replace` is off.
        HubRefused: the token or the name is not accepted, with what to do.
        HubUnreachable: there is no network, or the hub is down or busy.
        Cancelled: a stop was asked for; nothing was committed.
    """
    from huggingface_hub import CommitOperationDelete, HfApi

    folder, repo = Path(folder), repo.strip().strip("/")
    _require(folder, repo)
    recipe = recipe or Recipe.load(folder / "recipe.yaml")
    progress = progress or Progress()
    api = HfApi(endpoint=endpoint, token=token or None)
    with named_errors(repo, token):
        url = _patient(lambda: api.create_repo(repo, private=private, exist_ok=True), progress)
        name = url.repo_id
        files = _additions(folder)
        there = _patient(lambda: _files_of(api, name), progress)
        gone = _in_the_way(name, files, there, replace=replace)
        if replace or "README.md" not in there or _all_there(files, there):
            card = model_card(
                recipe,
                name=name,
                form=form_of(folder),
                files=[path for path, _, _ in files],
                numbers=numbers,
                curve=curve,
                repeatable=repeatable,
            )
            ours = [_text("README.md", card)]
            files = ours + [_text("recipe.yaml", _yaml(recipe))] * repeatable + files
        progress.begin(sum(size for _, size, _ in files))
        for _, size, addition in files:
            progress.add(0)  # raises where a stop was asked for
            send = partial(api.preupload_lfs_files, name, additions=[addition], free_memory=False)
            _patient(send, progress)
            progress.add(size)
        operations = [*(CommitOperationDelete(path) for path in gone), *(one for *_, one in files)]
        message = "Upload a model tuned with Tunebook"
        _patient(lambda: api.create_commit(name, operations, commit_message=message), progress)
    return str(url)


def _patient(call: Callable[[], T], progress: Progress) -> T:
    """The call's result, tried again after the wait that the hub asks for when it is busy (429)."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(1, _TRIES + 1):
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 429 or attempt == _TRIES:
                raise
            asked = error.response.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdigit() else 5.0 * 2**attempt
            if wait > _LONGEST_WAIT:
                raise
            until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            progress.add(0)  # raises where a stop was asked for
            time.sleep(min(left, 0.5))
    raise AssertionError("unreachable")


def _files_of(api: Any, repo: str) -> dict[str, str]:
    """The files of a repository and what tells each apart: SHA-256 of large ones, git's id of others."""
    info = api.model_info(repo, files_metadata=True)
    return {
        item.rfilename: item.lfs.sha256 if item.lfs else item.blob_id or ""
        for item in info.siblings or []
    }


def _in_the_way(
    repo: str, files: list[tuple[str, int, Any]], there: dict[str, str], *, replace: bool
) -> list[str]:
    """Weights in the repository that are not those uploaded, and with them what describes them.

    GGUF files of other names are no other model: many lie side by side.

    Raises:
        HubNameTaken: there are any, and `replace` is off.
    """
    ours = {path: one for path, _, one in files}
    only_gguf = not any(path.endswith((".safetensors", ".bin")) for path in ours)

    def is_other(path: str) -> bool:
        if path in ours:
            return _differs(ours[path], there[path])
        return not path.endswith(".gguf") and not only_gguf

    other = [path for path in there if path.endswith(_WEIGHTS) and is_other(path)]
    if other and not replace:
        raise HubNameTaken(
            f"The name {repo} is taken.",
            f"the repository holds another model already: {', '.join(other[:3])}.",
            "choose another name, or say that it gives way (`replace=True`, in a shell `--replace`): "
            "the repository's history keeps it.",
        )
    described = ("adapter_config.json", "config.json", "model.safetensors.index.json")
    gone = [*other, *(path for path in described if path in there)] if other else []
    return [path for path in gone if path not in ours]


def _all_there(files: list[tuple[str, int, Any]], there: dict[str, str]) -> bool:
    """Whether all weights to be uploaded are in the repository already, so that its card is ours."""
    weights = [(path, one) for path, _, one in files if path.endswith(_WEIGHTS)]
    return all(path in there and not _differs(one, there[path]) for path, one in weights)


def _differs(addition: Any, known: str) -> bool:
    """Whether a file is another than the one known by its SHA-256 or by git's id."""
    if len(known) == 64:
        return bool(addition.upload_info.sha256.hex() != known)
    with addition.as_file() as file:
        data = file.read()
    return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() != known


def _text(name: str, text: str) -> tuple[str, int, Any]:
    from huggingface_hub import CommitOperationAdd

    data = text.encode()
    return name, len(data), CommitOperationAdd(name, data)


def _yaml(recipe: Recipe) -> str:
    import yaml

    values = portable_recipe(recipe).model_dump(mode="json")
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def _additions(folder: Path) -> list[tuple[str, int, Any]]:
    """Name, bytes and operation of each file, but for those that are written anew."""
    from huggingface_hub import CommitOperationAdd

    names = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    return [
        (name, path.stat().st_size, CommitOperationAdd(name, path))
        for name, path in names.items()
        if name not in _LEFT_OUT
    ]


def _require(folder: Path, repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    models = ("adapter_config.json", "config.json", "*.gguf")
    if not any(file.is_file() for name in models for file in folder.glob(name)):
        raise RecipeInvalid(
            "There is nothing to upload.",
            f"{folder} holds neither an adapter nor a model.",
            "save the model first, then upload the folder that was written.",
        )
    try:
        if not repo:
            raise HFValidationError("it is empty")
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RecipeInvalid(
            f"The hub cannot have a repository named {repo!r}.",
            f"{error}",
            "write owner/name with letters, digits, `-`, `_` and `.`, such as maria/pirate-tiny.",
        ) from None

"""Put a saved model on the Hugging Face hub, with a card, progress and errors that say what to do.

A token given here goes to the hub and nowhere else: into no file, event, message or environment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunebook.errors import (
    HubRefused,
    HubTokenRefused,
    HubUnreachable,
    RecipeInvalid,
    TunebookError,
)
from tunebook.export.card import model_card, portable_recipe
from tunebook.export.progress import Progress
from tunebook.recipe import Recipe

_SETTINGS = "https://huggingface.co/settings/tokens"
_LEFT_OUT = {"README.md", "recipe.yaml"}  # written anew for the hub


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
    numbers: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload a folder that `export` wrote, as one commit, and return the page's address.

    Args:
        folder: an adapter or a merged model.
        repo: "owner/name", or a name alone for the token's own account; made if it is not there.
        token: with the right to write; None takes the machine's login.
        private: whether a repository that is made is seen by its owner only.
        recipe: for the card and `recipe.yaml`; None takes the folder's.
        numbers: what the run measured, for the card.
        progress: told of bytes, file by file; stops between two files.
        endpoint: of another hub.

    Raises:
        HubRefused: the token or the name is not accepted, with what to do.
        HubUnreachable: there is no network, or the hub is down.
        Cancelled: a stop was asked for; nothing was committed.
    """
    from huggingface_hub import HfApi

    folder, repo = Path(folder), repo.strip().strip("/")
    _require(folder, repo)
    recipe = recipe or Recipe.load(folder / "recipe.yaml")
    progress = progress or Progress()
    api = HfApi(endpoint=endpoint, token=token or None)
    with _named_errors(repo, token):
        url = api.create_repo(repo, private=private, exist_ok=True)
        files = _additions(folder, url.repo_id, recipe, numbers)
        progress.begin(sum(size for _, size in files))
        for addition, size in files:
            api.preupload_lfs_files(url.repo_id, additions=[addition], free_memory=False)
            progress.add(size)
        api.create_commit(
            url.repo_id,
            [addition for addition, _ in files],
            commit_message="Upload a model tuned with Tunebook",
        )
    return str(url)


def _additions(
    folder: Path, repo: str, recipe: Recipe, numbers: Mapping[str, Any] | None
) -> list[tuple[Any, int]]:
    """The files and their sizes, small ones of our own first."""
    import yaml
    from huggingface_hub import CommitOperationAdd

    form = "adapter" if (folder / "adapter_config.json").is_file() else "merged_16bit"
    card = model_card(recipe, name=repo, form=form, numbers=numbers)
    again = yaml.safe_dump(portable_recipe(recipe).model_dump(mode="json"), sort_keys=False)
    texts = {"README.md": card.encode(), "recipe.yaml": again.encode()}
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() not in _LEFT_OUT
    ]
    return [
        *((CommitOperationAdd(name, data), len(data)) for name, data in texts.items()),
        *(
            (CommitOperationAdd(path.relative_to(folder).as_posix(), path), path.stat().st_size)
            for path in files
        ),
    ]


def _require(folder: Path, repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if not any((folder / name).is_file() for name in ("adapter_config.json", "config.json")):
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


@contextmanager
def _named_errors(repo: str, token: str | None) -> Iterator[None]:
    """Errors of the hub in three parts; a token never gets into one."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except TunebookError:
        raise
    except LocalTokenNotFoundError:
        raise _refused(repo, 401, "") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(repo, status, _clean(error.server_message or str(error), token)) from None
    except Exception as error:
        raise _failed(repo, error, token) from None


def _failed(repo: str, error: Exception, token: str | None) -> TunebookError:
    """An error that is no answer of the hub: mostly there is no way to it."""
    said = _clean(str(error) or type(error).__name__, token)
    if _is_of_the_network(error):
        return HubUnreachable(
            "The hub cannot be reached.",
            said,
            "check the network (and HF_HUB_OFFLINE), then upload again: what is saved here stays.",
        )
    return HubRefused(
        f"{repo} could not be uploaded.",
        f"{type(error).__name__}: {said}",
        "upload again; if it stays so, upload the saved folder with `hf upload`.",
    )


def _is_of_the_network(error: Exception) -> bool:
    """By name, since the hub's client changes its HTTP library (requests, httpx, httpx2)."""
    names = {kind.__name__ for kind in type(error).__mro__}
    lost = {"TransportError", "RequestException", "OfflineModeIsEnabled"}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & lost)


def _refused(repo: str, status: int, said: str) -> HubRefused | HubUnreachable:
    """What each answer of the hub means here, and what helps."""
    owner = repo.split("/")[0] if "/" in repo else ""
    if status == 401:
        return HubTokenRefused(
            "The hub does not know you.",
            "no token was given, or it is wrong or no longer valid.",
            f"make one with the right to write at {_SETTINGS} and paste it here.",
        )
    if status == 403:
        whose = f" to {owner}" if owner else ""
        return HubRefused(
            f"The token may not write{whose}.",
            said or "it can only read, or it belongs to somebody else.",
            f"use your own name as the owner, or a token with the right to write: {_SETTINGS}.",
        )
    if status == 404:
        return HubRefused(
            f"The hub has no place for {repo}.",
            f"there is no user or organisation {owner or repo!r}, or the token may not see it.",
            "check the owner's spelling; leave the owner out to use your own account.",
        )
    if status >= 500 or status == 429:
        return HubUnreachable(
            "The hub cannot take it just now.",
            f"it answered {status}{f': {said}' if said else ''}.",
            "wait some minutes and upload again: what is saved here stays.",
        )
    return HubRefused(
        f"The hub did not accept {repo}.",
        f"it answered {status}{f': {said}' if said else ''}.",
        "change what it names, then upload again.",
    )


def _clean(text: str, token: str | None) -> str:
    return " ".join((text.replace(token, "[token]") if token else text).split())[:400]

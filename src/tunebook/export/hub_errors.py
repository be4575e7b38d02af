"""What the hub's answers mean for somebody who uploads, in three parts.

Knows status codes and the hub client's errors; sends nothing. A token never gets into a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunebook.errors import HubRefused, HubTokenRefused, HubUnreachable, TunebookError

_SETTINGS = "https://huggingface.co/settings/tokens"


@contextmanager
def named_errors(repo: str, token: str | None) -> Iterator[None]:
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
            "check the network (and HF_HUB_OFFLINE), then upload again: files that have arrived stay there.",
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
    if status == 429:
        return HubUnreachable(
            "The hub takes no more from you for now.",
            f"it answered 429, too many requests{f': {said}' if said else ''}.",
            "wait some minutes and upload again: files that have arrived are not sent again.",
        )
    if status >= 500:
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

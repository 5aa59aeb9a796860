"""Pushes an exported folder, or an announcement, to the Hub as one commit, or not at all.

The commit is on top of the state that was looked at, and deletes the files that the folder lacks.
What the Hub then holds is compared with the folder, digest by digest. Refuses before the first
request: without the run's evidence, a folder that changed since it was exported, a malformed name,
a missing token, a secret inside a file. The token is handed to the client and never printed. A
blocked verdict may be published: the card says so (docs/decisions/0012). The files of an
announcement are added to what the repository has, and no later push deletes them. Does not sign
anything, and does not touch other branches.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from picochat.core.errors import BadInput, HubProblem, Problem, WrongUsage
from picochat.core.network import Client, advice, hub_endpoint, open_client, short_error, unforeseen
from picochat.core.progress import say
from picochat.core.publish import file_names
from picochat.core.records import READ_BLOCK_BYTES, digest_file
from picochat.export.export_record import changed_since_export, read_export_record
from picochat.release.evidence import REPORTS, attached
from picochat.release.leaks import leaks_in_file
from picochat.run.graph import spec_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
ANNOUNCED = ("preregistration.json", "preregistration.md")
"""The files of an announcement (release/preregistration.py), which the model joins later."""
KEPT_ON_HUB = (".gitattributes", *ANNOUNCED)


@dataclass(frozen=True)
class PushTarget:
    """Where to publish. `token_variable`: the environment variable that holds the token."""

    repo_id: str
    private: bool = False
    token_variable: str = "HF_TOKEN"
    message: str | None = None


@dataclass(frozen=True)
class PushReport:
    """What the Hub holds now. `commit` is its head; `deleted` are files that only the Hub had."""

    repo_id: str
    commit: str
    files: int
    deleted: tuple[str, ...]

    def lines(self) -> list[str]:
        gone = f", {len(self.deleted)} stale deleted" if self.deleted else ""
        return [
            f"pushed {self.files} files to {self.repo_id} in one commit {self.commit}{gone}; read"
            " back: equal"
        ]


def push_target(
    push: bool, repo_id: str | None, private: bool, token_variable: str, message: str | None
) -> PushTarget | None:
    """The target that the flags name, or None where nothing is to be pushed.

    Raises WrongUsage for half of a wish.
    """
    if push and repo_id:
        return PushTarget(repo_id, private, token_variable, message)
    if push:
        raise WrongUsage("--push-to-hub needs a place", fix="--repo-id OWNER/NAME")
    if repo_id or private or message:
        raise WrongUsage(
            "--repo-id, --private and --commit-message are for a push",
            fix="add --push-to-hub, or leave them out",
        )
    return None


def require_target(target: PushTarget) -> str:
    """The token, once the target can be used and the environment lets the Hub be reached.

    Raises WrongUsage with everything that is wrong about the target, HubProblem of `open_client`.
    """
    problems: list[Problem] = []
    if (
        not REPO_ID.fullmatch(target.repo_id)
        or ".." in target.repo_id
        or "--" in target.repo_id
        or target.repo_id.endswith(".git")
    ):
        problems.append(
            Problem(
                f"--repo-id {target.repo_id!r} is not of the form OWNER/NAME",
                "for example --repo-id me/my-model",
            )
        )
    token = os.environ.get(target.token_variable, "").strip()
    if not token:
        problems.append(
            Problem(
                f"there is no token in {target.token_variable}",
                f"export {target.token_variable}=...",
            )
        )
    if problems:
        raise WrongUsage("the model cannot be pushed", problems=problems)
    open_client(target.token_variable)
    return token


def push_folder(folder: Path, target: PushTarget, token: str, message: str) -> PushReport:
    """Publish an exported folder as one commit of the model repository of the target.

    Raises BadInput for a folder that may not be published, HubProblem for what the network or the
    Hub answers.
    """
    require_publishable(folder, token)
    return _pushed(folder, sorted(file_names(folder)), target, token, message, whole=True)


def push_files(
    folder: Path, names: Sequence[str], target: PushTarget, token: str, message: str
) -> PushReport:
    """Add these files of a folder to the repository in one commit; its other files stay.

    Raises BadInput for a secret in them, HubProblem for what the network or the Hub answers.
    """
    if problems := _leaks(folder, names, token, "take it out of pack and settings"):
        raise BadInput(f"{folder} may not be published", problems=problems)
    return _pushed(folder, names, target, token, message, whole=False)


def _pushed(
    folder: Path, names: Sequence[str], target: PushTarget, token: str, message: str, *, whole: bool
) -> PushReport:
    client = open_client(target.token_variable)
    with hub_errors(target.repo_id, client):
        api = client.library.HfApi(endpoint=hub_endpoint(), token=token)
        return _push(api, folder, names, target, message, whole)


def _leaks(folder: Path, names: Sequence[str], token: str, remedy: str) -> list[Problem]:
    return [
        Problem(f"{name} holds {what}", remedy)
        for name in names
        for what in leaks_in_file(folder / name, name, is_log=False, known={"the token": token})
    ]


def require_publishable(folder: Path, token: str) -> None:
    """Raises BadInput with every reason why the folder may not be published."""
    record = read_export_record(folder)
    names = sorted(file_names(folder))
    problems = [
        Problem(f"{name} changed since the export", "export again")
        for name in changed_since_export(folder, record)
    ]
    problems += _leaks(folder, names, token, "take it out of the run, and export again")
    if not record.scored:
        problems.append(
            Problem(
                "these weights were not scored",
                "export the run's sft/checkpoint, without --allow-unscored",
            )
        )
    for kind in REPORTS:
        if not attached(folder, kind):
            fix = "finish the run (picochat run tiny --out-dir ...), then export again"
            problems.append(
                Problem(
                    f"the evidence is incomplete: {spec_of(kind).folder} ({kind}) is missing", fix
                )
            )
    if problems:
        raise BadInput(f"{folder} may not be published", problems=problems)


def _push(
    api: HfApi, folder: Path, names: Sequence[str], target: PushTarget, message: str, whole: bool
) -> PushReport:
    """One commit with these files. whole: it deletes the files that only the Hub has."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo_id, private = target.repo_id, target.private
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    head = api.model_info(repo_id)
    if private and not head.private:
        raise WrongUsage(
            f"{repo_id} is public, and --private was asked for",
            fix="make it private on the Hub, or leave --private out",
        )
    remote = remote_files(api, repo_id, head.sha)
    stale = _only_remote(remote, names) if whole else []
    say(f"pushing {len(names)} files to {repo_id} ...")
    operations: list[Any] = [CommitOperationAdd(name, str(folder / name)) for name in names]
    operations += [CommitOperationDelete(name) for name in stale]
    # parent_commit: where somebody else commits in between, the Hub refuses rather than mixes
    commit = api.create_commit(repo_id, operations, commit_message=message, parent_commit=head.sha)
    pushed = remote_files(api, repo_id, commit.oid)
    _compare(folder, names, pushed, _only_remote(pushed, names) if whole else [], repo_id)
    return PushReport(repo_id, commit.oid, len(names), tuple(stale))


def _only_remote(remote: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return sorted(set(remote) - set(names) - set(KEPT_ON_HUB))


def remote_files(api: HfApi, repo_id: str, revision: str | None) -> dict[str, str]:
    """Name -> digest of each file, as the Hub states it.

    It is sha256 for large files, and git's blob digest for the others.
    """
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, recursive=True, revision=revision)
    return {
        item.path: item.lfs.sha256 if item.lfs else item.blob_id
        for item in tree
        if isinstance(item, RepoFile)
    }


def _compare(
    folder: Path, names: Sequence[str], remote: Mapping[str, str], stale: list[str], repo_id: str
) -> None:
    wrong = [
        name
        for name in names
        if remote.get(name) not in (digest_file(folder / name), git_blob_digest(folder / name))
    ]
    wrong += stale
    if wrong:
        raise HubProblem(
            f"{repo_id} does not hold what was pushed",
            problems=[
                Problem(f"{name}: {'differs' if name in remote else 'is missing'}")
                for name in wrong
            ],
            fix="push again; where a .gitignore on the Hub hides files, delete it there first",
        )


def git_blob_digest(path: Path) -> str:
    """sha1 over `blob SIZE NUL CONTENT`: how git, and so the Hub, names a file."""
    hasher = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(READ_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


@contextmanager
def hub_errors(repo_id: str, client: Client) -> Iterator[None]:
    """What the client raises, as HubProblem with a remedy.

    `from None`: the client's own text may quote request headers.
    """
    try:
        yield
    except client.errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        answer = ANSWERS.get(status, OTHERWISE)
        raise HubProblem(
            f"the Hub refused {repo_id}: {answer.meaning} (status {status or 'unknown'})",
            fix=answer.fix,
        ) from None
    except client.errors.HFValidationError as error:
        raise WrongUsage(
            f"--repo-id {repo_id!r} cannot be used: {error}",
            fix="OWNER/NAME, 96 characters at most",
        ) from None
    except unforeseen(client) as error:
        raise HubProblem(
            f"the Hub could not be reached or gave an odd answer ({short_error(error)})",
            fix=f"{advice(error)}, then push again",
        ) from None


class Answer(NamedTuple):
    """What a status of the Hub means for a push."""

    meaning: str
    fix: str


ANSWERS = {
    400: Answer(
        "it does not accept the request (a licence or a card that it does not know?)",
        fix="check --license against the Hub's list of licences",
    ),
    401: Answer(
        "the token is not valid", fix="make a token that may write, then export HF_TOKEN=..."
    ),
    403: Answer(
        "the token may not write there",
        fix="use a token with write access to that owner, or another --repo-id",
    ),
    404: Answer(
        "there is no such owner or repository, or the token may not see it", fix="check --repo-id"
    ),
    409: Answer("somebody else is changing the repository", fix="push again"),
    412: Answer(
        "somebody else committed in between", fix="look at the repository, then push again"
    ),
    429: Answer("too many requests", fix="wait some minutes, then push again"),
}
OTHERWISE = Answer("it is not well", fix="wait, then push again")

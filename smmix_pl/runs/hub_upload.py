"""Uploading a folder to the Hugging Face hub, with errors that name the repository and the fix."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from smmix_pl.errors import InputError, one_line

EXISTS, NOT_ALLOWED = 409, (401, 403)
"""HTTP statuses."""


def check_repo(repo: str) -> None:
    """Check the name of a repository.

    Raises:
        InputError: The hub does not accept it.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(
            f"REPO={repo}: not the name of a repository ({one_line(error)}). Use USER/NAME."
        ) from error


def check_login(repo: str) -> None:
    """Check that there is a token. It is never taken from the command line, which others can read.

    Raises:
        InputError: There is none.
    """
    if not get_token():
        raise InputError(
            f"REPO={repo}: not logged in to the Hugging Face hub. Run `hf auth login`, set "
            "HF_TOKEN, or write the folder with --output."
        )


def upload_folder(folder: Path, repo: str, private: bool = False, overwrite: bool = False) -> str:
    """Create a model repository and upload a folder to it, in one commit.

    Args:
        folder: Folder of files.
        repo: USER/NAME, or NAME in the account of the token.
        private: Create a repository that only its owner can see.
        overwrite: If the repository exists, replace its files. Its visibility stays.

    Returns:
        Address of the repository.

    Raises:
        InputError: The hub cannot be reached, or it rejects the token, the name, or the files.
    """
    api = HfApi()
    try:
        created = api.create_repo(repo, private=private, exist_ok=overwrite)
        api.upload_folder(
            repo_id=created.repo_id, folder_path=folder, commit_message="Add model and card"
        )
    except HfHubHTTPError as error:
        reason, status = one_line(error)[:300], error.response.status_code
        if status == EXISTS:
            raise InputError(
                f"REPO={repo}: exists. Choose another name, or set --overwrite true."
            ) from error
        if status in NOT_ALLOWED:
            raise InputError(
                f"REPO={repo}: the token must not write there ({reason}). Log in with a token that "
                "has write access to this account."
            ) from error
        raise InputError(f"REPO={repo}: rejected by the hub ({reason}). Try again.") from error
    except (HTTPError, OSError) as error:
        raise InputError(
            f"REPO={repo}: the hub cannot be reached at {api.endpoint} ({one_line(error)[:200]}). "
            "Check the network, or write the folder with --output."
        ) from error
    return str(created)

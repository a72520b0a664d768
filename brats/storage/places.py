"""Places as people write them: a local path or an s3:// URL in one form, or one line that says how to write it."""

import os
import re
from urllib.parse import unquote

from brats.errors import SettingError

S3_SCHEMES = ("s3", "s3a")
URL_SCHEMES = (
    *S3_SCHEMES,
    "file",
    "s3n",
    "gs",
    "gcs",
    "http",
    "https",
    "ftp",
    "hdfs",
    "az",
    "abfs",
    "abfss",
    "wasb",
    "wasbs",
)
"""What a place may begin with by mistake of form; elsewhere a colon is part of a name."""
AZURE_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")
FOREIGN_SCHEMES = (*AZURE_SCHEMES, "gs", "gcs", "ftp", "hdfs", "az")
QUOTES = "'\"`\u2018\u2019\u201c\u201d"

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.S)
# An S3 address in a wrong form: another mark in place of the colon, or none; an ARN; something before the scheme.
_S3_MISTYPED = re.compile(r"(s3a?[^\w/]*//|arn:[\w-]*:s3:[^/]*:)(?P<rest>.*)", re.I | re.S)
_S3_BEHIND = re.compile(r"(.*[^a-z0-9])?s3a?[^\w/]*:[^\w/]*//(?P<rest>.*)", re.I | re.S)
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{\w+\})")


def absolute(place: str) -> str:
    """The place as other processes, with other working folders, can use it.

    Odd names of local folders that exist are taken as they are. Raises SettingError, one line, for anything that
    would be taken for another place than is meant.
    """
    _check_credentials(place)
    if any(ord(character) < 32 for character in place):
        raise SettingError(f"{place!r}: holds a line break or another control character; remove it")
    found = _SCHEME.fullmatch(place)
    if found and (found["scheme"].lower() in URL_SCHEMES or found["rest"].startswith("//")):
        _check_characters(place)
        return _of_url(place, found["scheme"].lower(), found["rest"])
    if re.match(r"[A-Za-z]:([/\\]|$)", place) or place.startswith("\\\\"):
        raise SettingError(
            f"{place}: a path of Windows; write the path under which this machine sees it, as /mnt/..."
        )
    path = os.path.expanduser(place)
    if not os.path.exists(path):
        _check_new_path(place, path)
    return _absolute(path)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise SettingError(
            f"{path}: the working folder is gone; change to another, or write the path in full"
        ) from None


def has_credentials(url: str) -> bool:
    """Whether a URL holds a user name or a password."""
    rest = url.partition("://")[2] or url  # of an address without a scheme
    host = rest.partition("/")[0]
    return "@" in host or (":" in host and "@" in rest)  # a secret may contain slashes


def _check_credentials(place: str) -> None:
    """Raise SettingError, without the secret, for a URL with a user name or a password."""
    scheme, colon, rest = place.partition(":")
    is_url = "://" in place or (colon and scheme.lower() in URL_SCHEMES)
    if not is_url or not has_credentials(place):
        return
    if scheme.lower() in AZURE_SCHEMES and ":" not in rest.partition("@")[0]:
        return  # the container stands before the account
    if scheme.lower() in FOREIGN_SCHEMES:
        raise SettingError(f"{scheme}://...: neither a local path nor an s3:// URL; use one of them")
    raise SettingError(
        f"{scheme}://...: holds credentials, which logs would show; take them out, and set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    )


def _check_new_path(place: str, path: str) -> None:
    """Raise SettingError for a local path that is hardly meant as it is written."""
    missing = _missing_part(path)
    _check_characters(missing)
    if found := _S3_MISTYPED.fullmatch(place) or _S3_BEHIND.fullmatch(missing):
        raise SettingError(f"{place}: write {_s3_url(found['rest'])}")
    if "://" in missing or "::" in missing or place.startswith("arn:"):
        raise SettingError(f"{place}: neither a local path nor an s3:// URL; use one of them")
    if path.startswith("~"):
        raise SettingError(
            f"{place}: this machine has no user {place[1:].partition('/')[0]!r}; write the whole path"
        )
    if re.match(r"[\w.@-]+:/|[\w.-]+@[\w.-]+:", place):
        raise SettingError(f"{place}: a folder of another machine; write the path under which this machine sees it")


def _missing_part(path: str) -> str:
    """What of a path does not exist yet: the folders above it are as somebody made them."""
    there = path
    while there and not os.path.exists(there):
        there = os.path.dirname(there.rstrip("/")) if "/" in there.rstrip("/") else ""
    return path[len(there) :].lstrip("/") if there.strip("/") else path


def _check_characters(place: str) -> None:
    """Raise SettingError for what a shell or a script has left in a place."""
    if place != place.strip():
        raise SettingError(f"{place!r}: begins or ends with a space; remove it")
    if place[:1] in QUOTES or place[-1:] in QUOTES:
        raise SettingError(f"{place}: begins or ends with a quotation mark; remove it")
    if found := _VARIABLE.search(place):
        raise SettingError(f"{place}: no shell has replaced {found[0]}; write its value")
    if "\\" in place:
        raise SettingError(f"{place}: write / in place of \\")


def _of_url(place: str, scheme: str, rest: str) -> str:
    if scheme in S3_SCHEMES:
        return _s3_place(place, scheme, rest)
    if scheme == "file":
        return _local_of_url(place, rest)
    raise SettingError(f"{place}: neither a local path nor an s3:// URL; use one of them")


def _s3_place(place: str, scheme: str, rest: str) -> str:
    if not rest.strip("/") or rest.startswith("///"):
        raise SettingError(f"{place}: names no bucket; write s3://BUCKET/FOLDER")
    bucket, *folders = rest.strip("/").split("/")
    if not rest.startswith("//") or not all(folders):
        raise SettingError(f"{place}: write {_s3_url(rest)}")
    if bucket.startswith("arn:"):
        raise SettingError(f"{place}: write {_s3_url(rest.rpartition(':')[2])}")
    if found := re.search(r"[*?]", rest):
        raise SettingError(f"{place}: {found[0]} stands for nothing in a URL; name the folder that holds the files")
    if " " in bucket:
        raise SettingError(f"{place}: the name of a bucket holds no space; write s3://BUCKET/FOLDER")
    if {".", ".."} & {bucket, *folders}:
        raise SettingError(f"{place}: S3 knows neither . nor ..; write the URL without them")
    return f"{scheme}:{rest.rstrip('/')}"


def _s3_url(rest: str) -> str:
    return "s3://" + "/".join(part for part in rest.split("/") if part)


def _local_of_url(place: str, rest: str) -> str:
    """The path of a file:// URL."""
    path = re.sub(r"^//(localhost)?(?=/)", "", rest, flags=re.IGNORECASE)
    if not path.startswith("/") or path.startswith("//"):
        raise SettingError(f"{place}: names no absolute path; write file:///FOLDER, or the path alone")
    return _absolute(unquote(path))

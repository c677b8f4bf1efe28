"""Where keys travel to instances: SSM parameters, or objects of an S3 bucket; never user data."""

import base64
import gzip
import json
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from ...errors import LaunchError
from .errors import code_of, translated

STANDARD_BYTES, ADVANCED_BYTES = 4096, 8192
ROOT_NAME = "flower-hpc"
DOOR_NAME = "door"
MISSING = ("ParameterNotFound", "NoSuchKey", "404")


class Store(Protocol):
    """Texts by name, below a prefix that belongs to one site."""

    def put(self, name: str, text: str, tags: Mapping[str, str]) -> None:
        """Write, or write anew."""
        ...

    def get(self, name: str) -> str | None:
        """Read; None where there is none."""
        ...

    def delete(self, names: Collection[str]) -> None:
        """Remove; no effect on what is not there."""
        ...

    def names(self) -> list[str]:
        """All that there are."""
        ...


class Parameters:
    """SecureString parameters of SSM, ``/flower-hpc/OWNER/NAME``.

    Parameters
    ----------
    client
        boto3's of ``ssm``.
    owner : str
        Whose.
    """

    def __init__(self, client: Any, owner: str) -> None:
        self._ssm, self._prefix = client, f"/{ROOT_NAME}/{owner}/"

    def put(self, name: str, text: str, tags: Mapping[str, str]) -> None:
        """Write, or write anew."""
        size, what = len(text.encode()), f"SSM parameter {self._prefix}{name}"
        if size > ADVANCED_BYTES:
            raise LaunchError(f"{what}: got {size} bytes, at most {ADVANCED_BYTES} fit: take keys: s3://...")
        tier = "Standard" if size <= STANDARD_BYTES else "Advanced"
        words = {"Name": self._prefix + name, "Value": text, "Type": "SecureString", "Tier": tier}
        try:
            try:
                # tags and Overwrite exclude each other
                self._ssm.put_parameter(
                    **words, Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
                )
            except Exception as error:
                if code_of(error) != "ParameterAlreadyExists":
                    raise
                self._ssm.put_parameter(**words, Overwrite=True)
        except Exception as error:
            raise translated(error, what) from error

    def get(self, name: str) -> str | None:
        """Read; None where there is none."""
        try:
            found = self._ssm.get_parameter(Name=self._prefix + name, WithDecryption=True)
            return str(found["Parameter"]["Value"])
        except Exception as error:
            if code_of(error) in MISSING:
                return None
            raise translated(error, f"SSM parameter {self._prefix}{name}") from error

    def delete(self, names: Collection[str]) -> None:
        """Remove; no effect on what is not there."""
        full = [self._prefix + name for name in names]
        try:
            for start in range(0, len(full), 10):
                self._ssm.delete_parameters(Names=full[start : start + 10])
        except Exception as error:
            raise translated(error, f"SSM parameters {self._prefix}") from error

    def names(self) -> list[str]:
        """All that there are."""
        wanted = [{"Key": "Name", "Option": "BeginsWith", "Values": [self._prefix]}]
        try:
            pages = self._ssm.get_paginator("describe_parameters").paginate(ParameterFilters=wanted)
            found = [one["Name"] for page in pages for one in page["Parameters"]]
        except Exception as error:
            raise translated(error, f"SSM parameters {self._prefix}") from error
        return [name.removeprefix(self._prefix) for name in found]


class Objects:
    """Objects of an S3 bucket, ``PREFIX/OWNER/NAME``, encrypted by S3.

    Parameters
    ----------
    client
        boto3's of ``s3``.
    place : str
        ``s3://BUCKET/PREFIX``.
    owner : str
        Whose.
    """

    def __init__(self, client: Any, place: str, owner: str) -> None:
        self._s3 = client
        self._bucket, _, prefix = place.removeprefix("s3://").partition("/")
        self._prefix = "".join(f"{part}/" for part in (prefix.strip("/"), owner) if part)
        self._what = f"s3://{self._bucket}/{self._prefix}"

    def put(self, name: str, text: str, tags: Mapping[str, str]) -> None:
        """Write, or write anew."""
        place = {"Bucket": self._bucket, "Key": self._prefix + name}
        try:
            self._s3.put_object(**place, Body=text.encode(), ServerSideEncryption="AES256")
        except Exception as error:
            raise translated(error, self._what + name) from error

    def get(self, name: str) -> str | None:
        """Read; None where there is none."""
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return str(found["Body"].read().decode())
        except Exception as error:
            if code_of(error) in MISSING:
                return None
            raise translated(error, self._what + name) from error

    def delete(self, names: Collection[str]) -> None:
        """Remove; no effect on what is not there."""
        try:
            for name in names:
                self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except Exception as error:
            raise translated(error, self._what) from error

    def names(self) -> list[str]:
        """All that there are."""
        try:
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            found = [one["Key"] for page in pages for one in page.get("Contents", ())]
        except Exception as error:
            raise translated(error, self._what) from error
        return [key.removeprefix(self._prefix) for key in found]


def as_text(files: Mapping[str, bytes]) -> str:
    """A node's bundle as one line of text: a thousand bytes or two."""
    # latin-1, not base64: what lies in it then shrinks as text does
    plain = {name: _opened(name, data).decode("latin-1") for name, data in files.items()}
    return base64.b64encode(gzip.compress(json.dumps(plain).encode(), 9, mtime=0)).decode()


def from_text(text: str) -> dict[str, bytes]:
    """The files of :func:`as_text`; LaunchError where it is something else."""
    try:
        plain = json.loads(gzip.decompress(base64.b64decode(text, validate=True)))
        files = {str(name): data.encode("latin-1") for name, data in plain.items()}
    except (OSError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise LaunchError(f"the node's bundle is damaged: {error}") from error
    if wrong := [name for name in files if "/" in name or name in ("", ".", "..")]:
        raise LaunchError(f"the node's bundle names a file {wrong[0]!r}, must be one of its own folder")
    return {
        name: gzip.compress(data, mtime=0) if name.endswith(".gz") else data for name, data in files.items()
    }


def _opened(name: str, data: bytes) -> bytes:
    return gzip.decompress(data) if name.endswith(".gz") else data

"""Names that people or messages give, as names of files."""

from hashlib import blake2b
from urllib.parse import quote

LONGEST = 120


def file_name(name: str) -> str:
    """A file's name for any text: no separator, no leading dot, not too long; other texts, other names."""
    quoted = quote(name, safe="", errors="replace").replace(".", "%2E")
    if len(quoted) > LONGEST:
        quoted = f"{quoted[:LONGEST]}~{blake2b(name.encode(errors='replace'), digest_size=8).hexdigest()}"
    return quoted or "_"

"""A message, or several, as a small text and the large data that it names.

The text is a pickle in which every array is a number, and so are long bytes in a config, such as SCAFFOLD's
control variate: neither goes through pickle. Both ends are ranks of one MPI job, that is one program of one
user, so that unpickling gives nobody a right.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any

from flwr.app import Array

Form = tuple[str, tuple[int, ...], str]
"""dtype, shape and stype of an array."""
LONG = 4096
"""Bytes that are worth a number of their own."""


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.data: list[bytes] = []

    def persistent_id(self, obj: Any) -> tuple[int, Form | None] | None:
        form: Form | None = None
        if type(obj) is Array:
            form = obj.dtype, tuple(int(n) for n in obj.shape), obj.stype
            self.data.append(obj.data)
        elif type(obj) is bytes and len(obj) >= LONG:
            self.data.append(obj)
        else:
            return None
        return len(self.data) - 1, form


class _Unpacker(pickle.Unpickler):
    def __init__(self, text: bytes, data: Sequence[bytes]) -> None:
        super().__init__(io.BytesIO(text))
        self._data = data

    def persistent_load(self, pid: tuple[int, Form | None]) -> Array | bytes:
        number, form = pid
        if form is None:
            return self._data[number]
        dtype, shape, stype = form
        return Array(dtype, shape, stype, self._data[number])


def pack(value: Any) -> tuple[bytes, list[bytes]]:
    """The text, and the bytes of what it names, not copied."""
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(value)
    return file.getvalue(), packer.data


def unpack(text: bytes, data: Sequence[bytes]) -> Any:
    """Inverse of :func:`pack`; what comes back is made of ``data`` itself."""
    return _Unpacker(text, data).load()

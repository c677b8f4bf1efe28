"""What the server refuses, in the words and shapes of a real one: objects of kind ``Status``."""

import json
from typing import Any, ClassVar

from kube.resources import Resource


class ApiError(Exception):
    """A request that is answered with a ``Status``."""

    def __init__(self, code: int, reason: str, message: str, details: dict | None = None):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> dict[str, Any]:
        """The body of the answer."""
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def about(resource: Resource | None, name: str) -> dict[str, Any]:
    """The ``details`` of a ``Status``."""
    if resource is None:
        return {}
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    return {key: value for key, value in details.items() if value}


def not_found(resource: Resource, name: str) -> ApiError:
    """404."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', about(resource, name))


def exists(resource: Resource, name: str) -> ApiError:
    """409, on creation."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, about(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """409, on change."""
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, about(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403."""
    what = f'{resource.qualified} "{name}"' if name else resource.qualified
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}", about(resource, name))


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def gone(asked: int, oldest: int) -> ApiError:
    """410: the history does not reach back that far."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


class Cause:
    """One thing wrong with one field."""

    REASONS: ClassVar = {
        "Required value": "FieldValueRequired",
        "Invalid value": "FieldValueInvalid",
        "Unsupported value": "FieldValueNotSupported",
        "Not found": "FieldValueNotFound",
        "Duplicate value": "FieldValueDuplicate",
        "Forbidden": "FieldValueForbidden",
        "Too long": "FieldValueTooLong",
    }

    def __init__(self, field: str, kind: str, detail: str = "", value: Any = None):
        shown = "" if value is None else f": {json.dumps(value, separators=(',', ':'))}"
        self.field, self.reason = field, self.REASONS[kind]
        self.message = f"{kind}{shown}" + (f": {detail}" if detail else "")

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """422, with every cause."""
    said = str(causes[0]) if len(causes) == 1 else f"[{', '.join(map(str, causes))}]"
    details = about(resource, name) | {"kind": resource.kind}
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(422, "Invalid", f'{resource.qualified_kind} "{name}" is invalid: {said}', details)

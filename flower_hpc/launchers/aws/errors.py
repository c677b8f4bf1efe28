"""What AWS says in our words: refused for good, no room just now, or nobody knows whether it happened."""

from typing import Any

from ...errors import LaunchError


class Refused(LaunchError):
    """It would be refused a second time too: no permission, expired credentials, a wrong value."""


class NoRoom(LaunchError):
    """Capacity, price or quota: the same may well work later, or elsewhere."""


class Unclear(LaunchError):
    """Throttled, or its answer was lost: it may have been done, and may be asked again."""


ROOM = frozenset(
    (
        "InstanceLimitExceeded",
        "InsufficientAddressCapacity",
        "InsufficientCapacity",
        "InsufficientCapacityOnOutpost",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientHostCapacity",
        "InsufficientInstanceCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientVolumeCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "VcpuLimitExceeded",
    )
)
AGAIN = frozenset(
    (
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TooManyUpdates",
        "Unavailable",
    )
)
EXPIRED = frozenset(
    ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId", "AuthFailure")
)
"""After these the credentials are read anew: someone may have renewed them."""


def of_code(code: str, message: str, what: str) -> LaunchError:
    """The error that an answer's code and message stand for; ``what`` is what was asked."""
    words = f"{what}: {' '.join(f'{code}: {message}'.split())}"
    if code in ROOM:
        return NoRoom(words)
    return Unclear(words) if code in AGAIN else Refused(words)


def translated(error: Exception, what: str) -> LaunchError:
    """What botocore raised, in one line with the server's own words."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        said: dict[str, Any] = dict(error.response.get("Error", {}))
        found = of_code(str(said.get("Code", "")), str(said.get("Message", "")), what)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Unclear(str(found)) if status >= 500 and isinstance(found, Refused) else found
    words = f"{what}: {' '.join(str(error).split())}"
    if isinstance(error, exceptions.HTTPClientError):  # no connection, no answer, half an answer
        return Unclear(words)
    return Refused(words)


def code_of(error: BaseException) -> str:
    """The code of botocore's ClientError, also where it is what led to ``error``; empty for others."""
    response = getattr(error, "response", getattr(error.__cause__, "response", None))
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""

"""Quantities such as ``500m`` and ``1Gi``, as the server reads and rewrites them."""

import re
from decimal import Decimal

BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
FORMAT = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"


def parse(text: str | int | float) -> Decimal:
    """The value of a quantity; a ValueError in the server's words for what is none."""
    if isinstance(text, bool) or not re.fullmatch(FORMAT[1:-1], str(text)):
        raise ValueError(f"quantities must match the regular expression '{FORMAT}'")
    number, suffix = re.fullmatch(FORMAT[1:-1], str(text)).groups()
    if number.count(".") > 1 or not re.search("[0-9]", number):
        raise ValueError(f"quantities must match the regular expression '{FORMAT}'")
    if suffix in BINARY:
        return Decimal(number) * 1024 ** BINARY[suffix]
    if suffix in DECIMAL:
        return Decimal(number) * Decimal(1000) ** DECIMAL[suffix]
    if re.fullmatch("[eE][-+]?[0-9]+", suffix):
        return Decimal(number + suffix)
    raise ValueError("unable to parse quantity's suffix")


def canonical(text: str | int | float) -> str:
    """How the server writes it: ``1000m`` becomes ``1``, ``1024Mi`` becomes ``1Gi``."""
    value = parse(text)
    if str(text).endswith("i") and (abs(value) >= 1024 or value == 0):
        for suffix, power in sorted(BINARY.items(), key=lambda item: -item[1]):
            if value and value % 1024**power == 0:
                return f"{int(value / 1024**power)}{suffix}"
        return str(int(value))
    return write(value)


def write(value: Decimal) -> str:
    """A number with the largest decimal suffix that leaves an integer."""
    if value == 0:
        return "0"
    for suffix, power in sorted(DECIMAL.items(), key=lambda item: -item[1]):
        scaled = value / Decimal(1000) ** power
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    return str(value)

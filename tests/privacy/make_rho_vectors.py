"""Makes the published vectors of rho: `python -m tests.privacy.make_rho_vectors` writes them anew.

No float and no random draw takes part, so tests/vectors/rho.json comes out the same on every machine; a test
makes it again.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from fa_core.metrics import exact_text
from fa_core.privacy.zcdp import BITS, conversion, implies, log

FILE = Path(__file__).parent.parent / "vectors" / "rho.json"

EPSILONS = ("0.000001", "0.01", "0.1", "0.5", "1", "1.5", "2", "4", "10", "100")
DELTAS = ("0.000000000000000001", "0.000000000001", "0.00000001", "0.000001", "0.01", "0.49")
LOGARITHMS = ("1", "3/2", "2", "100000000", "1000000001/1000000000", "1237940039285380274899124224/3")


def conversions() -> list[dict[str, str]]:
    """What a plan with this epsilon and delta carries."""
    made = []
    for epsilon in EPSILONS:
        for delta in DELTAS:
            found = conversion(Fraction(epsilon), Fraction(delta))
            assert found is not None
            rho, alpha = map(exact_text, found)
            made.append({"epsilon": epsilon, "delta": delta, "rho": rho, "alpha": alpha})
    return made


def verdicts() -> list[dict[str, Any]]:
    """What `implies` says, of numbers that are right, nearly right, and no plan's."""
    asked = [
        ("0.0172053180393", "30.52864", "1", "0.00000001"),
        ("0.0172053180394", "30.52864", "1", "0.00000001"),
        ("0.0172053180393", "30.5", "1", "0.00000001"),
        ("0.0172", "30.5", "1", "0.00000001"),
        ("0.0172", "2", "1", "0.00000001"),
        ("0.0172", "1", "1", "0.00000001"),
        ("0.0172", "0.5", "1", "0.00000001"),
        ("0", "30.5", "1", "0.00000001"),
        ("-1", "30.5", "1", "0.00000001"),
        ("0.0172", "30.5", "1", "0"),
        ("0.0172", "30.5", "1", "1"),
        ("0.0172", "30.5", "0", "0.00000001"),
        (f"1/{2**255}", "30.5", "1", "0.00000001"),
        (f"1/{2**256}", "30.5", "1", "0.00000001"),
        ("0.0172", f"{2**256}/{2**251 - 1}", "1", "0.00000001"),
    ]
    names = ("rho", "alpha", "epsilon", "delta")
    return [
        dict(zip(names, each, strict=True)) | {"implies": implies(*map(Fraction, each))} for each in asked
    ]


def logarithms() -> list[dict[str, str]]:
    """ln x as whole numbers of 2^-BITS, rounded down and up."""
    return [
        {
            "x": x,
            "down": str(log(Fraction(x), up=False) * 2**BITS),
            "up": str(log(Fraction(x), up=True) * 2**BITS),
        }
        for x in LOGARITHMS
    ]


def text() -> str:
    """The text of the file."""
    content = {"logarithms": logarithms(), "verdicts": verdicts(), "conversions": conversions()}
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())

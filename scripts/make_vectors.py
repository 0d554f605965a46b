"""Write tests/vectors again: `python scripts/make_vectors.py`.

Deterministic: every draw comes from a public seed (simulation only; no device draws so). The tests compare
what is checked in with what the package makes, and with plain implementations that share no code with it.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance import make_vectors as devices
from tests.secagg import make_vectors as secagg
from tests.wire import make_vectors as wire


def main() -> None:
    """Write every file."""
    texts = secagg.files() | devices.files() | {wire.FILE.name: json.dumps(wire.vector(), indent=1) + "\n"}
    for name, text in texts.items():
        (devices.FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text):,} bytes")


if __name__ == "__main__":
    main()

"""People's recorded speech out of Debian's packages: a folder for each voice or language, for `--speech`.

    apt-get download PACKAGE…          # those of `FILES` and `ARCHIVES`, into DEBS
    python -m scripts.bench.personal_voices.recordings DEBS OUT

Prompts of telephone exchanges, spoken letters and words of children's programs, and the dialogues of games.
asterisk-core-sounds stays out: the base learned from every other second of its English, and anchor sets are
made of all its languages.
"""

import argparse
import io
import re
import struct
import subprocess
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

FILES: Final[Mapping[str, tuple[str, str]]] = {
    "asterisk-prompt-es-co": ("asterisk-prompt-es-co", r"\.gsm$"),
    "asterisk-prompt-fr-armelle": ("asterisk-prompt-fr-armelle", r"\.gsm$"),
    "asterisk-prompt-it-menardi-wav": ("asterisk-prompt-it-menardi", r"\.wav$"),
    "fillets-ng-data-cs": ("fillets-cs", r"\.ogg$"),
    "fillets-ng-data-nl": ("fillets-nl", r"\.ogg$"),
    "klettres-data": ("klettres", r"/klettres/(?P<language>[^/]+)/.*\.ogg$"),
    "ktuberling-data": ("ktuberling", r"/sounds/(?P<language>[^/]+)/.*\.(ogg|wav|opus)$"),
    "tuxpaint-stamps-default": ("tuxpaint", r"_desc(_(?P<language>[A-Za-z_@]+))?\.ogg"),
}
"""Packages whose recordings are files: the voice, and which files; one that names a language has a folder for
it."""

GAMES_RATE: Final = 11_025
Found = Iterator[tuple[str, bytes]]
"""Names of files and their bytes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Unpack the packages in a folder and write the recordings in them. 1 where one is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("debs", type=Path, help="a folder of packages (.deb)")
    parser.add_argument("out", type=Path, help="the folder to write")
    given = parser.parse_args(arguments)
    packages = {each: sorted(given.debs.glob(f"{each}_*.deb")) for each in (*FILES, *ARCHIVES)}
    missing = [each for each, debs in packages.items() if not debs]
    if missing:
        print(f"not in {given.debs}: {', '.join(missing)}; apt-get download {' '.join(missing)}")
        return 1
    for package, debs in packages.items():
        with TemporaryDirectory() as unpacked:
            subprocess.run(["dpkg-deb", "-x", str(debs[-1]), unpacked], check=True)
            _write(package, Path(unpacked), given.out)
    return 0


def _write(package: str, root: Path, out: Path) -> None:
    if package in FILES:
        voice, pattern = FILES[package]
        for file in sorted(each for each in root.rglob("*") if each.is_file() and not each.is_symlink()):
            if (match := re.search(pattern, str(file))) is not None:
                language = match.groupdict().get("language")
                if "language" in match.groupdict():
                    folder = out / f"{voice}-{language or 'en'}"
                else:
                    folder = out / voice
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "_".join(file.parts[-4:])).write_bytes(file.read_bytes())
    else:
        voice, unpack = ARCHIVES[package]
        (out / voice).mkdir(parents=True, exist_ok=True)
        for name, data in unpack(root):
            (out / voice / name).write_bytes(data)


def _drascula(root: Path) -> Found:
    for file in sorted(root.rglob("*.ALS")):
        yield f"{file.stem}.wav", _wave(file.read_bytes())


def _sky(root: Path) -> Found:
    """The directory (sky.dnr) has 8 bytes a file: its number, the place in sky.dsk, flags and its size."""
    directory, disk = (next(root.rglob(name)).read_bytes() for name in ("sky.dnr", "sky.dsk"))
    for at in range(struct.unpack_from("<I", directory)[0]):
        entry = directory[4 + 8 * at : 12 + 8 * at]
        number, place, size = (
            int.from_bytes(entry[of], "little") for of in (slice(2), slice(2, 5), slice(5, 8))
        )
        place, size = (place & 0x7FFFFF) << 4 if place & 0x800000 else place, size & 0x3FFFFF
        if 50_000 <= number < 60_000 and size > 2000:
            yield f"{number}.wav", _wave(disk[place + 64 : place + size])


def _queen(root: Path) -> Found:
    """The archive (queen.1c) begins with 21 bytes a file: its name, a byte, the place and the size."""
    archive = next(root.rglob("queen.1c")).read_bytes()
    for at in range(struct.unpack_from(">H", archive, 13)[0]):
        name, place, size = struct.unpack_from(">12sxII", archive, 15 + 21 * at)
        plain = name.split(b"\0")[0].decode("latin1")
        if plain.endswith(".SB") and plain[0].isdigit():
            yield f"{plain}.mp3", archive[place : place + size]


def _wave(samples: bytes) -> bytes:
    """Return samples of 8 bits as a file that PyAV reads."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(1)
        written.setframerate(GAMES_RATE)
        written.writeframes(samples)
    return file.getvalue()


ARCHIVES: Final[Mapping[str, tuple[str, Callable[[Path], Found]]]] = {
    "drascula": ("drascula-en", _drascula),
    "beneath-a-steel-sky": ("beneath-a-steel-sky-en", _sky),
    "flight-of-the-amazon-queen": ("amazon-queen-en", _queen),
}
"""Games whose recordings lie in an archive of their own form."""


if __name__ == "__main__":
    raise SystemExit(main())

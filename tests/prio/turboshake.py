"""The XOF that the official test vectors use; the product uses HMAC-SHA256 and AES."""

from Crypto.Hash import TurboSHAKE128


class TurboShake:
    """XofTurboShake128 of draft-irtf-cfrg-vdaf, section 6.2.1."""

    seed_size = 32

    def stream(self, seed: bytes, tag: bytes, binder: bytes, length: int) -> bytes:
        message = len(tag).to_bytes(2, "little") + tag + bytes((len(seed),)) + seed + binder
        state = TurboSHAKE128.new(domain=1)
        state.update(message)
        return bytes(state.read(length))

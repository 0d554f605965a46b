"""Commands and dictation through a real recogniser: pocketsphinx with small grammars, parsed by hassil."""

import time
from collections.abc import Sequence

from hassil import Intents, recognize
from pocketsphinx import Decoder

from clients.fleet.phrases import DICTATION_GRAMMAR, INTENTS, NOT_UNDERSTOOD
from clients.runtime.detectors import SAMPLE_RATE, Pcm

_COMMANDS, _DICTATION = "commands", "dictation"


class Recogniser:
    """One decoder with two grammars. Its text is parsed or counted here and never returned."""

    def __init__(self) -> None:
        self._decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", lm=None)
        for name, rule in ((_COMMANDS, " | ".join(INTENTS.values())), (_DICTATION, DICTATION_GRAMMAR)):
            self._decoder.add_jsgf_string(name, f"#JSGF V1.0;\ngrammar {name};\npublic <all> = {rule};\n")
        sentences = {intent: {"data": [{"sentences": [rule]}]} for intent, rule in INTENTS.items()}
        self._intents = Intents.from_dict({"language": "en", "intents": sentences})
        self._parsed: dict[str, str] = {}

    def intent(self, pcm: Pcm) -> tuple[str, float]:
        """Return the intent that was understood, or NOT_UNDERSTOOD, and the milliseconds of decoding."""
        started = time.perf_counter()
        text = self._transcribe(pcm, _COMMANDS)
        milliseconds = 1_000 * (time.perf_counter() - started)
        if text not in self._parsed:
            result = recognize(text, self._intents)
            self._parsed[text] = result.intent.name if result else NOT_UNDERSTOOD
        return self._parsed[text], milliseconds

    def word_errors(self, pcm: Pcm, said: str) -> int:
        """Return how many words were inserted, deleted or substituted in recognising a dictated sentence."""
        return edit_distance(said.split(), self._transcribe(pcm, _DICTATION).split())

    def _transcribe(self, pcm: Pcm, grammar: str) -> str:
        self._decoder.activate_search(grammar)
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        return best.hypstr if best else ""


def edit_distance(said: Sequence[str], found: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions from one to the other (Levenshtein, 1966)."""
    costs = list(range(len(found) + 1))
    for i, wanted in enumerate(said, start=1):
        diagonal, costs[0] = costs[0], i
        for j, got in enumerate(found, start=1):
            changed = diagonal + (wanted != got)
            diagonal, costs[j] = costs[j], min(changed, costs[j] + 1, costs[j - 1] + 1)
    return costs[-1]

"""What the synthetic households say. Only the fleet builder knows these words; no table holds any text.

A command template is at once a hassil sentence and a JSGF expansion: the two agree on `(a|b)` and `[a]`.
"""

from collections.abc import Mapping
from types import MappingProxyType

WAKE_WORD = "okay_nabu"
WAKE_PHRASES: tuple[str, ...] = ("okay nabu", "okay, nabu.")

NEAR_MISSES: tuple[str, ...] = (
    "Okay, now do it again.",
    "Okay, another one then.",
    "Okay nobody knows.",
    "Okay, I'll be there soon.",
    "Okay never mind.",
    "Hey, have you seen my shoes?",
    "I caught a new bus.",
    "Oh, Katie, nah, you do it.",
)
"""Said at home now and then; several begin with "Okay"."""

TELEVISION_LINES: tuple[str, ...] = (
    "Okay, now move on.",
    "Okay, now you.",
    "Okay, not you.",
    "Okay, now Bruno.",
    "Okay now, who is next?",
    "Okay, now boys and girls.",
    "Okay, now move to the next round.",
    "Okay, no more questions.",
    "Okay, the bonus round.",
    "Okay, and now the news.",
)
"""An evening game show whose host begins every sentence with "Okay": the incident."""

TRAINING_NEGATIVES: tuple[str, ...] = (
    "Okay, so that is what we do.",
    "Okay, now I understand.",
    "Okay, not today.",
    "Okay, give me a minute.",
    "Okay boomer.",
    "Okay, nine of them.",
    "Okay Google, what is this?",
    "He said no, but you can.",
    "The cat and a bull.",
    "Nabucco is an opera.",
    "Can you turn the radio down?",
    "I think we should leave at seven.",
    "Hey Jarvis, good morning.",
    "Alexa, stop.",
)
"""Detector B learns from these, and is measured on none of them."""

INTENTS: Mapping[str, str] = MappingProxyType(
    {
        "turn_on": "turn on the (kitchen|bedroom|hall) (light|fan)",
        "turn_off": "turn off the (kitchen|bedroom|hall) (light|fan)",
        "set_timer": "set a timer for (five|ten|twenty) minutes",
        "cancel_timer": "cancel the timer",
        "get_time": "what time is it",
        "get_weather": "what is the weather (today|tomorrow)",
        "play_music": "play some (music|jazz)",
        "stop_music": "stop the music",
        "volume_up": "turn up the volume",
        "volume_down": "turn down the volume",
        "lock_door": "lock the front door",
        "add_item": "add (milk|bread) to the shopping list",
    }
)
"""Intent to template."""

NOT_UNDERSTOOD = "not_understood"
"""The predicted intent where the recogniser found no whole command."""

COMMANDS: tuple[tuple[str, str], ...] = (
    ("turn on the kitchen light", "turn_on"),
    ("turn on the bedroom fan", "turn_on"),
    ("turn on the hall light", "turn_on"),
    ("turn off the kitchen light", "turn_off"),
    ("turn off the bedroom light", "turn_off"),
    ("turn off the hall fan", "turn_off"),
    ("set a timer for five minutes", "set_timer"),
    ("set a timer for ten minutes", "set_timer"),
    ("set a timer for twenty minutes", "set_timer"),
    ("cancel the timer", "cancel_timer"),
    ("what time is it", "get_time"),
    ("what is the weather today", "get_weather"),
    ("what is the weather tomorrow", "get_weather"),
    ("play some music", "play_music"),
    ("play some jazz", "play_music"),
    ("stop the music", "stop_music"),
    ("turn up the volume", "volume_up"),
    ("turn down the volume", "volume_down"),
    ("lock the front door", "lock_door"),
    ("add milk to the shopping list", "add_item"),
)
"""The twenty commands spoken, each with its intent."""

DICTATION_GRAMMAR = (
    "[please] (tell|call|meet|ask|write to) (anna|david|my mother|the doctor|the office) "
    "(about the (meeting|letter|garden|train)|that i am (late|early|at home|on the bus)) "
    "(today|tomorrow|this evening|before noon|on monday)"
)
"""JSGF of everything that the dictation recogniser can recognise."""

DICTATIONS: tuple[str, ...] = (
    "please tell anna that i am late this evening",
    "call the doctor about the letter tomorrow",
    "ask my mother about the garden on monday",
    "write to the office about the meeting before noon",
    "meet david that i am on the bus today",
    "tell the office that i am at home tomorrow",
    "please call my mother about the train this evening",
    "tell david that i am early today",
)

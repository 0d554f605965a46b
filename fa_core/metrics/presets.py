"""The usual speech metrics by name, so that `metrics: [false_reject_rate, det]` is a plan.

A preset is nothing but a metric written out; `fa plan show` prints what it stands for.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "frr": "false_reject_rate",
        "fnr": "false_reject_rate",
        "miss_rate": "false_reject_rate",
        "false_negative_rate": "false_reject_rate",
        "false_rejection_rate": "false_reject_rate",
        "far": "false_accepts_per_hour",
        "fpr": "false_accepts_per_hour",
        "fa_h": "false_accepts_per_hour",
        "fah": "false_accepts_per_hour",
        "faph": "false_accepts_per_hour",
        "fa_per_hour": "false_accepts_per_hour",
        "false_alarm_rate": "false_accepts_per_hour",
        "false_acceptance_rate": "false_accepts_per_hour",
        "false_accept_rate": "false_accepts_per_hour",
        "false_alarms_per_hour": "false_accepts_per_hour",
        "false_wakes_per_hour": "false_accepts_per_hour",
        "roc": "det",
        "eer": "det",
        "det_curve": "det",
        "confusion_matrix": "intent_confusion",
        "wer": "word_error_rate",
        "word_errors": "word_error_rate",
        "ins_rate": "insertion_rate",
        "del_rate": "deletion_rate",
        "sub_rate": "substitution_rate",
        "insertions": "insertion_rate",
        "deletions": "deletion_rate",
        "substitutions": "substitution_rate",
        "hallucinations": "hallucination_rate",
        "words_in_silence": "hallucinated_words",
        "success_rate": "command_success_rate",
        "task_success_rate": "command_success_rate",
        "accuracy": "command_success_rate",
    }
)
"""Other usual names of a preset, in small letters, `_` for whatever is no letter. Suggested, never taken:
a plan says which metric it is."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "false_reject_rate": {
            "kind": "rate",
            "source": "wake_events",
            "of": {"outcome": "false_reject"},
            "over": {"outcome": ["true_accept", "false_reject"]},
            "expect": "0.1",
        },
        "false_accepts_per_hour": {
            "kind": "rate_per_hour",
            "source": "wake_events",
            "of": {"outcome": "false_accept"},
            "expect": "0.2",
        },
        "det": {"kind": "det", "source": "wake_events"},
        "wakes_per_hour": {
            "kind": "rate_per_hour",
            "source": "detections",
            "of": {},
            "expect": "0.5",
        },
        "detection_scores": {
            "kind": "histogram",
            "source": "detections",
            "field": "score",
            "edges": {"from": 0, "to": 1, "bins": 20},
        },
        "intent_confusion": {
            "kind": "confusion",
            "source": "command_events",
            "labels": [
                "turn_on",
                "turn_off",
                "set_timer",
                "cancel_timer",
                "get_time",
                "get_weather",
                "play_music",
                "stop_music",
                "volume_up",
                "volume_down",
                "lock_door",
                "add_item",
                "not_understood",
            ],
        },
        "correction_rate": {
            "kind": "rate",
            "source": "command_events",
            "of": {"corrected": True},
            "expect": "0.1",
        },
        "command_success_rate": {
            "kind": "rate",
            "source": "command_events",
            "of": {"succeeded": True},
            "expect": "0.8",
        },
        "word_error_rate": {
            "kind": "ratio",
            "source": "dictation_events",
            "of": "word_errors",
            "over": "words",
            "expect": "0.3",
        },
        "insertion_rate": {
            "kind": "ratio",
            "source": "dictation_events",
            "of": "insertions",
            "over": "words",
            "expect": "0.05",
            "max_of": 4,
            "max_over": 16,
        },
        "deletion_rate": {
            "kind": "ratio",
            "source": "dictation_events",
            "of": "deletions",
            "over": "words",
            "expect": "0.1",
            "max_of": 8,
            "max_over": 16,
        },
        "substitution_rate": {
            "kind": "ratio",
            "source": "dictation_events",
            "of": "substitutions",
            "over": "words",
            "expect": "0.2",
            "max_of": 8,
            "max_over": 16,
        },
        "hallucinated_words": {
            "kind": "mean",
            "source": "dictation_events",
            "field": "word_errors",
            "where": {"words": 0},
            "clip": {"from": 0, "to": 20},
            "expect": "1",
        },
        "hallucination_rate": {
            "kind": "rate",
            "source": "dictation_events",
            "of": {"word_errors": {"ge": 1}},
            "over": {"words": 0},
            "expect": "0.1",
        },
    }
)

"""What a release promises to every device, in sentences, limits included."""

from fractions import Fraction

from fa_core.privacy.accounting import epsilon_for
from fa_core.values import STEPS, TABLES, Layout, Release


def guarantee(release: Release) -> list[str]:
    """Return what is promised to every device by this release, sentence by sentence, limits included."""
    layout = release.layout
    sentences = [_claim(layout)]
    if any(block.part == STEPS for block in layout.blocks):
        between = 4 * layout.cost
        sentences.append(
            "What each device sent names its speaker: the claim is against a device that sends nothing. "
            f"Against another voice it is up to ({epsilon_for(between, layout.delta):.3g}, "
            f"{_short(layout.delta)}), rho {_short(between)}."
        )
    if release.engine == TABLES:
        sentences.append(
            "A simulation in which no device was asked: a fleet's tables were counted on one machine, which "
            "saw them all. The noise is as large as the plan says."
        )
        return sentences
    if layout.kappa is not None:
        sentences += _two_aggregators(layout, layout.kappa)
    elif layout.noise == "central":
        sentences.append(
            "The server added the noise: this holds against readers of the release only; "
            "the server sees the exact sum."
        )
    else:
        sentences.append(
            "The devices added the noise: the server, too, sees only the noised sum, as long as no more than "
            "the plan's share of devices work with it."
        )
    if not release.secure_aggregation:
        sentences.append("Secure aggregation was off: the server saw what each device sent.")
    return sentences


def _two_aggregators(layout: Layout, kappa: Fraction) -> list[str]:
    """Return what each of two aggregators could learn, who knows its own noise, and both together."""
    reader, helper = layout.cost / (1 + kappa), layout.cost / kappa

    def at(rho: Fraction) -> str:
        return f"rho {_short(rho)} (epsilon {epsilon_for(rho, layout.delta):.3g})"

    return [
        "Leader and helper each added noise of their own to a share that says nothing by itself. A reader of "
        f"the release faces {at(reader)} if both are honest; the leader, who knows its own noise, faces "
        f"{at(layout.cost)}, and the helper {at(helper)}.",
        "Leader and helper together could read every report: then nothing is promised. Either alone could "
        "falsify the sum.",
    ]


def _claim(layout: Layout) -> str:
    epsilon, delta = _short(layout.epsilon), _short(layout.delta)
    if layout.accounting == "pure":
        return f"This release is {epsilon}-differentially private for every device, facts and events alike."
    return (
        f"This release is ({epsilon}, {delta})-differentially private for every device, facts and events "
        f"alike (rho {_short(layout.cost)} of zero-concentrated differential privacy)."
    )


def _short(value: Fraction) -> str:
    return f"{float(value):.3g}"

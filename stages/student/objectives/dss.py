"""Distilling step by step (Hsieh et al. 2023, google-research/distilling-step-by-step): two tasks, two prompts."""

from stages.student.objective import Objective


class Dss(Objective):
    """`L = α L_pre + (1 − α) L_exp`, each task with a prompt of its own.

    Departure: the original puts both prefixes before T5's encoder and the targets into its decoder; here one decoder
    reads prompt and target, and the prompt carries no loss. Its rationales do not state the answer; ours end with it.
    """

    name = "dss"
    preset_tasks = ("predict", "explain")

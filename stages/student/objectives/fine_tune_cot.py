"""Fine-tune-CoT (Ho et al. 2023, itsnamgyu/reasoning-teacher): learn to write the rationale and then the answer."""

from stages.student.objective import Objective


class FineTuneCot(Objective):
    """`L = L_exp`: one target, the rationale with the sentence that states the answer behind it; the prompt is masked.

    Departures: the original separates question, rationale and answer by marks of its own (`###`, `-->`, `END`) and lets
    GPT-3 sample several rationales; here prompt, target and records are those of every other objective, so that nothing
    but the loss differs. Records are right by their answer in both; those of the second phase, which were written with
    the gold answer in sight, are among them unless `rationales.second_phase` is off.
    """

    name = "fine-tune-cot"
    preset_tasks = ("explain",)

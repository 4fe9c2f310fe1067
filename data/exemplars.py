"""Worked examples that a teacher is shown before the question, one list for each kind of answer.

They stand before questions of a user's own files and before made-up ones; each published data set has a list of its own
(`data.benchmark_exemplars`). Written for this project, in the manner that the steps rule `periods` expects: short
sentences, one thought each. The problems of the number list hold quantities that do not matter.
"""

from collections.abc import Sequence
from dataclasses import replace

from data.answers import with_choices
from data.records import AnswerKind, Question


def worked_number(text: str, reference: str, answer: str) -> Question:
    """A question whose answer is a number, with its rationale."""
    return _worked(text, reference, answer, "number")


def worked_numbers(text: str, reference: str, answer: str) -> Question:
    """One whose answer is several numbers or a ratio."""
    return _worked(text, reference, answer, "numbers")


def worked_boolean(text: str, reference: str, answer: str) -> Question:
    """One whose answer is yes or no."""
    return _worked(text, reference, answer, "boolean")


def worked_text(text: str, reference: str, answer: str) -> Question:
    """One whose answer is a few words."""
    return _worked(text, reference, answer, "text")


def worked_choice(stem: str, choices: Sequence[str], reference: str, answer: str) -> Question:
    """One whose answer is the letter of a choice."""
    return replace(_worked(with_choices(stem, choices), reference, answer, "choice"), choices=tuple(choices))


def _worked(text: str, reference: str, answer: str, kind: AnswerKind) -> Question:
    return Question(id="exemplar", dataset="exemplar", text=text, answer=answer, answer_kind=kind, reference=reference)


_NUMBERS = (
    worked_number(
        "A ferry left the harbour with 38 passengers and 12 cars. At the island 15 passengers got off. "
        "How many passengers stayed on the ferry?",
        "The question asks about passengers, so the cars do not matter. The ferry started with 38 passengers. "
        "15 of them got off. 38 - 15 = 23.",
        "23",
    ),
    worked_number(
        "Nadia planted 6 rows of tulips with 9 tulips in each row. Her brother planted 14 roses. "
        "How many tulips did Nadia plant?",
        "The roses were planted by her brother and do not count. There are 6 rows with 9 tulips each. 6 * 9 = 54.",
        "54",
    ),
    worked_number(
        "A baker packed 96 rolls into bags of 8. Each bag costs $3. How much does the baker earn by selling all bags?",
        "96 rolls in bags of 8 make 96 / 8 = 12 bags. Each bag brings $3. 12 * 3 = 36.",
        "36",
    ),
    worked_number(
        "Viktor has 25 more stamps than Lena. Lena has 17 stamps and 4 postcards. How many stamps does Viktor have?",
        "The postcards do not matter. Lena has 17 stamps. Viktor has 25 more than that. 17 + 25 = 42.",
        "42",
    ),
    worked_number(
        "A hiking group walked 7.5 km before lunch. After lunch they walked 2 hours at 4 km per hour. "
        "How many kilometres did they walk in all?",
        "After lunch they walked 2 * 4 = 8 km. Before lunch it was 7.5 km. 7.5 + 8 = 15.5.",
        "15.5",
    ),
    worked_number(
        "The library owned 1,200 comics. It sold a quarter of them and then bought 85 new ones. "
        "How many comics does it own now?",
        "A quarter of 1,200 is 1200 / 4 = 300. After the sale it owned 1200 - 300 = 900 comics. "
        "With the new ones it owns 900 + 85 = 985.",
        "985",
    ),
    worked_number(
        "Omar saved $45 in May and $30 in June. In July he spent $52 on shoes. How much of his savings is left?",
        "In two months Omar saved 45 + 30 = 75 dollars. He spent 52 of them. 75 - 52 = 23.",
        "23",
    ),
    worked_number(
        "There are 5 boxes with 18 candles each and 3 boxes with 20 matches each. The candles are shared equally "
        "among 10 tables. How many candles does each table get?",
        "Only the candles matter. There are 5 * 18 = 90 candles. They are shared among 10 tables. 90 / 10 = 9.",
        "9",
    ),
)

_CHOICES = (
    worked_choice(
        "Where would someone most likely keep milk so that it does not spoil?",
        ("cupboard", "refrigerator", "window sill", "oven", "garage"),
        "Milk spoils quickly when it is warm. A place that is always cold is needed. "
        "Of the choices, only a refrigerator is kept cold.",
        "B",
    ),
    worked_choice(
        "The violinist tightened the bow before going on, what was she about to do?",
        ("go fishing", "wrap a gift", "cook dinner", "perform music", "repair a roof"),
        "A violinist plays the violin with a bow. Going on means stepping onto a stage. "
        "On a stage a violinist performs music.",
        "D",
    ),
    worked_choice(
        "What does a person need most after running a marathon on a hot day?",
        ("water", "an umbrella", "a heavy coat", "a newspaper", "loud noise"),
        "Running on a hot day makes a person sweat. Sweating takes water out of the body. "
        "The lost water has to be replaced.",
        "A",
    ),
    worked_choice(
        "If a street is icy, what might a careless driver cause?",
        ("a parade", "a haircut", "an accident", "good grades", "a harvest"),
        "Ice makes a street slippery. On a slippery street a car is hard to stop. "
        "A careless driver may then hit something, which is an accident.",
        "C",
    ),
    worked_choice(
        "Where do people usually wait before a doctor sees them?",
        ("swimming pool", "parking lot", "stage", "kitchen", "waiting room"),
        "Patients arrive before the doctor has time for them. A doctor's practice has a room with chairs for that. "
        "It is called the waiting room.",
        "E",
    ),
    worked_choice(
        "The old bridge groaned under the truck, what was the engineer afraid of?",
        ("collapse", "rainbow", "promotion", "traffic lights", "picnic"),
        "A truck is heavy. An old bridge may be too weak for it. "
        "Groaning is a sign that the structure gives way, so the engineer feared a collapse.",
        "A",
    ),
    worked_choice(
        "What is a common reason for learning a foreign language?",
        ("losing weight", "growing taller", "travelling abroad", "fixing a sink", "sleeping longer"),
        "A foreign language is spoken in another country. It helps to talk with people there. "
        "People meet them when travelling abroad.",
        "C",
    ),
)

_BOOLEANS = (
    worked_boolean(
        "Could a penguin visit the roof of a house by flying there?",
        "Penguins are birds that cannot fly. Reaching a roof by flying needs the ability to fly.",
        "no",
    ),
    worked_boolean(
        "Would a candle burn longer than a match of ordinary size?",
        "A match burns for less than a minute. A candle burns for several hours. Hours are longer than a minute.",
        "yes",
    ),
    worked_boolean(
        "Did people in ancient Rome listen to the radio?",
        "Ancient Rome ended in the fifth century. The radio was invented in the nineteenth century. "
        "Nothing can be used before it is invented.",
        "no",
    ),
    worked_boolean(
        "Can a full bathtub hold more water than a hundred drinking glasses?",
        "A bathtub holds about 150 litres. A drinking glass holds about 0.25 litres. "
        "A hundred glasses hold 25 litres, which is less than 150.",
        "yes",
    ),
    worked_boolean(
        "Would a vegetarian order the grilled salmon?",
        "Salmon is a fish. Vegetarians do not eat meat or fish.",
        "no",
    ),
    worked_boolean(
        "Is a piano tuner likely to own a tuning fork?",
        "A piano tuner sets the pitch of strings. A tuning fork gives a reference pitch. "
        "It is a usual tool of that trade.",
        "yes",
    ),
)

_TEXTS = (
    worked_text(
        "Which city is further north, Oslo or Madrid?",
        "Oslo lies in Norway at about 60 degrees north. Madrid lies in Spain at about 40 degrees north. "
        "60 is more than 40.",
        "Oslo",
    ),
    worked_text(
        "What is the third letter of the word garden?",
        "The word garden is spelled g, a, r, d, e, n. The first letter is g and the second is a. The next one is r.",
        "r",
    ),
    worked_text(
        "Today is Tuesday. What day of the week will it be in ten days?",
        "Seven days after Tuesday it is Tuesday again. Three more days remain. "
        "They are Wednesday, Thursday and Friday.",
        "Friday",
    ),
    worked_text(
        "Anna is older than Bert. Bert is older than Carl. Who is the youngest?",
        "Anna is older than Bert, so she is not the youngest. Bert is older than Carl. Nobody is younger than Carl.",
        "Carl",
    ),
)

_SEVERAL_NUMBERS = (
    worked_numbers(
        "A bag holds 12 red and 20 green marbles. What is the ratio of red to green marbles?",
        "Both numbers can be divided by 4. For the red ones 12 / 4 = 3. For the green ones 20 / 4 = 5.",
        "3:5",
    ),
    worked_numbers(
        "The sum of two numbers is 30 and their difference is 8. Find both, the larger one first.",
        "Twice the larger number is 30 + 8 = 38. So it is 38 / 2 = 19. The smaller one is 30 - 19 = 11.",
        "19; 11",
    ),
    worked_numbers(
        "A square has sides of 9 cm. Find its perimeter and its area.",
        "The perimeter is 4 * 9 = 36. The area is 9 * 9 = 81.",
        "36; 81",
    ),
    worked_numbers(
        "A bus leaves at 8:40 and needs 35 minutes. When does it arrive?",
        "20 minutes after 8:40 it is 9 o'clock. Then 35 - 20 = 15 minutes are left. That is a quarter past nine.",
        "9:15",
    ),
)

EXEMPLARS: dict[AnswerKind, tuple[Question, ...]] = {
    "number": _NUMBERS,
    "numbers": _SEVERAL_NUMBERS,
    "choice": _CHOICES,
    "boolean": _BOOLEANS,
    "text": _TEXTS,
}

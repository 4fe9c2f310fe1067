"""Worked examples that a teacher is shown before the question, one list for each kind of answer.

Written for this project, in the manner that the steps rule `periods` expects: short sentences, one thought each. The
problems of the number list hold quantities that do not matter, as SVAMP's do.
"""

from collections.abc import Sequence

from data.answers import with_choices
from data.records import AnswerKind, Question


def _number(text: str, reference: str, answer: str) -> Question:
    return Question(
        id="exemplar", dataset="exemplar", text=text, answer=answer, answer_kind="number", reference=reference
    )


def _choice(stem: str, choices: Sequence[str], reference: str, answer: str) -> Question:
    return Question(
        id="exemplar",
        dataset="exemplar",
        text=with_choices(stem, choices),
        answer=answer,
        answer_kind="choice",
        choices=tuple(choices),
        reference=reference,
    )


def _boolean(text: str, reference: str, answer: str) -> Question:
    return Question(
        id="exemplar", dataset="exemplar", text=text, answer=answer, answer_kind="boolean", reference=reference
    )


def _text(text: str, reference: str, answer: str) -> Question:
    return Question(
        id="exemplar", dataset="exemplar", text=text, answer=answer, answer_kind="text", reference=reference
    )


_NUMBERS = (
    _number(
        "A ferry left the harbour with 38 passengers and 12 cars. At the island 15 passengers got off. "
        "How many passengers stayed on the ferry?",
        "The question asks about passengers, so the cars do not matter. The ferry started with 38 passengers. "
        "15 of them got off. 38 - 15 = 23.",
        "23",
    ),
    _number(
        "Nadia planted 6 rows of tulips with 9 tulips in each row. Her brother planted 14 roses. "
        "How many tulips did Nadia plant?",
        "The roses were planted by her brother and do not count. There are 6 rows with 9 tulips each. 6 * 9 = 54.",
        "54",
    ),
    _number(
        "A baker packed 96 rolls into bags of 8. Each bag costs $3. How much does the baker earn by selling all bags?",
        "96 rolls in bags of 8 make 96 / 8 = 12 bags. Each bag brings $3. 12 * 3 = 36.",
        "36",
    ),
    _number(
        "Viktor has 25 more stamps than Lena. Lena has 17 stamps and 4 postcards. How many stamps does Viktor have?",
        "The postcards do not matter. Lena has 17 stamps. Viktor has 25 more than that. 17 + 25 = 42.",
        "42",
    ),
    _number(
        "A hiking group walked 7.5 km before lunch. After lunch they walked 2 hours at 4 km per hour. "
        "How many kilometres did they walk in all?",
        "After lunch they walked 2 * 4 = 8 km. Before lunch it was 7.5 km. 7.5 + 8 = 15.5.",
        "15.5",
    ),
    _number(
        "The library owned 1,200 comics. It sold a quarter of them and then bought 85 new ones. "
        "How many comics does it own now?",
        "A quarter of 1,200 is 1200 / 4 = 300. After the sale it owned 1200 - 300 = 900 comics. "
        "With the new ones it owns 900 + 85 = 985.",
        "985",
    ),
    _number(
        "Omar saved $45 in May and $30 in June. In July he spent $52 on shoes. How much of his savings is left?",
        "In two months Omar saved 45 + 30 = 75 dollars. He spent 52 of them. 75 - 52 = 23.",
        "23",
    ),
    _number(
        "There are 5 boxes with 18 candles each and 3 boxes with 20 matches each. The candles are shared equally "
        "among 10 tables. How many candles does each table get?",
        "Only the candles matter. There are 5 * 18 = 90 candles. They are shared among 10 tables. 90 / 10 = 9.",
        "9",
    ),
)

_CHOICES = (
    _choice(
        "Where would someone most likely keep milk so that it does not spoil?",
        ("cupboard", "refrigerator", "window sill", "oven", "garage"),
        "Milk spoils quickly when it is warm. A place that is always cold is needed. "
        "Of the choices, only a refrigerator is kept cold.",
        "B",
    ),
    _choice(
        "The violinist tightened the bow before going on, what was she about to do?",
        ("go fishing", "wrap a gift", "cook dinner", "perform music", "repair a roof"),
        "A violinist plays the violin with a bow. Going on means stepping onto a stage. "
        "On a stage a violinist performs music.",
        "D",
    ),
    _choice(
        "What does a person need most after running a marathon on a hot day?",
        ("water", "an umbrella", "a heavy coat", "a newspaper", "loud noise"),
        "Running on a hot day makes a person sweat. Sweating takes water out of the body. "
        "The lost water has to be replaced.",
        "A",
    ),
    _choice(
        "If a street is icy, what might a careless driver cause?",
        ("a parade", "a haircut", "an accident", "good grades", "a harvest"),
        "Ice makes a street slippery. On a slippery street a car is hard to stop. "
        "A careless driver may then hit something, which is an accident.",
        "C",
    ),
    _choice(
        "Where do people usually wait before a doctor sees them?",
        ("swimming pool", "parking lot", "stage", "kitchen", "waiting room"),
        "Patients arrive before the doctor has time for them. A doctor's practice has a room with chairs for that. "
        "It is called the waiting room.",
        "E",
    ),
    _choice(
        "The old bridge groaned under the truck, what was the engineer afraid of?",
        ("collapse", "rainbow", "promotion", "traffic lights", "picnic"),
        "A truck is heavy. An old bridge may be too weak for it. "
        "Groaning is a sign that the structure gives way, so the engineer feared a collapse.",
        "A",
    ),
    _choice(
        "What is a common reason for learning a foreign language?",
        ("losing weight", "growing taller", "travelling abroad", "fixing a sink", "sleeping longer"),
        "A foreign language is spoken in another country. It helps to talk with people there. "
        "People meet them when travelling abroad.",
        "C",
    ),
)

_BOOLEANS = (
    _boolean(
        "Could a penguin visit the roof of a house by flying there?",
        "Penguins are birds that cannot fly. Reaching a roof by flying needs the ability to fly.",
        "no",
    ),
    _boolean(
        "Would a candle burn longer than a match of ordinary size?",
        "A match burns for less than a minute. A candle burns for several hours. Hours are longer than a minute.",
        "yes",
    ),
    _boolean(
        "Did people in ancient Rome listen to the radio?",
        "Ancient Rome ended in the fifth century. The radio was invented in the nineteenth century. "
        "Nothing can be used before it is invented.",
        "no",
    ),
    _boolean(
        "Can a full bathtub hold more water than a hundred drinking glasses?",
        "A bathtub holds about 150 litres. A drinking glass holds about 0.25 litres. "
        "A hundred glasses hold 25 litres, which is less than 150.",
        "yes",
    ),
    _boolean(
        "Would a vegetarian order the grilled salmon?",
        "Salmon is a fish. Vegetarians do not eat meat or fish.",
        "no",
    ),
    _boolean(
        "Is a piano tuner likely to own a tuning fork?",
        "A piano tuner sets the pitch of strings. A tuning fork gives a reference pitch. "
        "It is a usual tool of that trade.",
        "yes",
    ),
)

_TEXTS = (
    _text(
        "Which city is further north, Oslo or Madrid?",
        "Oslo lies in Norway at about 60 degrees north. Madrid lies in Spain at about 40 degrees north. "
        "60 is more than 40.",
        "Oslo",
    ),
    _text(
        "What is the third letter of the word garden?",
        "The word garden is spelled g, a, r, d, e, n. The first letter is g and the second is a. The next one is r.",
        "r",
    ),
    _text(
        "Today is Tuesday. What day of the week will it be in ten days?",
        "Seven days after Tuesday it is Tuesday again. Three more days remain. "
        "They are Wednesday, Thursday and Friday.",
        "Friday",
    ),
    _text(
        "Anna is older than Bert. Bert is older than Carl. Who is the youngest?",
        "Anna is older than Bert, so she is not the youngest. Bert is older than Carl. Nobody is younger than Carl.",
        "Carl",
    ),
)

EXEMPLARS: dict[AnswerKind, tuple[Question, ...]] = {
    "number": _NUMBERS,
    "choice": _CHOICES,
    "boolean": _BOOLEANS,
    "text": _TEXTS,
}

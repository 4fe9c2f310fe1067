"""Worked examples that a teacher is shown before a question of a published data set, one list for each set.

Written for this project in each set's own manner, and in that of the steps rule `periods`: short sentences, one thought
each. SVAMP's hold numbers that do not matter, GSM8K's take several steps, ASDiv's have answers of several kinds,
SingleEq's and AddSub's are spaced as published, AQuA's have options. Every equation in them holds, and the last one
gives the answer.
"""

from data.exemplars import worked_boolean, worked_choice, worked_number, worked_numbers, worked_text
from data.records import Question
from data.sets import DatasetName

_SVAMP = (
    worked_number(
        "A kiosk sold 64 newspapers and 27 magazines in the morning. In the afternoon it sold 39 newspapers. "
        "How many newspapers did it sell that day?",
        "Only newspapers are asked for, so the magazines do not matter. It sold 64 newspapers and then 39. "
        "64 + 39 = 103.",
        "103",
    ),
    worked_number(
        "Greta picked 9 baskets of pears. Each basket holds 14 pears and weighs 3 pounds. How many pears did she pick?",
        "The weight does not matter. There are 9 baskets with 14 pears each. 9 * 14 = 126.",
        "126",
    ),
    worked_number(
        "There were 52 children and 8 adults at the pool. Then 19 children went home. "
        "How many children were still at the pool?",
        "The adults are not asked for. There were 52 children. 19 of them went home. 52 - 19 = 33.",
        "33",
    ),
    worked_number(
        "Ruben read 45 pages on Monday and 38 pages on Tuesday. His book has 310 pages. "
        "How many more pages did he read on Monday than on Tuesday?",
        "The length of the book does not matter. He read 45 pages on Monday and 38 on Tuesday. 45 - 38 = 7.",
        "7",
    ),
    worked_number(
        "A farmer with 30 hens put 84 eggs into cartons of 6. How many cartons did he fill?",
        "The number of hens does not matter. The 84 eggs go into cartons of 6. 84 / 6 = 14.",
        "14",
    ),
    worked_number(
        "Lola has 26 red beads, some blue beads and 15 buttons. Beads and buttons together are 70. "
        "How many blue beads does she have?",
        "Without the buttons there are 70 - 15 = 55 beads. 26 of them are red. 55 - 26 = 29.",
        "29",
    ),
    worked_number(
        "A train had 7 carriages with 48 seats each. At a station 5 carriages were taken away. "
        "How many seats did the train have after that?",
        "After the station there were 7 - 5 = 2 carriages. Each has 48 seats. 2 * 48 = 96.",
        "96",
    ),
    worked_number(
        "Kim had 90 coins and 11 books. She gave 24 coins to her brother and 3 books to her sister. "
        "How many coins does Kim have now?",
        "Only the coins matter. Kim had 90 coins. She gave 24 of them away. 90 - 24 = 66.",
        "66",
    ),
)

_GSM8K = (
    worked_number(
        "Marta bakes 4 trays of 12 muffins for a fair. She keeps 6 muffins for her family and sells the rest for $2 "
        "each. How many dollars does she earn?",
        "Marta bakes 4 * 12 = 48 muffins. After keeping 6 she has 48 - 6 = 42 muffins to sell. "
        "At $2 each they bring 42 * 2 = 84 dollars.",
        "84",
    ),
    worked_number(
        "A cyclist rides at 18 miles an hour for 2 hours and then at 15 miles an hour for 3 hours. "
        "How many miles does he ride in total?",
        "In the first 2 hours he rides 18 * 2 = 36 miles. In the next 3 hours he rides 15 * 3 = 45 miles. "
        "Together that is 36 + 45 = 81 miles.",
        "81",
    ),
    worked_number(
        "Jonas earns $16 an hour and works 6 hours a day from Monday to Friday. He puts a quarter of his pay aside. "
        "How many dollars does he put aside each week?",
        "From Monday to Friday there are 5 days. He works 6 * 5 = 30 hours a week. He earns 30 * 16 = 480 dollars. "
        "A quarter of that is 480 / 4 = 120 dollars.",
        "120",
    ),
    worked_number(
        "A garden has twice as many roses as tulips and 10 more tulips than lilies. There are 15 lilies. "
        "How many flowers are there altogether?",
        "There are 15 + 10 = 25 tulips. There are 2 * 25 = 50 roses. Altogether there are 15 + 25 + 50 = 90 flowers.",
        "90",
    ),
    worked_number(
        "A phone costs $400. Leo buys it at 15% off, together with a case for $20. How much does he pay in all?",
        "The discount is 400 * 15 / 100 = 60 dollars. The phone then costs 400 - 60 = 340 dollars. "
        "With the case he pays 340 + 20 = 360 dollars.",
        "360",
    ),
    worked_number(
        "Tessa is 3 times as old as her cousin. In 4 years Tessa will be 28. How old is her cousin now?",
        "Tessa is now 28 - 4 = 24 years old. That is 3 times her cousin's age. Her cousin is 24 / 3 = 8 years old.",
        "8",
    ),
    worked_number(
        "A tank holds 240 liters. A pump brings in 8 liters a minute and a leak loses 3 liters a minute. "
        "How many minutes does it take to fill the empty tank?",
        "Each minute the tank gains 8 - 3 = 5 liters. It needs 240 liters. That takes 240 / 5 = 48 minutes.",
        "48",
    ),
    worked_number(
        "Three friends share the cost of a $150 tent and of 6 gas cans at $4 each equally. "
        "How much does each friend pay?",
        "The gas cans cost 6 * 4 = 24 dollars. Tent and cans cost 150 + 24 = 174 dollars. "
        "Each of the 3 friends pays 174 / 3 = 58 dollars.",
        "58",
    ),
)

_ASDIV = (
    worked_number(
        "Nine ducks swim on a pond. Six more ducks land on it. How many ducks are on the pond?",
        "There were nine ducks. Six more came. 9 + 6 = 15.",
        "15",
    ),
    worked_numbers(
        "A shelf holds 24 novels and 18 comics. What is the ratio of novels to comics?",
        "Both numbers can be divided by 6. For the novels 24 / 6 = 4. For the comics 18 / 6 = 3.",
        "4:3",
    ),
    worked_number(
        "A box of chalk costs $2.35. If you buy 4 boxes, how much do you pay?",
        "One box costs 2.35 dollars. There are 4 boxes. 4 * 2.35 = 9.4.",
        "9.4",
    ),
    worked_text(
        "Paula ran 5 laps of 400 meters. Ingo ran 1,900 meters. Who ran farther?",
        "Paula ran 5 * 400 = 2000 meters. Ingo ran 1,900 meters. 2,000 is more than 1,900.",
        "Paula",
    ),
    worked_numbers(
        "A rectangle is twice as long as it is wide. Its length is 14 cm. Find its width and its area.",
        "The width is half of the length. 14 / 2 = 7. The area is length times width. 14 * 7 = 98.",
        "7; 98",
    ),
    worked_number(
        "A ribbon is 63 inches long. It is cut into pieces of 7 inches, how many pieces are there?",
        "The ribbon is 63 inches long. Each piece takes 7 inches. 63 / 7 = 9.",
        "9",
    ),
    worked_number(
        "The sum of two numbers is 50. One of them is 18. What is the other number?",
        "Both numbers together are 50. Without the 18 the other one is left. 50 - 18 = 32.",
        "32",
    ),
    worked_number(
        "Five friends scored 12, 9, 15, 10 and 14 points. What is the mean of their points?",
        "Together they scored 12 + 9 + 15 + 10 + 14 = 60 points. There are 5 friends. 60 / 5 = 12.",
        "12",
    ),
)

_SINGLEEQ = (
    worked_number(
        "Nora paid 46 dollars for 4 tickets and a program for 6 dollars. How much did each ticket cost ?",
        "Without the program she paid 46 - 6 = 40 dollars. That was for 4 tickets. 40 / 4 = 10.",
        "10",
    ),
    worked_number(
        "A baker used 0.4 of a bag of flour in the morning and 0.35 of a bag in the evening. "
        "How much flour did the baker use in all ?",
        "In the morning it was 0.4 of a bag. In the evening it was 0.35 of a bag. 0.4 + 0.35 = 0.75.",
        "0.75",
    ),
    worked_number(
        "There are 31 frogs in the pond. Some more frogs came. Now there are 47 frogs in the pond. "
        "How many frogs came ?",
        "First there were 31 frogs. Now there are 47. 47 - 31 = 16.",
        "16",
    ),
    worked_number(
        "Each crate holds 36 bottles. How many bottles are in 15 crates ?",
        "One crate holds 36 bottles. There are 15 crates. 15 * 36 = 540.",
        "540",
    ),
    worked_number(
        "Half of a number plus 9 is 21. What is the number ?",
        "Half of the number is 21 - 9 = 12. The number is twice that. 2 * 12 = 24.",
        "24",
    ),
    worked_number(
        "A rope of 8.4 meters is cut into 7 equal pieces. How long is each piece ?",
        "The rope is 8.4 meters long. It gives 7 pieces. 8.4 / 7 = 1.2.",
        "1.2",
    ),
    worked_number(
        "The sum of three consecutive whole numbers is 54. What is the smallest of them ?",
        "The number in the middle is 54 / 3 = 18. The smallest is one less. 18 - 1 = 17.",
        "17",
    ),
    worked_number(
        "Emil ran 3.25 kilometers and his sister ran 1.5 kilometers less. How far did his sister run ?",
        "Emil ran 3.25 kilometers. His sister ran 1.5 kilometers less. 3.25 - 1.5 = 1.75.",
        "1.75",
    ),
)

_MULTIARITH = (
    worked_number(
        "The cook had 23 potatoes. She used 15 of them for soup and bought 34 more. "
        "How many potatoes does she have now?",
        "After the soup she had 23 - 15 = 8 potatoes. Then she bought 34 more. 8 + 34 = 42.",
        "42",
    ),
    worked_number(
        "A teacher bought 6 packs of pens with 8 pens each. She gave 20 pens away. How many pens does she have left?",
        "She bought 6 * 8 = 48 pens. She gave 20 of them away. 48 - 20 = 28.",
        "28",
    ),
    worked_number(
        "Ivan sold 7 old games for 5 dollars each. He already had 12 dollars. How much money does he have now?",
        "The games brought 7 * 5 = 35 dollars. He had 12 dollars before. 35 + 12 = 47.",
        "47",
    ),
    worked_number(
        "There are 18 girls and 14 boys in a choir. If they stand in rows of 8, how many rows are there?",
        "The choir has 18 + 14 = 32 children. They stand in rows of 8. 32 / 8 = 4.",
        "4",
    ),
    worked_number(
        "Maya took 45 photos. She deleted 13 of them and put the rest into 4 albums with the same number in each. "
        "How many photos are in each album?",
        "After deleting some she had 45 - 13 = 32 photos. They went into 4 albums. 32 / 4 = 8.",
        "8",
    ),
    worked_number(
        "A florist had 5 vases with 9 roses each and 7 vases with 6 tulips each. How many flowers did she have in all?",
        "There were 5 * 9 = 45 roses. There were 7 * 6 = 42 tulips. 45 + 42 = 87.",
        "87",
    ),
    worked_number(
        "A theater sold 64 tickets on Friday and 50 tickets on Saturday. If 9 of the people stayed away, "
        "how many people came?",
        "The theater sold 64 + 50 = 114 tickets. 9 people stayed away. 114 - 9 = 105.",
        "105",
    ),
    worked_number(
        "Ben needs 90 stickers for a book. He has 4 sheets with 12 stickers each. How many more stickers does he need?",
        "Ben has 4 * 12 = 48 stickers. He needs 90. 90 - 48 = 42.",
        "42",
    ),
)

_ADDSUB = (
    worked_number(
        "Rosa had 38 stamps . Her aunt gave her 17 stamps . How many stamps does Rosa have now ?",
        "Rosa had 38 stamps. She got 17 more. 38 + 17 = 55.",
        "55",
    ),
    worked_number(
        "There were 62 oranges in the crate . Peter ate 5 pears and took 24 oranges out of the crate . "
        "How many oranges are now in the crate ?",
        "The pears do not matter. There were 62 oranges. Peter took 24 of them. 62 - 24 = 38.",
        "38",
    ),
    worked_number(
        "Clara bought milk for $ 1.45 and bread for $ 2.8 . How much did she spend in total ?",
        "The milk cost 1.45 dollars. The bread cost 2.8 dollars. 1.45 + 2.8 = 4.25.",
        "4.25",
    ),
    worked_number(
        "A plank was 3.6 meters long . A carpenter sawed 1.25 meters off . How long is the plank now ?",
        "The plank was 3.6 meters long. 1.25 meters were sawed off. 3.6 - 1.25 = 2.35.",
        "2.35",
    ),
    worked_number(
        "Hugo found 21 shells , Lea found 16 shells and 9 crabs , and Nick found 12 shells . "
        "How many shells did they find together ?",
        "The crabs are no shells. Hugo found 21 shells, Lea found 16 and Nick found 12. 21 + 16 + 12 = 49.",
        "49",
    ),
    worked_number(
        "A team played 54 games this season . It lost 19 of them and won the others . How many games did it win ?",
        "The team played 54 games. It lost 19. 54 - 19 = 35.",
        "35",
    ),
    worked_number(
        "There are 27 birch trees in the garden . Workers plant birch trees today . Then there are 43 birch trees . "
        "How many birch trees do the workers plant ?",
        "Before there are 27 trees. Afterwards there are 43. 43 - 27 = 16.",
        "16",
    ),
    worked_number(
        "It snowed 0.7 inches on Monday and 0.45 inches on Tuesday . How much more did it snow on Monday ?",
        "On Monday it snowed 0.7 inches. On Tuesday it snowed 0.45 inches. 0.7 - 0.45 = 0.25.",
        "0.25",
    ),
)

_AQUA = (
    worked_choice(
        "A shop sells a coat for $90 after a discount of 25%. What was the price before?",
        ("$100", "$112.50", "$115", "$120", "$125"),
        "After the discount 75% of the price are left. So 0.75 of the old price are 90 dollars. 90 / 0.75 = 120.",
        "D",
    ),
    worked_choice(
        "One pipe fills a tank in 6 hours and another one in 3 hours. How long do both of them take together?",
        ("1 hour", "1.5 hours", "2 hours", "4.5 hours", "9 hours"),
        "In an hour the pipes fill 1/6 and 1/3 of the tank. Together that is 1/6 + 1/3 = 1/2 of the tank. "
        "The whole tank takes 1 / 0.5 = 2 hours.",
        "C",
    ),
    worked_choice(
        "A train of 150 meters passes a pole in 10 seconds. What is its speed in km/h?",
        ("54", "45", "36", "60", "72"),
        "The train runs its own length in 10 seconds. That is 150 / 10 = 15 meters a second. "
        "One meter a second is 3.6 km/h. 15 * 3.6 = 54.",
        "A",
    ),
    worked_choice(
        "In how many ways can 4 people sit in a row?",
        ("4", "8", "12", "16", "24"),
        "There are 4 people for the first seat, then 3, then 2, then 1. 4 * 3 * 2 * 1 = 24.",
        "E",
    ),
    worked_choice(
        "The average of 5 numbers is 18. Four of them add up to 70. What is the fifth number?",
        ("16", "20", "22", "24", "None of these"),
        "All five add up to 5 * 18 = 90. Without the four others 90 - 70 = 20 is left.",
        "B",
    ),
    worked_choice(
        "If 3x - 7 is 20, what is x + 1?",
        ("8", "9", "10", "11", "12"),
        "Without the 7 taken away 3x is 20 + 7 = 27. So x is 27 / 3 = 9. One more is 9 + 1 = 10.",
        "C",
    ),
)

_COMMONSENSEQA = (
    worked_choice(
        "Where would you find a seat beside a stranger at thirty thousand feet?",
        ("airplane", "theater", "park bench", "bus stop", "school"),
        "Thirty thousand feet is high above the ground. Only something that flies gets there. "
        "Of the choices, only an airplane flies.",
        "A",
    ),
    worked_choice(
        "The gardener pulled weeds all morning, what did he want his vegetables to have?",
        ("shade", "more room", "music", "a fence", "snow"),
        "Weeds grow between the vegetables and take their place. Pulling them out frees that place. "
        "The vegetables then have more room.",
        "B",
    ),
    worked_choice(
        "What should people do before they cross a busy street?",
        ("run", "sing", "look both ways", "close their eyes", "sit down"),
        "A busy street has cars coming from two sides. Crossing is safe only when no car is near. "
        "To know that, people look both ways.",
        "C",
    ),
    worked_choice(
        "Her phone stayed dark all day, what did she most likely forget?",
        ("a hammer", "sunglasses", "a passport", "the charger", "an umbrella"),
        "A phone stays dark when its battery is empty. A battery is filled with a charger. "
        "So she had forgotten the charger.",
        "D",
    ),
    worked_choice(
        "Where does a driver usually look for the spare tire?",
        ("kitchen", "attic", "roof", "mailbox", "trunk"),
        "A spare tire has to be at hand on the road. So it is kept in the car. "
        "The part of a car that holds such things is the trunk.",
        "E",
    ),
    worked_choice(
        "What might someone feel after the death of a close friend?",
        ("hunger", "sorrow", "boredom", "dizziness", "pride"),
        "A close friend is loved. The death of someone who is loved makes people sad. A deep sadness is called sorrow.",
        "B",
    ),
    worked_choice(
        "If fresh rolls are sold at dawn, when does the baker have to work?",
        ("at noon", "on holidays", "after lunch", "at night", "in spring"),
        "Rolls that are sold at dawn are baked before. Before dawn it is night. So the baker works at night.",
        "D",
    ),
)

_STRATEGYQA = (
    worked_boolean(
        "Could the Eiffel Tower be kept in a two-car garage?",
        "The Eiffel Tower is about 330 meters high. A two-car garage is less than 5 meters high. "
        "A thing does not fit into a much smaller one.",
        "no",
    ),
    worked_boolean(
        "Could a passenger finish a short novel on a flight from London to Sydney?",
        "A flight from London to Sydney takes more than 20 hours. A short novel can be read in about 5 hours. "
        "5 hours are less than 20.",
        "yes",
    ),
    worked_boolean(
        "Did Isaac Newton ever send a text message?",
        "Isaac Newton died in 1727. The first text message was sent in 1992. Nobody uses what comes after his death.",
        "no",
    ),
    worked_boolean(
        "Is a grown blue whale heavier than a school bus?",
        "A grown blue whale weighs about 100 tons. A school bus weighs about 12 tons. 100 is more than 12.",
        "yes",
    ),
    worked_boolean(
        "Would a snowman last through a summer day in Madrid?",
        "Snow melts above 0 degrees Celsius. A summer day in Madrid is warmer than 25 degrees. "
        "A snowman is made of snow.",
        "no",
    ),
    worked_boolean(
        "Would someone with a peanut allergy ask about satay sauce?",
        "Satay sauce is made from peanuts. Someone with a peanut allergy must not eat peanuts. "
        "Such a person asks before eating it.",
        "yes",
    ),
)

BENCHMARK_EXEMPLARS: dict[DatasetName, tuple[Question, ...]] = {
    "svamp": _SVAMP,
    "gsm8k": _GSM8K,
    "asdiv": _ASDIV,
    "singleeq": _SINGLEEQ,
    "multiarith": _MULTIARITH,
    "addsub": _ADDSUB,
    "aqua": _AQUA,
    "commonsenseqa": _COMMONSENSEQA,
    "strategyqa": _STRATEGYQA,
}

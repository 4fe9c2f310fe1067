"""AddSub: additions and subtractions, some with a number too many (Hosseini et al., EMNLP 2014).

One JSON array of the same form as MultiArith's:

    {"iIndex": 3, "lEquations": ["X = 8 - 2"], "lSolutions": ["6"],
     "sQuestion": "Ida had 8 nuts . She ate 2 . How many has she ? "}

On the hub lies nothing dependable: what is there under this name is mixed with other sets, split anew, or loaded by a
script.
"""

from data.dataset import published
from data.sets.multiarith import read

SET = published(read=read)
